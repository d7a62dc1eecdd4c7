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
  readonly body: { readonly kind: string; readonly user: string; readonly input: Readonly<Record<string, unknown>> };
  /** Faults that strike so many runs of this order and no more; those in the prompt strike every one. */
  readonly rule: { readonly fault: string; readonly times: number } | null;
  /** Null: completes. */
  readonly fails: FailureCode | null;
}

interface Recipe {
  readonly name: string;
  readonly weight: number;
  readonly kind?: "staging";
  readonly images?: number;
  /** Written into the prompt. */
  readonly directive?: string;
  readonly rule?: Order["rule"];
  readonly fails?: FailureCode;
}

/** What the sandbox is asked to do to an order; its own README explains the words. */
const RECIPES: readonly Recipe[] = [
  { name: "generation", weight: 12 },
  { name: "staging", weight: 6, kind: "staging" },
  { name: "slow", weight: 3, directive: "slow=4" },
  { name: "slow_create", weight: 2, directive: "slow_create=2000" },
  { name: "cut", weight: 4, directive: "cut" },
  { name: "cut_staging", weight: 2, kind: "staging", directive: "cut" },
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
];

/** A new user has 200 credits and a staging costs 40: enough for whatever five orders are drawn. */
const ORDERS_PER_USER = 5;
/** The last orders come while things still break. */
const SHARE_OF_TIME = 0.9;

/** The same orders for the same seed: every recipe once while there is room, then by weight. */
export function planOrders(seed: number, jobs: number, seconds: number, photo: string): Order[] {
  const random = seeded(seed, "orders");
  const recipes = random.shuffled(RECIPES).slice(0, jobs);
  while (recipes.length < jobs) recipes.push(random.weighted(RECIPES));
  return recipes.map((recipe, index) => {
    const number = String(index).padStart(4, "0");
    const mark = `order ${number} of seed ${seed}.`;
    return {
      name: recipe.name,
      key: `chaos-${seed}-${number}`,
      mark,
      atMs: random.whole(0, seconds * 1_000 * SHARE_OF_TIME),
      sends: random.pick(["once", "once", "twice at once", "again when answered"] as const),
      body: {
        kind: recipe.kind ?? "generation",
        user: `user-${Math.floor(index / ORDERS_PER_USER)}`,
        input: inputOf(recipe, mark, photo, random),
      },
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
    images: recipe.images ?? random.whole(1, 3),
    // Small pictures: two cores draw, store and check all of them.
    width: 512,
    height: 512,
    ...(random.chance(0.3) ? { seed: random.whole(0, 1_000_000) } : {}),
  };
}
