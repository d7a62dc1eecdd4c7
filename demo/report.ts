import type { Credits, Job } from "./client.ts";
import type { SavedFile } from "./folder.ts";
import { type Order, USER } from "./orders.ts";
import { MOST_COLUMNS, type Terminal } from "./terminal.ts";

export interface Ended {
  readonly order: Order;
  readonly job: Job;
  readonly pictures: readonly SavedFile[];
  /** The same request with the same Idempotency-Key was answered with this job. */
  readonly repeated: string;
}

export interface Facts {
  readonly ended: readonly Ended[];
  readonly credits: Credits;
  readonly ledger: { readonly accounts: number; readonly credits: number; readonly unsettledJobs: number };
  /** What the provider says was bought, by id; null when it cannot be asked. */
  readonly bill: readonly string[] | null;
}

export interface Check {
  readonly ok: boolean;
  /** False: nothing here could try it. */
  readonly isTried?: boolean;
  readonly what: string;
  readonly detail: string;
}

/** What must be true after every run, whatever died in the middle. */
export function makeChecks({ ended, credits, ledger, bill }: Facts): Check[] {
  const checks: Check[] = [];
  const add = (ok: boolean, what: string, detail: string) => checks.push({ ok, what, detail });

  const strays = ended.filter(({ order, job }) => job.status !== order.ends);
  const stray = strays.map(({ order, job }) => `${order.name} is ${job.status}, not ${order.ends}`).join("; ");
  add(strays.length === 0, "every job ended as it should", stray || list(ended.map(({ job }) => job.status)));

  const twice = ended.filter(({ job, repeated }) => job.id !== repeated).map(({ order }) => order.name);
  add(twice.length === 0, "sent twice, charged once", twice.join(", ") || "same Idempotency-Key, same job");

  const unfair = ended.filter(({ job }) => job.status === "failed" && job.settlement?.refunded !== job.price.credits);
  const back = ended.reduce((sum, { job }) => sum + (job.settlement?.refunded ?? 0), 0);
  add(
    unfair.length === 0,
    "what failed was refunded",
    unfair.map(({ order }) => order.name).join(", ") || `${back} credits`,
  );

  const total = credits.entries.reduce((sum, entry) => sum + entry.amount, 0);
  const drift = Math.max(ledger.accounts, ledger.credits);
  add(drift === 0 && total === credits.available, "ledger drift 0", `balance ${credits.available}, entries ${total}`);
  add(ledger.unsettledJobs === 0, "unsettled jobs 0", `${ledger.unsettledJobs} of ${ended.length}`);

  if (bill) {
    const ours = new Set(boughtBy(ended));
    const billed = new Set(bill);
    const unbilled = [...ours].filter((id) => !billed.has(id));
    const unknown = [...billed].filter((id) => !ours.has(id));
    const wrong = [unbilled.length && `not billed: ${list(unbilled)}`, unknown.length && `not ours: ${list(unknown)}`];
    const found = wrong.filter(Boolean).join("; ");
    add(found === "", "sandbox bill = our runs", found || `${bill.length} = ${ours.size}, each id both ways`);
  }

  const pictures = ended.flatMap((each) => each.pictures);
  const wanted = ended.reduce((sum, { order }) => sum + order.pictures, 0);
  const torn = pictures.flatMap(({ path, trouble }) => (trouble ? [`${path}: ${trouble}`] : []));
  const files = torn.join("; ") || `${pictures.length} of ${wanted}: SHA-256 and every pixel`;
  add(torn.length === 0 && pictures.length === wanted, "every file whole", files);
  return checks;
}

function boughtBy(ended: readonly Ended[]): string[] {
  return ended.flatMap(({ job }) => job.runs.flatMap((run) => (run.providerRunId ? [run.providerRunId] : [])));
}

function list(words: readonly string[]): string {
  return words.join(", ");
}

interface Calls {
  readonly submissions: number;
  readonly looks: number;
}

function callsOf(job: Job): Calls {
  return {
    submissions: job.runs.filter((run) => run.sentAt !== null).length,
    looks: job.runs.reduce((sum, run) => sum + run.looks, 0),
  };
}

