import type { Finding } from "./finding.ts";
import { type BillLine, placeOf, type Records, type RunRow } from "./records.ts";

/** What our word for the end of a run is on the bill. The other ends of ours may be any of theirs. */
const BOOKED: Readonly<Record<string, readonly string[]>> = {
  stored: ["succeeded"],
  canceled: ["canceled", "aborted"],
};

/** What ended before it began, or is said to be worth another try, may be bought again. */
const mayBeRepeated = ({ status, mayRetry }: BillLine) => status === "aborted" || (status === "failed" && mayRetry);

/** Every line of the provider's bill against the runs that we know of. */
export function checkPurchases({ orders, jobs, runs, bill }: Records): Finding[] {
  const found: Finding[] = [];
  const billed = new Set(bill.map(({ id }) => id));
  const keyOfMark = new Map(orders.map(({ mark, key }) => [mark, key]));
  const runOf = new Map(runs.map((run) => [run.providerRunId, run]));
  const keyOf = new Map(jobs.map(({ id, key }) => [id, key]));
  const jobOf = new Map(jobs.map(({ id, key }) => [key, id]));
  const bought = new Map<string, BillLine[]>();
  for (const line of bill) {
    const run = runOf.get(line.id);
    const wanted = keyOfMark.get(line.mark ?? "");
    if (!run) {
      const whose = line.mark ?? "nobody knows whose";
      const jobId = jobOf.get(wanted ?? "") ?? null;
      found.push({ check: "orphans", jobId, detail: `${line.id} ${line.status}: ${whose}` });
      continue;
    }
    if (wanted !== keyOf.get(run.jobId))
      found.push({ check: "strangeRuns", jobId: run.jobId, detail: `${line.id} was bought for ${line.mark}` });
    if (line.completedAt === null)
      found.push({
        check: "misbooked",
        jobId: run.jobId,
        detail: `${line.id} is ${line.status} and nobody waits for it`,
      });
    else if (BOOKED[run.status]?.includes(line.status) === false)
      found.push({
        check: "misbooked",
        jobId: run.jobId,
        detail: `${line.id} is ${line.status}, for us ${run.status}`,
      });
    bought.set(placeOf(run), [...(bought.get(placeOf(run)) ?? []), line]);
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
        !before || (mayBeRepeated(before) && Date.parse(before.completedAt ?? "") <= Date.parse(line.createdAt));
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

/** Presumed lost, seen after all, stopped and booked: known, and therefore no orphan of the bill. */
export function countFoundOrphans(runs: readonly RunRow[]): number {
  return runs.filter((run) => run.status === "failed" && run.failure === "lost" && run.providerRunId !== null).length;
}
