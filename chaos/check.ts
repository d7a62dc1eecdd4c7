import type { BillLine, JobRow, Records } from "./records.ts";

/** What must never be found, whatever was broken. */
export const CHECKS = {
  lost: "acknowledged jobs that are not there",
  stuck: "jobs without an end, or orders without an answer",
  duplicateJobs: "keys with more than one job, or jobs that nobody ordered",
  strangeRefusals: "orders refused for anything but credits",
  duplicateCharges: "charges beyond one per job, or without a job",
  unsettled: "ended jobs without a settlement",
  wrongSettlements: "kept is not the delivered share",
  ledgerDrift: "credits that no entry explains",
  missingOutputs: "delivered files that are not there",
  corruptedOutputs: "files that are not what was stored",
  orphans: "runs on the bill that are no runs of ours",
  unbilled: "runs of ours that the bill does not know",
  strangeRuns: "runs that were bought for another order",
  duplicatePaidRuns: "second purchases without a failure before",
  unexplainedFailures: "jobs that ended otherwise than ordered, for no reason of the nemesis",
  crashes: "programs that ended by themselves",
} as const;

export type CheckName = keyof typeof CHECKS;

export interface Finding {
  readonly check: CheckName;
  readonly jobId: string | null;
  readonly detail: string;
}

/** A new user's credits, by the definition of the app in apps/demo.ts. */
const SIGNUP_GRANT = 200;
/** Ends that the provider decided: what it ended itself may be bought again. */
const FAILED_THERE = new Set(["failed", "aborted"]);

/** Joins three records that were written by three parties: the clients, the database, the provider's bill. */
export function check(records: Records): Finding[] {
  return [...checkClients(records), ...checkMoney(records), ...checkPurchases(records), ...checkEnds(records)];
}

function checkClients({ orders, sendings, jobs, deliveries, crashes }: Records): Finding[] {
  const found: Finding[] = [];
  const byId = new Map(jobs.map((job) => [job.id, job]));
  for (const job of jobs) {
    if (!orders.some(({ key }) => key === job.key))
      found.push({ check: "duplicateJobs", jobId: job.id, detail: `nobody sent the key ${job.key}` });
    if (!job.ended) found.push({ check: "stuck", jobId: job.id, detail: `is ${job.status}` });
  }
  for (const { key } of orders) {
    const mine = sendings.filter((each) => each.key === key);
    const told = new Set(mine.flatMap(({ jobId }) => jobId ?? []));
    if (mine.every((each) => each.outcome === "lost"))
      found.push({ check: "stuck", jobId: null, detail: `${key} was sent ${mine.length} times without an answer` });
    const held = jobs.filter((job) => job.key === key).map(({ id }) => id);
    for (const id of told)
      if (byId.get(id)?.key !== key) found.push({ check: "lost", jobId: id, detail: `was acknowledged for ${key}` });
    if (new Set([...told, ...held]).size > 1)
      found.push({ check: "duplicateJobs", jobId: null, detail: `${key}: ${[...told, ...held].join(", ")}` });
    for (const { answer } of mine.filter((each) => each.outcome === "refused"))
      if (!answer.startsWith("402 "))
        found.push({ check: "strangeRefusals", jobId: null, detail: `${key}: ${answer}` });
  }
  for (const { trouble, jobId, variant, detail } of deliveries)
    if (trouble !== null)
      found.push({
        check: trouble === "missing" ? "missingOutputs" : "corruptedOutputs",
        jobId,
        detail: `variant ${variant}: ${detail}`,
      });
  for (const detail of crashes) found.push({ check: "crashes", jobId: null, detail });
  return found;
}

