import type { Visit, Visits } from "./products.ts";
import type { Check } from "./report.ts";
import type { Terminal } from "./terminal.ts";

/** What is shown of `npm run demo -- --all`: one line for each kind of each app, and what must hold in all. */

const row = ([app = "", what = "", status = "", ...numbers]: readonly string[]) =>
  `  ${app.padEnd(18)} ${what.padEnd(11)} ${status.padEnd(10)}${numbers.map((cell) => cell.padStart(9)).join("")}`;

export function printVisitHead({ print, paint }: Terminal): void {
  print(paint("dim", row(["app", "kind", "status", "credits", "seconds", "outputs"])));
}

export function printVisit({ print, paint }: Terminal, visit: Visit): void {
  const { app, what, job, files } = visit;
  const kept = job.settlement?.kept ?? 0;
  const line = row([app, what, job.status, `${kept}`, secondsOf(visit).toFixed(1), `${files.length}`]);
  print(job.status === "completed" ? line : paint("red", line));
  if (job.failure) print(paint("red", `    ${job.failure.code}: ${job.failure.detail.slice(0, 200)}`));
}

function secondsOf({ job }: Visit): number {
  return job.endedAt ? (Date.parse(job.endedAt) - Date.parse(job.createdAt)) / 1_000 : Number.NaN;
}

/** `played` null: there was no browser to play the films in. */
export function visitChecks(
  { visits, ledger, bill }: Visits,
  films: number,
  played: ReadonlyMap<string, string> | null,
): Check[] {
  const bad = visits.filter(({ job }) => job.status !== "completed").map(({ app, what }) => `${app} ${what}`);
  const ours = new Set(visits.flatMap(({ job }) => job.runs.flatMap(({ providerRunId }) => providerRunId ?? [])));
  const strange = bill.filter((id) => !ours.has(id)).length + [...ours].filter((id) => !bill.includes(id)).length;
  const files = visits.flatMap((each) => each.files);
  const torn = files.flatMap(({ path, trouble }) => (trouble ? [`${path}: ${trouble}`] : []));
  const drift = Math.max(ledger.accounts, ledger.credits);
  const stuck = [...(played ?? [])].map(([path, why]) => `${path}: ${why}`);
  return [
    { ok: bad.length === 0, what: "every job completed", detail: bad.join(", ") || `${visits.length} jobs` },
    { ok: drift === 0, what: "ledger drift 0", detail: `${drift}` },
    { ok: ledger.unsettledJobs === 0, what: "unsettled jobs 0", detail: `${ledger.unsettledJobs}` },
    { ok: strange === 0, what: "sandbox bill = our runs", detail: `${bill.length} = ${ours.size}` },
    {
      ok: torn.length === 0 && files.length > 0,
      what: "every file opens",
      detail: torn.join("; ") || `${files.length}: pictures decoded, films read, archives listed`,
    },
    {
      ok: stuck.length === 0,
      isTried: played !== null,
      what: "films play",
      detail:
        stuck.join("; ") ||
        (played
          ? `${films} of ${films} in Chromium`
          : `${films} not played: no Chromium here (apt-get install chromium)`),
    },
  ];
}

export function visitsToJson({ visits, ledger, bill }: Visits) {
  return {
    jobs: visits.length,
    completed: visits.filter(({ job }) => job.status === "completed").length,
    ledgerDrift: Math.max(ledger.accounts, ledger.credits),
    unsettledJobs: ledger.unsettledJobs,
    billLines: bill.length,
    table: visits.map((visit) => ({
      app: visit.app,
      kind: visit.job.kind,
      what: visit.what,
      status: visit.job.status,
      credits: visit.job.settlement?.kept ?? 0,
      seconds: Math.round(secondsOf(visit) * 10) / 10,
      outputs: visit.files.map(({ path, size }) => ({ path, size })),
    })),
  };
}
