import type { Finding } from "./finding.ts";
import { groupBy } from "./groups.ts";
import type { Struck } from "./nemesis.ts";
import type { JobRow, Records } from "./records.ts";
import { pidOf, type Takeover } from "./recovery.ts";

/** So long after a blow a lease may still lapse because of it: its 10 s, and a database that is busy coming back. */
const LAPSE_MS = 20_000;
/** What keeps a worker from renewing its leases without harming the worker. */
const CUTS_OFF = new Set<Struck["type"]>([
  "crash_postgres",
  "cut_postgres",
  "refuse_postgres",
  "freeze_postgres",
  "delay_postgres",
  "end_sessions",
]);
const STRIKES_WORKERS = new Set<Struck["type"]>(["kill_worker", "stop_worker"]);

export type Verdict = "ordered" | "excused" | "unexplained";

/**
 * Whether a job ended as ordered. Killing our own processes may lose an answer twice, an API or store that is down
 * serves no photo, and a job may lose three workers in a row to us: that much is excused, and counted. Null: not ended,
 * or not ordered.
 */
export function verdictsOn({ orders, jobs, runs, takeovers, struck }: Records): ReadonlyMap<string, Verdict> {
  const orderOf = new Map(orders.map((order) => [order.key, order]));
  const takeoversOf = groupBy(takeovers, ({ jobId }) => jobId);
  const lost = new Set(runs.filter(({ failure }) => failure === "lost").map(({ jobId }) => jobId));
  const verdicts = new Map<string, Verdict>();
  for (const job of jobs) {
    const order = orderOf.get(job.key);
    if (!order || !job.ended) continue;
    const asOrdered = order.fails === null ? job.status === "completed" : job.failure === order.fails;
    // Whoever cancels takes what comes: it may have been too late, and it may have failed by then.
    if (asOrdered || order.cancelAfterMs !== null) verdicts.set(job.id, "ordered");
    // Which of its variants is named as the reason is chance: with one of them lost, too few may be left.
    else if (lost.has(job.id)) verdicts.set(job.id, "excused");
    else verdicts.set(job.id, isExcused(job, takeoversOf.get(job.id) ?? [], struck) ? "excused" : "unexplained");
  }
  return verdicts;
}

function isExcused(job: JobRow, takeovers: readonly Takeover[], struck: readonly Struck[]): boolean {
  if (job.failure === "set_aside") return takeovers.every((takeover) => isOurDoing(takeover, struck));
  return job.kind === "staging" && job.failure === "provider_failed" && /download(ing)? input/i.test(job.detail ?? "");
}

/** The worker that vanished was struck, or could not reach the database for a while. */
function isOurDoing({ worker, at }: Takeover, struck: readonly Struck[]): boolean {
  return struck.some((blow) => {
    if (blow.what === null || blow.at > at) return false;
    if (STRIKES_WORKERS.has(blow.type)) return blow.pid === pidOf(worker);
    return CUTS_OFF.has(blow.type) && at - blow.at <= blow.forMs + LAPSE_MS;
  });
}

export function checkEnds(records: Records): Finding[] {
  const verdicts = verdictsOn(records);
  const nameOf = new Map(records.orders.map(({ key, name }) => [key, name]));
  return records.jobs
    .filter(({ id }) => verdicts.get(id) === "unexplained")
    .map((job) => {
      const end = job.failure === null ? job.status : `${job.failure}: ${job.detail}`;
      return { check: "unexplainedFailures", jobId: job.id, detail: `${nameOf.get(job.key)} ended as ${end}` };
    });
}
