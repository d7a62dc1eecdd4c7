import type { Scorecard } from "./scorecard.ts";
import type { Traffic } from "./traffic.ts";
import type { FrontType } from "./weather.ts";

/** What is shown of a run in which the providers were in trouble. */

const WORDS: Readonly<Record<FrontType, string>> = {
  brown_out: "brown-out",
  empty: "402",
  storm: "429 storm",
  small_limits: "small limit",
};

export function printTraffic(traffic: Traffic, print: (line?: string) => void): void {
  const { creates, accepted, refused, recoveries } = traffic;
  const statuses = Object.entries(refused).map(([status, count]) => `${status}: ${count}`);
  print(`  weather   ${frontsOf(traffic)}`);
  print(`            served by ${served(traffic)}`);
  print(`            ${creates} creates reached a provider, ${accepted} were accepted: ${percent(traffic)} in vain`);
  print(`            refused ${statuses.join(", ") || "none"}; an answer of 5xx may have been accepted all the same`);
  for (const { face, after, seconds } of recoveries)
    print(
      `  recovery  ${face} after its ${WORDS[after]}: ${seconds === null ? "nobody had need of it" : `${seconds} s`}`,
    );
}

export function trafficLine(card: Scorecard, traffic: Traffic): string {
  const again = traffic.recoveries.flatMap(({ seconds }) => seconds ?? []);
  return [
    `seed ${card.seed}`,
    `${card.jobs} jobs`,
    frontsOf(traffic),
    `failed ${card.failed} lost ${card.lost} stuck ${card.stuck} dup-charge ${card.duplicateCharges} ` +
      `dup-paid ${card.duplicatePaidRuns} orphan ${card.orphans} drift ${card.ledgerDrift}`,
    `retries ${traffic.creates - traffic.accepted} of ${traffic.accepted}, ${percent(traffic)}`,
    `served by ${served(traffic)}`,
    `used again after ${again.length === 0 ? "-" : `${Math.max(...again).toFixed(1)} s at most`}`,
    card.ok ? "ok" : "NOT OK",
  ].join(" | ");
}

function frontsOf({ fronts }: Traffic): string {
  return fronts
    .map(({ type, times }) => `${times} ${WORDS[type]}${times === 1 || type === "empty" ? "" : "s"}`)
    .join(", ");
}

function served(traffic: Traffic): string {
  return Object.entries(traffic.served)
    .map(([face, count]) => `${face} ${count}`)
    .join(", ");
}

function percent({ retries }: Traffic): string {
  return `${(retries * 100).toFixed(1)} %`;
}
