/** What must never be found, whatever was broken. */
export const CHECKS = {
  lost: "acknowledged jobs that are not there",
  stuck: "jobs without an end, or orders without an answer",
  duplicateJobs: "keys with more than one job, or jobs that nobody ordered",
  strangeRefusals: "refused for no reason",
  duplicateCharges: "charges beyond one per job, or without a job",
  unsettled: "ended jobs without a settlement",
  wrongSettlements: "kept is not the delivered share",
  ledgerDrift: "credits that no entry explains",
  missingOutputs: "files that are not there",
  corruptedOutputs: "files that are not what was stored",
  orphans: "runs on the bill that are no runs of ours",
  unbilled: "runs of ours that the bill does not know",
  strangeRuns: "runs that were bought for another order",
  misbooked: "runs of ours that came to something else on the bill, or still run there",
  duplicatePaidRuns: "second purchases without a failure before",
  unexplainedFailures: "jobs that ended otherwise than ordered, for no reason of the nemesis",
  crashes: "programs that ended by themselves",
} as const;

/** And these, where only providers are in trouble, and some account could have served every order in time. */
export const WEATHER_CHECKS = {
  failedJobs: "jobs that did not complete",
  tooManyRetries: "more than one create in ten in vain",
} as const;

export type CheckName = keyof typeof CHECKS | keyof typeof WEATHER_CHECKS;

export interface Finding {
  readonly check: CheckName;
  readonly jobId: string | null;
  readonly detail: string;
}
