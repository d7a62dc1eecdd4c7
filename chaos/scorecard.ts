import type { BlowType } from "./blows.ts";
import { verdictsOn } from "./ends.ts";
import { CHECKS, type CheckName, type Finding, WEATHER_CHECKS } from "./finding.ts";
import type { WeatherName } from "./options.ts";
import { countStray } from "./outputs.ts";
import { countFoundOrphans } from "./purchases.ts";
import type { Records } from "./records.ts";
import { percentile, recoveriesOf } from "./recovery.ts";
import { trafficOf } from "./traffic.ts";
import { printTraffic, trafficLine } from "./traffic-lines.ts";

/** What a program reads; every number of CHECKS is in it too. */
export type Scorecard = ReturnType<typeof makeScorecard>;

export interface Course {
  readonly seed: number;
  readonly seconds: number;
  readonly weather: WeatherName;
  readonly queue: "redis" | "postgres";
  /** False: nobody calls back, and the provider is asked. */
  readonly webhooks: boolean;
  readonly failedStarts: number;
  readonly pgRestarts: number;
  /** From the end of the nemesis until every accepted job had ended. */
  readonly recoverySeconds: number;
}

/** Faults that were put into copies of src/ on purpose, and how many of them were noticed. */
export function makeScorecard(course: Course, records: Records, findings: readonly Finding[]) {
  const { jobs, sendings, settlements, bill, struck } = records;
  const ended = (status: string) => jobs.filter((job) => job.status === status).length;
  const dealt = (...types: BlowType[]) =>
    struck.filter((each) => types.includes(each.type) && each.what !== null).length;
  const found = Object.fromEntries(
    checksOf(course).map(([name]) => [name, findings.filter((finding) => finding.check === name).length]),
  ) as Record<keyof typeof CHECKS, number> & Partial<Record<CheckName, number>>;
  const submits = sendings.filter(({ action }) => action === "submit");
  const excused = new Set([...verdictsOn(records)].filter(([, verdict]) => verdict === "excused").map(([id]) => id));
  const recovered = recoveriesOf(records.takeovers, struck);
  const recoveries = recovered.map(({ ms }) => ms);
  const clear = recovered.filter((each) => each.clear).map(({ ms }) => ms);
  return {
    ...course,
    ok: findings.length === 0,
    orders: records.orders.length,
    jobs: jobs.length,
    completed: ended("completed"),
    failed: ended("failed"),
    canceled: ended("canceled"),
    failures: countBy(jobs.flatMap((job) => job.failure ?? [])),
    /** Ended otherwise than ordered, for a reason that the nemesis gave; see verdictsOn. */
    excused: excused.size,
    /** Those of them whose workers were struck three times in a row. */
    setAside: jobs.filter((job) => job.failure === "set_aside" && excused.has(job.id)).length,
    /** Credits, as in the demo. */
    refunded: settlements.reduce((sum, each) => sum + each.refunded, 0),
    partial: settlements.filter((each) => each.kept > 0 && each.refunded > 0).length,
    sendings: submits.length,
    cancels: sendings.length - submits.length,
    lostAnswers: sendings.filter((each) => each.outcome === "lost").length,
    refusals: submits.filter((each) => each.outcome === "refused").length,
    billLines: bill.length,
    foundOrphans: countFoundOrphans(records.runs),
    strayObjects: countStray(records),
    ...found,
    /** Null: providers were in no trouble. */
    traffic: trafficOf(records),
    blows: struck.length,
    kills: dealt("kill_worker", "kill_api"),
    apiKills: dealt("kill_api"),
    stops: dealt("stop_worker", "stop_api"),
    redisFlushes: dealt("flush_queue"),
    redisOutages: dealt("kill_redis", "stop_redis", "freeze_redis", "refuse_redis"),
    backendCuts: dealt("end_sessions"),
    networkFaults: dealt(...NETWORK),
    providerOutages: dealt("down_provider"),
    /** Jobs that a worker held when it got kill -9, and how long they waited for another one. */
    recoveries: recoveries.length,
    recoveryP50Ms: rounded(percentile(recoveries, 0.5)),
    recoveryP99Ms: rounded(percentile(recoveries, 0.99)),
    recoveryMaxMs: rounded(recoveries.at(-1) ?? null),
    /** The same without those for which Postgres or the queue was out of reach meanwhile. */
    clearRecoveries: clear.length,
    clearRecoveryP50Ms: rounded(percentile(clear, 0.5)),
    clearRecoveryP99Ms: rounded(percentile(clear, 0.99)),
    clearRecoveryMaxMs: rounded(clear.at(-1) ?? null),
    /** Filled in when bugs have been planted after the run. */
    plantedBugs: null as number | null,
    plantedCaught: null as number | null,
  };
}