function secondsOf(job: Job): number {
  const ms = job.endedAt ? Date.parse(job.endedAt) - Date.parse(job.createdAt) : Number.NaN;
  return Math.round(ms / 100) / 10;
}

/** What a person reads. */
export function printReport(terminal: Terminal, facts: Facts, checks: readonly Check[]): void {
  const { print, paint } = terminal;
  const row = (cells: readonly string[]) =>
    `  ${(cells[0] ?? "").padEnd(10)}  ${(cells[1] ?? "").padEnd(9)} ${cells
      .slice(2)
      .map((cell) => cell.padStart(9))
      .join(" ")}`;
  print(paint("dim", row(["job", "status", "seconds", "bought", "looks", "charged", "returned"])));
  for (const { order, job } of facts.ended) {
    const { submissions, looks } = callsOf(job);
    const { charged, refunded } = job.settlement ?? { charged: job.price.credits, refunded: 0 };
    print(
      row([order.name, job.status, secondsOf(job).toFixed(1), ...[submissions, looks, charged, refunded].map(String)]),
    );
  }
  for (const { order, job } of facts.ended) {
    if (!job.failure) continue;
    const wanted = order.ends === "failed" ? ", as ordered" : `: ${job.failure.detail}`;
    print(paint(order.ends === "failed" ? "dim" : "red", indent(`${order.name}: ${job.failure.code}${wanted}`)));
  }
  print();
  print(`  ${callsLine(facts.ended)}`);
  print(`  ${balanceLine(facts.credits)}`);
  printChecks(terminal, checks);
}

export function printChecks({ print, paint }: Terminal, checks: readonly Check[]): void {
  print();
  for (const { ok, isTried = true, what, detail } of checks) {
    const mark = isTried ? paint(ok ? "green" : "red", ok ? "✔" : "✖") : paint("yellow", "–");
    print(`  ${mark} ${what.padEnd(28)} ${paint(ok ? "dim" : "red", detail)}`);
  }
}

function indent(text: string): string {
  return `  ${text.length > MOST_COLUMNS - 2 ? `${text.slice(0, MOST_COLUMNS - 3)}…` : text}`;
}

function callsLine(ended: readonly Ended[]): string {
  const calls = ended.map(({ job }) => callsOf(job));
  const sum = (name: keyof Calls) => calls.reduce((all, each) => all + each[name], 0);
  const [bought, looks] = [sum("submissions"), sum("looks")];
  return `provider calls: ${bought} bought + ${looks} looks = ${bought + looks}`;
}

function balanceLine({ available, entries }: Credits): string {
  const sum = (type: string) =>
    Math.abs(entries.filter((each) => each.type === type).reduce((all, { amount }) => all + amount, 0));
  return `${USER}'s credits: ${sum("grant")} given − ${sum("charge")} charged + ${sum("refund")} returned = ${available}`;
}

/** What a program reads. */
export function toJson(facts: Facts, checks: readonly Check[]) {
  const { ended, credits, ledger } = facts;
  const details = ended.map(({ order, job, pictures }) => ({
    name: order.name,
    id: job.id,
    kind: job.kind,
    status: job.status,
    seconds: secondsOf(job),
    ...callsOf(job),
    charged: job.settlement?.charged ?? null,
    refunded: job.settlement?.refunded ?? null,
    failure: job.failure && { code: job.failure.code, detail: job.failure.detail },
    providerRunIds: boughtBy([{ order, job, pictures, repeated: job.id }]),
    outputs: pictures.map((picture) => picture.path),
  }));
  const ends = (status: Job["status"]) => details.filter((each) => each.status === status).length;
  return {
    jobs: details.length,
    completed: ends("completed"),
    failed: ends("failed"),
    charged: details.reduce((sum, each) => sum + (each.charged ?? 0), 0),
    refunded: details.reduce((sum, each) => sum + (each.refunded ?? 0), 0),
    balance: credits.available,
    ledgerDrift: Math.max(ledger.accounts, ledger.credits),
    unsettledJobs: ledger.unsettledJobs,
    billLines: facts.bill?.length ?? null,
    providerCalls: details.reduce((sum, each) => sum + each.submissions + each.looks, 0),
    outputs: details.flatMap((each) => each.outputs),
    details,
    checks,
  };
}
