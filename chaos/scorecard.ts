import { CHECKS, type CheckName, type Finding, verdictOn } from "./check.ts";
import type { Struck } from "./nemesis.ts";
import type { Records } from "./records.ts";

/** What a program reads; every number of CHECKS is in it too. */
export type Scorecard = ReturnType<typeof makeScorecard>;

export interface Course {
  readonly seed: number;
  readonly seconds: number;
  readonly queue: "redis" | "postgres";
  readonly struck: readonly Struck[];
  readonly failedStarts: number;
  /** From the end of the nemesis until every accepted job had ended. */
  readonly recoverySeconds: number;
}

export function makeScorecard(course: Course, records: Records, findings: readonly Finding[]) {
  const { jobs, sendings, settlements, bill } = records;
  const { struck, ...rest } = course;
  const ended = (status: string) => jobs.filter((job) => job.status === status).length;
  const dealt = (type: Struck["type"]) => struck.filter((each) => each.type === type && each.what !== null).length;
  const names = Object.keys(CHECKS) as CheckName[];
  const found = Object.fromEntries(
    names.map((name) => [name, findings.filter((finding) => finding.check === name).length]),
  ) as Record<CheckName, number>;
  return {
    ...rest,
    ok: findings.length === 0,
    orders: records.orders.length,
    jobs: jobs.length,
    completed: ended("completed"),
    failed: ended("failed"),
    canceled: ended("canceled"),
    failures: countBy(jobs.flatMap((job) => job.failure ?? [])),
    /** Ended otherwise than ordered, for a reason that the nemesis gave; see verdictOn. */
    excused: jobs.filter((job) => verdictOn(job, records.orders) === "excused").length,
    /** Credits, as in the demo. */
    refunded: settlements.reduce((sum, each) => sum + each.refunded, 0),
    partial: settlements.filter((each) => each.kept > 0 && each.refunded > 0).length,
    sendings: sendings.length,
    lostAnswers: sendings.filter((each) => each.outcome === "lost").length,
    refusals: sendings.filter((each) => each.outcome === "refused").length,
    billLines: bill.length,
    ...found,
    kills: dealt("kill_worker") + dealt("kill_api"),
    apiKills: dealt("kill_api"),
    stops: dealt("stop_worker"),
    redisFlushes: dealt("flush_queue"),
    backendCuts: dealt("cut_backends"),
  };
}

export function printScorecard(card: Scorecard, print: (line?: string) => void): void {
  const failures = Object.entries(card.failures).map(([code, count]) => `${code} ${count}`);
  print();
  print(`  clients   ${card.sendings} sendings of ${card.orders} orders, ${card.lostAnswers} answers lost`);
  print(
    `  jobs      ${card.jobs} accepted: ${card.completed} completed, ${card.failed} failed, ${card.excused} of them not as ordered`,
  );
  if (failures.length > 0) print(`            ${failures.join(", ")}`);
  print(`  money     ${card.refunded} credits returned, ${card.partial} jobs in part`);
  print(`  provider  ${card.billLines} runs on the bill`);
  print(`  programs  ${card.failedStarts} starts failed while something was broken`);
  print();
  for (const name of Object.keys(CHECKS) as CheckName[])
    print(`  ${card[name] === 0 ? "✔" : "✖"} ${name.padEnd(20)} ${String(card[name]).padStart(3)}  ${CHECKS[name]}`);
  print();
  print(scoreLine(card));
}

function scoreLine(card: Scorecard): string {
  const flushed = card.queue === "redis" ? "FLUSHALL" : "emptied queues";
  return [
    `seed ${card.seed}`,
    `${card.jobs} jobs`,
    `${card.kills} kill -9, ${card.stops} SIGSTOP, ${card.redisFlushes} ${flushed}, ${card.backendCuts} backend cuts`,
    `lost ${card.lost} stuck ${card.stuck} dup-charge ${card.duplicateCharges} dup-paid ${card.duplicatePaidRuns} ` +
      `orphan ${card.orphans} drift ${card.ledgerDrift} corrupted ${card.corruptedOutputs}`,
    `recovery ${card.recoverySeconds} s`,
    card.ok ? "ok" : "NOT OK",
  ].join(" | ");
}

function countBy(words: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}
