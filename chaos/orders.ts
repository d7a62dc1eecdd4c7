import type { FailureCode } from "../src/domain/failure.ts";
import { type Random, seeded } from "./random.ts";

/** A job that some client will submit, and how it should end when nothing of ours gets in its way. */
export interface Order {
  /** The recipe: "cut", "nsfw_once". */
  readonly name: string;
  readonly key: string;
  /** Stands in the prompt, so that the provider's own records say whose run it is. */
  readonly mark: string;
  /** Milliseconds after the nemesis begins. */
  readonly atMs: number;
  /** How its client behaves: answers that were lost are always repeated. */
  readonly sends: "once" | "twice at once" | "again when answered";
  /** So long after the answer its client no longer wants it; null: it does. */
  readonly cancelAfterMs: number | null;
  readonly body: {
    readonly kind: string;
    readonly user: string;
    /** Absent: the kind's usual one. */
    readonly model?: string;
    readonly input: Readonly<Record<string, unknown>>;
  };
  /** By the price list of apps/demo.ts. */
  readonly credits: number;
  /** Faults that strike so many runs of this order and no more; those in the prompt strike every one. */
  readonly rule: { readonly fault: string; readonly times: number } | null;
  /** Null: completes. */
  readonly fails: FailureCode | null;
}

export interface Recipe {
  readonly name: string;
  readonly weight: number;
  readonly kind?: "staging";
  readonly model?: string;
  readonly images?: number;
  /** Written into the prompt. */
  readonly directive?: string;
  readonly rule?: Order["rule"];
  readonly fails?: FailureCode;
  /** Its client cancels it so soon. */
  readonly cancelWithinMs?: number;
}

/** What the sandbox is asked to do to an order; its own README explains the words. */
export const RECIPES: readonly Recipe[] = [
  { name: "generation", weight: 30 },
  { name: "staging", weight: 2, kind: "staging" },
  { name: "canceled", weight: 4, cancelWithinMs: 4_000 },
  { name: "canceled_slow", weight: 2, directive: "slow=6", cancelWithinMs: 6_000 },
  { name: "slow", weight: 3, directive: "slow=4" },
  { name: "slow_create", weight: 2, directive: "slow_create=2000" },
  { name: "cut", weight: 4, directive: "cut" },
  { name: "cut_staging", weight: 1, kind: "staging", directive: "cut" },
  { name: "cut_half", weight: 2, directive: "cut_half" },
  { name: "server_error_after_accept", weight: 4, directive: "server_error_after_accept" },
  { name: "garbage_after_accept", weight: 2, directive: "garbage_after_accept" },
  // A second one in the same job would use up its one purchase of what was presumed lost.
  { name: "refuse_before", weight: 3, rule: { fault: "refuse_before", times: 1 } },
  { name: "server_error", weight: 2, rule: { fault: "server_error", times: 1 } },
  { name: "rate_limited", weight: 3, rule: { fault: "rate_limited=body", times: 2 } },
  { name: "fail_first", weight: 3, directive: "fail_first=1" },
  { name: "interrupted", weight: 2, directive: "interrupted", fails: "interrupted" },
  { name: "aborted_once", weight: 2, rule: { fault: "aborted", times: 1 } },
  { name: "nsfw", weight: 3, directive: "nsfw", fails: "content_refused" },
  { name: "nsfw_once", weight: 3, images: 3, rule: { fault: "nsfw", times: 1 } },
  { name: "oom", weight: 2, directive: "oom", fails: "provider_failed" },
  { name: "get_error", weight: 2, directive: "get_error=2" },
  { name: "output_404", weight: 2, directive: "output_404", fails: "output_unavailable" },
  { name: "output_html", weight: 1, directive: "output_html", fails: "output_invalid" },
  { name: "output_truncated", weight: 2, directive: "output_truncated=1" },
  // Where nothing calls back, these are plain generations.
  { name: "webhook_drop", weight: 2, directive: "webhook_drop" },
  { name: "webhook_drop_start", weight: 1, directive: "webhook_drop=start, cut" },
  { name: "webhook_duplicate", weight: 2, directive: "webhook_duplicate" },
  { name: "webhook_early", weight: 2, directive: "webhook_early" },
  { name: "webhook_early_cut", weight: 1, directive: "webhook_early, cut" },
  { name: "webhook_late", weight: 2, directive: "webhook_late=3000" },
  { name: "webhook_stale", weight: 1, directive: "webhook_stale" },
  { name: "webhook_bad_signature", weight: 1, directive: "webhook_bad_signature" },
  { name: "webhook_rotated", weight: 1, directive: "webhook_rotated" },
];

