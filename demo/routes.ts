import { FACES, type Failover, faceOf, type Moment, type Routed } from "./failover.ts";
import type { Check } from "./report.ts";
import { MOST_COLUMNS, type Terminal } from "./terminal.ts";

/** What is shown of `npm run demo -- --failover`: what befell the accounts, and the route of each job. */

const seconds = (ms: number) => `${(ms / 1_000).toFixed(1)} s`;

export function printMoment({ print, paint }: Terminal, { atMs, face, what, isAct }: Moment): void {
  const line = `  ${seconds(atMs).padStart(7)}  ${face.padEnd(10)} ${isAct ? what : `→ ${what}`}`;
  print(isAct ? paint("yellow", line) : line);
}

const row = ([number = "", at = "", model = "", from = "", took = "", credits = ""]: readonly string[]) =>
  `  ${number.padStart(3)}  ${at.padStart(7)}  ${model.padEnd(13)} ${from.padEnd(12)}${took.padStart(8)}${credits.padStart(9)}`;

/** The run that brought the result; of these jobs each has one variant. */
const runOf = ({ job }: Routed) => job.runs.at(-1);
const accountOf = (routed: Routed) => faceOf(runOf(routed)?.provider ?? "nobody");

export function printRoutes({ print, paint }: Terminal, routed: readonly Routed[]): void {
  print();
  print(paint("dim", row(["job", "sent at", "model", "bought from", "took", "credits"])));
  for (const each of routed) {
    const { number, submittedMs, job } = each;
    const credits = String(job.settlement?.kept ?? 0);
    const line = row([`${number}`, seconds(submittedMs), job.model, accountOf(each), seconds(tookMs(each)), credits]);
    print(job.status === "completed" ? line : paint("red", `${line}  ${job.status}`));
    for (const part of wrapped(runOf(each)?.routeWhy ?? "nothing was ordered")) print(paint("dim", `       ${part}`));
  }
}

function tookMs({ job }: Routed): number {
  return job.endedAt ? Date.parse(job.endedAt) - Date.parse(job.createdAt) : Number.NaN;
}

function wrapped(text: string): string[] {
  const lines = [""];
  for (const word of text.replaceAll("sandbox_", "").split(" ")) {
    const last = lines.length - 1;
    if (`${lines[last]} ${word}`.length > MOST_COLUMNS - 8) lines.push(word);
    else lines[last] = `${lines[last]} ${word}`.trimStart();
  }
  return lines;
}

export function failoverChecks({ routed, credits, ledger, bill }: Failover): Check[] {
  const bad = routed
    .filter(({ job }) => job.status !== "completed")
    .map(({ number, job }) => `${number} ${job.status}`);
  const used = new Set(routed.map(accountOf));
  const idle = FACES.filter((face) => !used.has(face));
  const mute = routed.filter((each) => !runOf(each)?.routeWhy).map(({ number }) => `${number}`);
  const ours = new Set(routed.flatMap(({ job }) => job.runs.flatMap(({ providerRunId }) => providerRunId ?? [])));
  const isOurs = bill.length === ours.size && bill.every((id) => ours.has(id));
  const drift = Math.max(ledger.accounts, ledger.credits);
  const total = credits.entries.reduce((sum, { amount }) => sum + amount, 0);
  const files = routed.flatMap((each) => each.files);
  const torn = files.flatMap(({ path, trouble }) => (trouble ? [`${path}: ${trouble}`] : []));
  return [
    { ok: bad.length === 0, what: "every job completed", detail: bad.join(", ") || `${routed.length} jobs` },
    { ok: mute.length === 0, what: "every route has its reason", detail: mute.join(", ") || "kept with the run" },
    {
      ok: idle.length === 0,
      what: "every account was used",
      detail: idle.length > 0 ? `not ${idle.join(", ")}` : servedBy(routed),
    },
    {
      ok: isOurs && bill.length === routed.length,
      what: "bought once each",
      detail: `${bill.length} on the bill of all faces, ${routed.length} jobs`,
    },
    {
      ok: drift === 0 && total === credits.available,
      what: "ledger drift 0",
      detail: `balance ${credits.available}, entries ${total}`,
    },
    { ok: ledger.unsettledJobs === 0, what: "unsettled jobs 0", detail: `${ledger.unsettledJobs}` },
    {
      ok: torn.length === 0 && files.length === routed.length,
      what: "every file whole",
      detail: torn.join("; ") || `${files.length} of ${routed.length}: SHA-256 and every pixel`,
    },
  ];
}

function servedBy(routed: readonly Routed[]): string {
  return FACES.map((face) => `${face} ${routed.filter((each) => accountOf(each) === face).length}`).join(", ");
}

export function failoverToJson({ routed, moments, credits, ledger, bill }: Failover) {
  return {
    jobs: routed.length,
    completed: routed.filter(({ job }) => job.status === "completed").length,
    ledgerDrift: Math.max(ledger.accounts, ledger.credits),
    unsettledJobs: ledger.unsettledJobs,
    balance: credits.available,
    billLines: bill.length,
    routes: routed.map((each) => ({
      job: each.job.id,
      model: each.job.model,
      status: each.job.status,
      account: accountOf(each),
      why: runOf(each)?.routeWhy ?? null,
      submittedMs: each.submittedMs,
      seconds: Math.round(tookMs(each) / 100) / 10,
      credits: each.job.settlement?.kept ?? 0,
      outputs: each.files.map(({ path }) => path),
    })),
    accounts: moments,
  };
}