/** Each with what it means. */
function checksOf({ weather }: Pick<Course, "weather">): [CheckName, string][] {
  const checks = weather === "providers" ? { ...CHECKS, ...WEATHER_CHECKS } : CHECKS;
  return Object.entries(checks) as [CheckName, string][];
}

const NETWORK: readonly BlowType[] = [
  "cut_postgres",
  "refuse_postgres",
  "freeze_postgres",
  "delay_postgres",
  "cut_redis",
  "refuse_redis",
  "freeze_redis",
  "delay_redis",
  "cut_store",
  "refuse_store",
  "freeze_store",
  "delay_store",
  "cut_ingress",
];

export function printScorecard(card: Scorecard, print: (line?: string) => void): void {
  const failures = Object.entries(card.failures).map(([code, count]) => `${code} ${count}`);
  print();
  print(`  clients   ${card.sendings} sendings of ${card.orders} orders, ${card.lostAnswers} answers lost`);
  print(`            ${card.refusals} refused, ${card.cancels} cancels`);
  print(
    `  jobs      ${card.jobs} accepted: ${card.completed} completed, ${card.failed} failed, ${card.canceled} canceled`,
  );
  if (failures.length > 0) print(`            ${failures.join(", ")}`);
  print(`            ${card.excused} not as ordered because of the nemesis, ${card.setAside} of them set aside`);
  print(`  money     ${card.refunded} credits returned, ${card.partial} jobs in part`);
  print(`  provider  ${card.billLines} runs on the bill, ${card.foundOrphans} of them found late and stopped`);
  print(`            ${card.webhooks ? "calls back" : "is asked: no webhooks"}`);
  print(`  store     ${card.strayObjects} objects that no row knows`);
  if (card.traffic) printTraffic(card.traffic, print);
  else {
    print(
      `  nemesis   ${card.blows} blows, ${card.networkFaults} of them to connections, ${card.redisOutages} to Redis`,
    );
    print(`            ${card.failedStarts} starts failed while something was broken`);
    print(`  recovery  ${card.recoveries} jobs taken over from killed workers: ${recovery(card)}`);
    print(`            ${card.clearRecoveries} of them with Postgres and queue in reach: ${clearRecovery(card)}`);
  }
  print(`            all had ended ${card.recoverySeconds} s after the last ${card.traffic ? "front" : "blow"}`);
  print();
  for (const [name, says] of checksOf(card))
    print(`  ${card[name] === 0 ? "✔" : "✖"} ${name.padEnd(20)} ${String(card[name]).padStart(3)}  ${says}`);
  print();
  print(scoreLine(card));
}

export function scoreLine(card: Scorecard): string {
  if (card.traffic) return trafficLine(card, card.traffic);
  const flushed = card.queue === "redis" ? "FLUSHALL" : "emptied queues";
  return [
    `seed ${card.seed}`,
    `${card.jobs} jobs`,
    `${card.kills} kill -9, ${card.stops} SIGSTOP, ${card.pgRestarts} PG restarts, ${card.redisFlushes} ${flushed}, ` +
      `${card.backendCuts} backend cuts, ${card.networkFaults} network faults, ${card.redisOutages} Redis outages, ` +
      `${card.providerOutages} provider outages`,
    `lost ${card.lost} stuck ${card.stuck} dup-charge ${card.duplicateCharges} dup-paid ${card.duplicatePaidRuns} ` +
      `orphan ${card.orphans} drift ${card.ledgerDrift} corrupted ${card.corruptedOutputs}`,
    `recovery ${recovery(card)}; with Postgres and queue in reach max ${seconds(card.clearRecoveryMaxMs)}`,
    ...(card.plantedBugs === null ? [] : [`planted bugs ${card.plantedCaught}/${card.plantedBugs}`]),
    card.ok ? "ok" : "NOT OK",
  ].join(" | ");
}

function recovery({ recoveryP50Ms, recoveryP99Ms, recoveryMaxMs }: Scorecard): string {
  return inSeconds(recoveryP50Ms, recoveryP99Ms, recoveryMaxMs);
}

function clearRecovery({ clearRecoveryP50Ms, clearRecoveryP99Ms, clearRecoveryMaxMs }: Scorecard): string {
  return inSeconds(clearRecoveryP50Ms, clearRecoveryP99Ms, clearRecoveryMaxMs);
}

function inSeconds(...times: readonly (number | null)[]): string {
  const [p50, p99, max] = times.map(seconds);
  return `p50 ${p50} p99 ${p99} max ${max}`;
}

function rounded(ms: number | null): number | null {
  return ms === null ? null : Math.round(ms);
}

function countBy(words: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const word of words) counts[word] = (counts[word] ?? 0) + 1;
  return counts;
}

function seconds(ms: number | null): string {
  return ms === null ? "-" : `${(ms / 1_000).toFixed(1)} s`;
}