/**
 * What several providers sell. Where only they are in trouble, nothing is ordered that may fail: no stagings, whose two
 * pictures are both needed, as a job of which two answers were lost is bought again once. A pair then comes in part.
 */
export const PLAIN_RECIPES: readonly Recipe[] = [
  { name: "generation", weight: 20, images: 1 },
  { name: "fine", weight: 8, model: "flux-dev", images: 1 },
  { name: "pair", weight: 2, images: 2 },
];

/** What the users of one order too many want: stagings, of which their credits pay for five. */
const POOR: Recipe = { name: "poor", weight: 0, kind: "staging" };
const POOR_ORDERS = 6;
/** So many orders have one such user among their users. */
const ORDERS_PER_POOR_USER = 250;
const LEAST_ORDERS_FOR_POOR = 100;

/** A new user has 200 credits and a staging costs 40: enough for whatever five orders are drawn. */
const ORDERS_PER_USER = 5;
const STAGING_CREDITS = 40;
/** The last orders come while things still break. */
const SHARE_OF_TIME = 0.9;
/** The smallest picture that is sold: two cores draw, store and check all of them. */
const SIDE = 256; // pixels

/** The same orders for the same seed: every recipe once while there is room, then by weight. */
export function planOrders(
  seed: number,
  jobs: number,
  seconds: number,
  photo: string,
  recipes: readonly Recipe[] = RECIPES,
): Order[] {
  const random = seeded(seed, "orders");
  const hasPoor = jobs >= LEAST_ORDERS_FOR_POOR && recipes.some(({ kind }) => kind === POOR.kind);
  const poorUsers = hasPoor ? Math.ceil(jobs / ORDERS_PER_POOR_USER) : 0;
  const drawn = random.shuffled(recipes).slice(0, jobs);
  while (drawn.length < jobs - poorUsers * POOR_ORDERS) drawn.push(random.weighted(recipes));
  const drawnOrders = drawn.length;
  const anyTime = () => random.whole(0, seconds * 1_000 * SHARE_OF_TIME);
  // All of a poor user's at once: whose turn it is to be refused is decided by nothing but the database.
  const poorTimes = Array.from({ length: poorUsers }, anyTime);
  while (drawn.length < jobs) drawn.push(POOR);
  return drawn.map((recipe, index) => {
    const number = String(index).padStart(4, "0");
    const mark = `order ${number} of seed ${seed}.`;
    const poor = Math.floor((index - drawnOrders) / POOR_ORDERS);
    const input = inputOf(recipe, mark, photo, random);
    return {
      name: recipe.name,
      key: `chaos-${seed}-${number}`,
      mark,
      atMs: poorTimes[poor] ?? anyTime(),
      sends: random.pick(["once", "once", "twice at once", "again when answered"] as const),
      cancelAfterMs: recipe.cancelWithinMs === undefined ? null : random.whole(0, recipe.cancelWithinMs),
      body: {
        kind: recipe.kind ?? "generation",
        ...(recipe.model === undefined ? {} : { model: recipe.model }),
        user: poor < 0 ? `user-${Math.floor(index / ORDERS_PER_USER)}` : `poor-${poor}`,
        input,
      },
      credits: recipe.kind === "staging" ? STAGING_CREDITS : Number(input["images"]),
      rule: recipe.rule ?? null,
      fails: recipe.fails ?? null,
    };
  });
}

function inputOf(recipe: Recipe, mark: string, photo: string, random: Random): Record<string, unknown> {
  const prompt = `${mark}${recipe.directive ? ` [sandbox: ${recipe.directive}]` : ""}`;
  if (recipe.kind === "staging")
    return { image: photo, room: random.pick(["bedroom", "living_room", "kitchen"]), prompt };
  return {
    prompt: `a lighthouse in a storm, ${prompt}`,
    images: recipe.images ?? random.pick([1, 1, 1, 1, 1, 1, 2, 3]),
    width: SIDE,
    height: SIDE,
    ...(random.chance(0.3) ? { seed: random.whole(0, 1_000_000) } : {}),
  };
}
