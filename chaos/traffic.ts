import { z } from "zod";
import type { Finding } from "./finding.ts";
import { groupBy } from "./groups.ts";
import type { BillLine, Records } from "./records.ts";
import type { Passed } from "./storm.ts";
import type { FrontType } from "./weather.ts";

const ANSWER_MS = 60_000;
/** Of creates that were not accepted, to those that were. */
const MOST_RETRIES = 0.1;

/** By face: the creates that arrived there, and the statuses that were answered. The provider's own count. */
export type Creates = z.infer<typeof creates>["faces"];
const creates = z.object({
  faces: z.record(z.string(), z.object({ asked: z.int(), answers: z.record(z.string(), z.int()) })),
});

export async function readCreates(sandbox: string): Promise<Creates> {
  const answer = await fetch(`${sandbox}/_sandbox/creates`, { signal: AbortSignal.timeout(ANSWER_MS) });
  return creates.parse(await answer.json()).faces;
}

export interface Traffic {
  readonly fronts: readonly { readonly type: FrontType; readonly times: number }[];
  /** By account: what it made. */
  readonly served: Readonly<Record<string, number>>;
  /** Creates that reached a provider, those of them that it accepted, and the share of the others to these. */
  readonly creates: number;
  readonly accepted: number;
  readonly retries: number;
  /** By status, of those that were not accepted: 402, 429, 500, 503, or cut off. */
  readonly refused: Readonly<Record<string, number>>;
  readonly recoveries: readonly Recovered[];
}

/** How long after its trouble an account was used again; null: never, nobody had need of it. */
export interface Recovered {
  readonly face: string;
  readonly after: Passed["type"];
  readonly seconds: number | null;
}

export function trafficOf({ bill, weather }: Pick<Records, "bill" | "weather">): Traffic | null {
  if (weather === null) return null;
  const faces = Object.values(weather.creates);
  const asked = faces.reduce((sum, each) => sum + each.asked, 0);
  const lines = groupBy(bill, ({ face }) => face);
  const refused: Record<string, number> = {};
  for (const { answers } of faces)
    for (const [status, count] of Object.entries(answers))
      if (Number(status) >= 400) refused[status] = (refused[status] ?? 0) + count;
  return {
    fronts: [...groupBy(weather.passed, ({ type }) => type)].map(([type, each]) => ({ type, times: each.length })),
    served: Object.fromEntries(
      [...lines].map(([face, its]) => [face, its.filter(({ status }) => status === "succeeded").length]),
    ),
    creates: asked,
    accepted: bill.length,
    retries: bill.length === 0 ? 0 : (asked - bill.length) / bill.length,
    refused,
    recoveries: weather.passed.flatMap((front) =>
      front.faces.map((face) => ({
        face,
        after: front.type,
        seconds: secondsAfter(front, face, weather.passed, lines.get(face) ?? []),
      })),
    ),
  };
}

/** Until the next trouble of the same account, if it has not been used by then. */
function secondsAfter({ to }: Passed, face: string, passed: readonly Passed[], lines: readonly BillLine[]) {
  const next = Math.min(
    ...passed.filter((each) => each.to > to && each.faces.some((its) => its === face)).map((each) => each.from),
  );
  if (next <= to) return null;
  const used = lines.map(({ createdAt }) => Date.parse(createdAt)).filter((at) => at > to && at < next);
  return used.length === 0 ? null : Math.round((Math.min(...used) - to) / 100) / 10;
}

/** What must hold as long as some account could have served every order before its deadline. */
export function checkTraffic(records: Records): Finding[] {
  const traffic = trafficOf(records);
  if (traffic === null) return [];
  const found: Finding[] = [];
  for (const { id, status, ended, failure, detail } of records.jobs)
    if (ended && status !== "completed")
      found.push({ check: "failedJobs", jobId: id, detail: failure === null ? status : `${failure}: ${detail}` });
  const { creates: asked, accepted, retries } = traffic;
  if (retries > MOST_RETRIES)
    found.push({ check: "tooManyRetries", jobId: null, detail: `${asked} creates for ${accepted} that were accepted` });
  return found;
}
