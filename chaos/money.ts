import type { Finding } from "./finding.ts";
import { groupBy } from "./groups.ts";
import type { JobRow, Records } from "./records.ts";

/** A new user's credits, by the definition of the app in apps/demo.ts. */
export const SIGNUP_GRANT = 200;

/** Every charge, settlement and balance, computed anew from what the store really holds. */
export function checkMoney(records: Records, whole: ReadonlyMap<string, number>): Finding[] {
  const { sendings, jobs, entries, settlements, balances, drift } = records;
  const found: Finding[] = [];
  const ids = new Set(jobs.map(({ id }) => id));
  const entriesOf = groupBy(entries, ({ jobId }) => jobId);
  const settlementsOf = groupBy(settlements, ({ jobId }) => jobId);
  const sendingsOf = groupBy(sendings, ({ jobId }) => jobId);
  for (const { jobId, amount } of entries.filter((entry) => entry.type === "charge"))
    if (!jobId || !ids.has(jobId))
      found.push({ check: "duplicateCharges", jobId, detail: `${amount} credits, and no such job` });

  const keptOf = (job: JobRow) =>
    job.status === "completed" ? Math.floor((job.credits * (whole.get(job.id) ?? 0)) / job.variants) : 0;
  for (const job of jobs) {
    const mine = entriesOf.get(job.id) ?? [];
    const sum = (type: string) => sumOf(mine.filter((each) => each.type === type).map(({ amount }) => amount));
    const [charged, refunded] = [-sum("charge"), sum("refund")];
    if (charged !== job.credits)
      found.push({
        check: "duplicateCharges",
        jobId: job.id,
        detail: `${charged} charged, the price is ${job.credits}`,
      });
    for (const { credits } of sendingsOf.get(job.id) ?? [])
      if (credits !== job.credits)
        found.push({ check: "duplicateCharges", jobId: job.id, detail: `${credits} told, ${job.credits} taken` });
    if (!job.ended) continue;
    const settled = settlementsOf.get(job.id) ?? [];
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
  const entriesBy = groupBy(entries, ({ user }) => user);
  const jobsBy = groupBy(jobs, ({ user }) => user);
  for (const { user, credits } of balances) {
    const own = sumOf((entriesBy.get(user) ?? []).map(({ amount }) => amount));
    const theirs = jobsBy.get(user) ?? [];
    const open = sumOf(theirs.filter(({ ended }) => !ended).map((job) => job.credits));
    const kept = sumOf(theirs.filter(({ ended }) => ended).map(keptOf));
    if (credits >= 0 && credits === own && credits === SIGNUP_GRANT - open - kept) continue;
    const wanted = `${SIGNUP_GRANT} - ${open} under way - ${kept} delivered`;
    found.push({ check: "ledgerDrift", jobId: null, detail: `${user} has ${credits}, entries ${own}, not ${wanted}` });
  }
  return found;
}

function sumOf(numbers: readonly number[]): number {
  return numbers.reduce((sum, each) => sum + each, 0);
}