function checkMoney({ sendings, jobs, entries, settlements, deliveries, balances, drift }: Records): Finding[] {
  const found: Finding[] = [];
  const byId = new Map(jobs.map((job) => [job.id, job]));
  for (const { jobId, amount } of entries.filter((entry) => entry.type === "charge"))
    if (!jobId || !byId.has(jobId))
      found.push({ check: "duplicateCharges", jobId, detail: `${amount} credits, and no such job` });

  const keptOf = (job: JobRow) => {
    if (job.status !== "completed") return 0;
    const whole = deliveries.filter((each) => each.jobId === job.id && each.trouble === null).length;
    return Math.floor((job.credits * whole) / job.variants);
  };
  for (const job of jobs) {
    const sum = (type: string) =>
      entries
        .filter((each) => each.jobId === job.id && each.type === type)
        .reduce((all, { amount }) => all + amount, 0);
    const [charged, refunded] = [-sum("charge"), sum("refund")];
    if (charged !== job.credits)
      found.push({
        check: "duplicateCharges",
        jobId: job.id,
        detail: `${charged} charged, the price is ${job.credits}`,
      });
    for (const { credits } of sendings.filter((each) => each.jobId === job.id))
      if (credits !== job.credits)
        found.push({ check: "duplicateCharges", jobId: job.id, detail: `${credits} told, ${job.credits} taken` });
    if (!job.ended) continue;
    const settled = settlements.filter((each) => each.jobId === job.id);
    const [settlement] = settled;
    if (!settlement) found.push({ check: "unsettled", jobId: job.id, detail: `is ${job.status}` });
    const kept = keptOf(job);
    const right = settled.length <= 1 && settlement?.kept === kept && settlement.refunded === refunded;
    if (settlement && (!right || charged - refunded !== kept))
      found.push({
        check: "wrongSettlements",
        jobId: job.id,
        detail: `charged ${charged}, kept ${settlement.kept}, refunded ${refunded}; delivered is worth ${kept}`,
      });
  }

  if (drift !== 0) found.push({ check: "ledgerDrift", jobId: null, detail: `the service's own audit says ${drift}` });
  for (const { user, credits } of balances) {
    const own = entries.filter((each) => each.user === user).reduce((sum, { amount }) => sum + amount, 0);
    const open = jobs.filter((job) => job.user === user && !job.ended).reduce((sum, job) => sum + job.credits, 0);
    const kept = jobs.filter((job) => job.user === user && job.ended).reduce((sum, job) => sum + keptOf(job), 0);
    if (credits === own && credits === SIGNUP_GRANT - open - kept) continue;
    const wanted = `${SIGNUP_GRANT} - ${open} under way - ${kept} delivered`;
    found.push({ check: "ledgerDrift", jobId: null, detail: `${user} has ${credits}, entries ${own}, not ${wanted}` });
  }
  return found;
}

function checkPurchases({ orders, jobs, runs, bill }: Records): Finding[] {
  const found: Finding[] = [];
  const billed = new Set(bill.map(({ id }) => id));
  const keyOfMark = new Map(orders.map(({ mark, key }) => [mark, key]));
  const bought = new Map<string, BillLine[]>();
  for (const line of bill) {
    const run = runs.find((each) => each.providerRunId === line.id);
    const job = jobs.find(({ id, key }) => (run ? id === run.jobId : line.mark && key === keyOfMark.get(line.mark)));
    if (!run) {
      const whose = line.mark ?? "nobody knows whose";
      found.push({ check: "orphans", jobId: job?.id ?? null, detail: `${line.id} ${line.status}: ${whose}` });
      continue;
    }
    if (keyOfMark.get(line.mark ?? "") !== job?.key)
      found.push({ check: "strangeRuns", jobId: run.jobId, detail: `${line.id} was bought for ${line.mark}` });
    const place = `${run.jobId} ${run.variant}`;
    bought.set(place, [...(bought.get(place) ?? []), line]);
  }
  for (const { jobId, providerRunId } of runs)
    if (providerRunId !== null && !billed.has(providerRunId))
      found.push({ check: "unbilled", jobId, detail: `${providerRunId} is not on the bill` });

  for (const [place, lines] of bought) {
    const [jobId = "", variant] = place.split(" ");
    lines.sort((a, b) => Date.parse(a.createdAt) - Date.parse(b.createdAt));
    for (const [index, line] of lines.entries()) {
      const before = lines[index - 1];
      const mayFollow =
        !before ||
        (FAILED_THERE.has(before.status) && Date.parse(before.completedAt ?? "") <= Date.parse(line.createdAt));
      if (!mayFollow)
        found.push({
          check: "duplicatePaidRuns",
          jobId,
          detail: `variant ${variant}: ${line.id} at ${line.createdAt}, although ${before.id} is ${before.status}`,
        });
    }
  }
  return found;
}

/**
 * Whether a job ended as ordered. Killing our own processes may lose an answer twice, and an API that is down serves no
 * photo: that much is excused, and counted. Null: not ended, or not ordered.
 */
export function verdictOn(job: JobRow, orders: Records["orders"]): "ordered" | "excused" | "unexplained" | null {
  const order = orders.find(({ key }) => key === job.key);
  if (!order || !job.ended) return null;
  if (order.fails === null ? job.status === "completed" : job.failure === order.fails) return "ordered";
  const unread = job.failure === "provider_failed" && /download(ing)? input/i.test(job.detail ?? "");
  return job.failure === "lost" || (job.kind === "staging" && unread) ? "excused" : "unexplained";
}

function checkEnds({ orders, jobs }: Records): Finding[] {
  return jobs
    .filter((job) => verdictOn(job, orders) === "unexplained")
    .map((job) => {
      const name = orders.find(({ key }) => key === job.key)?.name;
      const end = job.failure === null ? job.status : `${job.failure}: ${job.detail}`;
      return { check: "unexplainedFailures", jobId: job.id, detail: `${name} ended as ${end}` };
    });
}
