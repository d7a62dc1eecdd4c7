import { type Random, seeded } from "./random.ts";

/** Something that will be broken, decided before anything runs. */
export interface Blow {
  /** Milliseconds after the nemesis begins. */
  readonly atMs: number;
  readonly type: BlowType;
  /** Which of several: where the search for one that is up begins. */
  readonly target: number;
  /** How long it lasts; 0 where it is over at once. */
  readonly forMs: number;
}

interface Spec {
  /** How many a nemesis of three minutes deals. */
  readonly times: number;
  /** Milliseconds. */
  readonly lasts: readonly [from: number, to: number];
  readonly needs?: "own redis";
}

const INSTANT = [0, 0] as const;

/**
 * In the order in which a short nemesis takes one of each. Without Postgres nothing can be accepted or bought: it comes
 * back within seconds, or no progress could be asked for. A queue that is away must not matter, so it may take longer.
 */
const SPECS = {
  kill_worker: { times: 23, lasts: INSTANT },
  // Around the 10 s of a lease: some are taken over while they stand still, some are not.
  stop_worker: { times: 7, lasts: [3_000, 25_000] },
  flush_queue: { times: 5, lasts: INSTANT },
  crash_postgres: { times: 5, lasts: [0, 3_000] },
  end_sessions: { times: 4, lasts: INSTANT },
  kill_api: { times: 8, lasts: INSTANT },
  cut_postgres: { times: 3, lasts: INSTANT },
  refuse_store: { times: 2, lasts: [1_000, 8_000] },
  kill_redis: { times: 1, lasts: [1_000, 20_000], needs: "own redis" },
  down_provider: { times: 3, lasts: [1_000, 4_000] },
  freeze_postgres: { times: 1, lasts: [2_000, 6_000] },
  stop_api: { times: 3, lasts: [3_000, 25_000] },
  stop_redis: { times: 1, lasts: [3_000, 15_000], needs: "own redis" },
  freeze_store: { times: 2, lasts: [2_000, 8_000] },
  refuse_postgres: { times: 1, lasts: [1_000, 4_000] },
  cut_redis: { times: 3, lasts: INSTANT, needs: "own redis" },
  freeze_redis: { times: 1, lasts: [2_000, 10_000], needs: "own redis" },
  refuse_redis: { times: 1, lasts: [1_000, 10_000], needs: "own redis" },
  cut_store: { times: 3, lasts: INSTANT },
  cut_ingress: { times: 2, lasts: INSTANT },
  delay_postgres: { times: 2, lasts: [2_000, 6_000] },
  delay_redis: { times: 1, lasts: [2_000, 8_000], needs: "own redis" },
  delay_store: { times: 2, lasts: [2_000, 8_000] },
} as const satisfies Record<string, Spec>;

export type BlowType = keyof typeof SPECS;
export const BLOW_TYPES = Object.keys(SPECS) as readonly BlowType[];

/** What `times` counts for: a longer nemesis deals as many a minute, a shorter one never less than one of a kind. */
const FULL_MS = 180_000;
/** On average, in a nemesis so short that it deals one of each kind and no more. */
const LEAST_PAUSE_MS = 700;
/** Nothing lasts longer than this part of the whole, or a short nemesis would have nobody left to strike. */
const LONGEST = 6;
/** After so many units nothing new is broken for so many of the usual pauses: what recovers must be able to. */
const STORM = 12;
const LULL = 4;
/** A worker that was killed a second ago is being started, and its jobs have not been taken over. */
const RECOVERING_MS = 1_000;

/** The same blows for the same seed. `hasRedis`: one of our own, which may be struck. */
export function planBlows(seed: number, seconds: number, hasRedis = true): Blow[] {
  const random = seeded(seed, "nemesis");
  const spanMs = seconds * 1_000;
  const factor = spanMs / FULL_MS;
  const possible = BLOW_TYPES.filter((type) => {
    const { needs }: Spec = SPECS[type];
    return needs === undefined || hasRedis;
  });
  const drawn = new Map<BlowType, number>();
  let room = Math.floor(spanMs / LEAST_PAUSE_MS);
  for (const type of possible) {
    const times = Math.min(room, Math.max(1, Math.round(SPECS[type].times * factor)));
    drawn.set(type, times);
    room = Math.max(0, room - times);
  }
  return spread(toUnits(drawn, random, spanMs / LONGEST), spanMs, random);
}

type Unit = readonly (Omit<Blow, "atMs"> & { readonly afterMs: number })[];

/** Single blows, and those that are aimed: Postgres goes down while workers recover, or as soon as it is up again. */
function toUnits(drawn: Map<BlowType, number>, random: Random, mostMs: number): Unit[] {
  const take = (type: BlowType): boolean => {
    const left = drawn.get(type) ?? 0;
    if (left > 0) drawn.set(type, left - 1);
    return left > 0;
  };
  const blow = (type: BlowType, afterMs = 0) => {
    const [from, to] = SPECS[type].lasts;
    const forMs = Math.round(Math.min(random.whole(from, to), mostMs));
    return { type, afterMs, target: random.whole(0, 99), forMs };
  };
  const units: Unit[] = [];
  for (let unit = 1; take("crash_postgres"); unit++) {
    const first = blow("crash_postgres");
    const again = blow("crash_postgres", first.forMs + 2 * RECOVERING_MS);
    if (unit % 3 === 1 && (drawn.get("kill_worker") ?? 0) > 2) {
      take("kill_worker");
      take("kill_worker");
      units.push([blow("kill_worker"), blow("kill_worker", 100), { ...first, afterMs: RECOVERING_MS }]);
    } else units.push(unit % 3 === 2 && take("crash_postgres") ? [first, again] : [first]);
  }
  for (const type of drawn.keys()) while (take(type)) units.push([blow(type)]);
  return random.shuffled(units);
}

/** Over the whole time, at uneven pauses, with lulls between the storms. */
function spread(units: readonly Unit[], spanMs: number, random: Random): Blow[] {
  const pauses = units.map(
    (_, index) => 0.4 + random.whole(0, 1_200) / 1_000 + (index % STORM === STORM - 1 ? LULL : 0),
  );
  const scale = spanMs / (pauses.reduce((sum, pause) => sum + pause, 0) + 1);
  let at = 0;
  const blows = units.flatMap((unit, index) => {
    at += (pauses[index] ?? 0) * scale;
    return unit.map(({ afterMs, ...blow }) => ({ ...blow, atMs: Math.round(at + afterMs) }));
  });
  return blows.sort((a, b) => a.atMs - b.atMs);
}
