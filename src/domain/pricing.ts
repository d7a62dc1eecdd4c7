import type { App } from "./app.ts";
import { deliveredVariants, isEnded, type Job } from "./job.ts";
import type { KindName } from "./kinds/kind.ts";

/** Credits are integers of one app; what a credit is worth is the app's own affair. */
export interface PriceLine {
  /** What a person reads on the bill. */
  readonly label: string;
  readonly credits: number;
}

/** Frozen on the job when it is accepted; a later price book changes nothing for it. */
export interface Price {
  readonly credits: number;
  readonly lines: readonly PriceLine[];
}

/** How one kind is priced, as data, so that it can be published as it is. Results are rounded up to whole credits. */
export type PriceRule =
  /** Each variant the same. */
  | { readonly per: "variant"; readonly credits: number }
  /** Each started megapixel (1,048,576 pixels) of a variant, and more for steps beyond those of the model's default. */
  | {
      readonly per: "megapixel";
      readonly credits: number;
      readonly extraSteps?: { readonly each: number; readonly credits: number };
    }
  /** Each variant by its length: the smallest entry, in seconds, that is not shorter. */
  | { readonly per: "length"; readonly credits: Readonly<Record<number, number>> }
  /** A base, and for each thousand steps the credits of the resolution: the smallest entry that is not smaller. */
  | {
      readonly per: "training";
      readonly base: number;
      readonly perThousandSteps: Readonly<Record<number, number>>;
    };

/** Prices of one app, in its own credits. */
export interface PriceBook {
  /** A date or a number; kept on every job that was priced with it. */
  readonly version: string;
  readonly rules: Partial<Record<KindName, PriceRule>>;
  /** Run as tests, and published. */
  readonly examples: readonly PriceExample[];
}

export interface PriceExample {
  readonly about: string;
  readonly kind: KindName;
  readonly model?: string;
  readonly plan?: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly credits: number;
}

/** What there is to be priced in a request. */
export interface Measure {
  /** What one variant is called on the bill: "image", "staged variant". */
  readonly noun: string;
  readonly variants: number;
  readonly width?: number;
  readonly height?: number;
  readonly steps?: number;
  /** What the model takes when nobody asks for more. */
  readonly defaultSteps?: number;
  readonly seconds?: number;
  readonly resolution?: number;
}

/** 1,048,576 pixels: 1024 × 1024 is exactly one. */
export const MEGAPIXEL = 1024 * 1024;

/** One line for each variant. Throws when the app's book has no price for it: its examples should have told. */
export function priceOf(app: App, book: PriceBook, kind: KindName, measure: Measure): Price {
  const rule = book.rules[kind];
  if (!rule) throw new Error(`the price book ${book.version} of ${app.id} has no price for ${kind}`);
  const { label, credits } = oneVariant(rule, measure);
  const lines = Array.from({ length: measure.variants }, (_, index) => ({
    label: measure.variants === 1 ? label : label.replace(measure.noun, `${measure.noun} ${index + 1}`),
    credits,
  }));
  return price(lines);
}

function oneVariant(rule: PriceRule, measure: Measure): PriceLine {
  const { noun, width = 0, height = 0, steps = 0, defaultSteps = 0, seconds = 0, resolution = 0 } = measure;
  switch (rule.per) {
    case "variant":
      return { label: noun, credits: rule.credits };
    case "megapixel": {
      const megapixels = Math.max(1, Math.ceil((width * height) / MEGAPIXEL));
      const more = rule.extraSteps;
      const extra = more ? Math.ceil(Math.max(0, steps - defaultSteps) / more.each) : 0;
      const label = `${noun}, ${width}×${height}, ${megapixels} MP${extra > 0 ? `, ${steps} steps` : ""}`;
      return { label, credits: Math.ceil(megapixels * rule.credits + extra * (more?.credits ?? 0)) };
    }
    case "length":
      return { label: `${noun}, ${seconds} s`, credits: notBelow(rule.credits, seconds, "seconds") };
    case "training": {
      const perThousand = notBelow(rule.perThousandSteps, resolution, "pixels of resolution");
      const label = `${noun}, ${steps} steps at ${resolution} px`;
      return { label, credits: Math.ceil(rule.base + (steps * perThousand) / 1_000) };
    }
  }
}

/** Seconds or pixels, the most that the rule has a price for; null where it prices whatever is asked for. */
export function mostPriced(rule: PriceRule): number | null {
  if (rule.per === "length") return Math.max(...Object.keys(rule.credits).map(Number));
  if (rule.per === "training") return Math.max(...Object.keys(rule.perThousandSteps).map(Number));
  return null;
}

/** The entry of the smallest key that is not below the wanted one. */
function notBelow(table: Readonly<Record<number, number>>, wanted: number, what: string): number {
  const keys = Object.keys(table).map(Number);
  const key = keys.sort((a, b) => a - b).find((each) => each >= wanted);
  const found = key === undefined ? undefined : table[key];
  if (found === undefined) throw new Error(`the price book goes up to ${keys.at(-1)} ${what}, not ${wanted}`);
  return found;
}

export function price(lines: readonly PriceLine[]): Price {
  const credits = lines.reduce((sum, line) => sum + line.credits, 0);
  if (!Number.isSafeInteger(credits) || credits < 0 || lines.some((line) => !Number.isSafeInteger(line.credits)))
    throw new Error(`a price is a whole number of credits, not ${JSON.stringify(lines)}`);
  return { credits, lines };
}

export interface Settlement {
  readonly charged: number;
  readonly kept: number;
  readonly refunded: number;
}

/**
 * What an ended job costs its user. Nothing delivered, or fewer than the kind's minimum: all back. Otherwise the
 * delivered share is kept, rounded down in the user's favour.
 */
export function settlement(job: Job, charged: number): Settlement {
  if (!isEnded(job)) throw new Error(`job ${job.id} is ${job.status}: only an ended job is settled`);
  const kept = job.status === "completed" ? Math.floor((charged * deliveredVariants(job)) / job.variants) : 0;
  return { charged, kept, refunded: charged - kept };
}
