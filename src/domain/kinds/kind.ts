import type { z } from "zod";
import type { App, Plan } from "../app.ts";
import type { Ask } from "../ask.ts";
import type { Model } from "../catalogue.ts";
import type { Measure } from "../pricing.ts";

export const KINDS = ["training", "generation", "staging", "edit", "video"] as const;
export type KindName = (typeof KINDS)[number];

/** What kind of job it is: its input, its measure, its variants, and what is asked of a model. One file each. */
export interface Kind<Input> {
  readonly name: KindName;
  /** Parses what the caller sent. Unknown fields are refused. */
  readonly input: z.ZodType<Input>;
  readonly defaultModel: string;
  /** How often a variant may be bought when the provider itself interrupts the run, 1..10. */
  readonly maxAttempts: number;
  /** How often, in the whole job, something may be bought again because it was presumed lost. */
  readonly maxRebuys: 0 | 1;
  /** Fills in what the model decides, and finds what it cannot do or the plan does not allow. */
  fit(input: Input, limits: Limits): Fit<Input>;
  /** How many outputs are asked for, and how few of them still make a completed job. */
  variants(input: Input): { readonly count: number; readonly minSuccess: number };
  measure(input: Input, model: Model): Measure;
  /** The caller's own files that the model needs, by the name of the input field. */
  files(input: Input): Readonly<Record<string, FileRef>>;
  /** The user's own trained model that it is to be made with, by id. */
  trainedModel(input: Input): string | null;
  /** What is asked of the model for one variant; the route of the catalogue writes it in the provider's words. */
  ask(input: Input, model: Model, variant: VariantOrder): Ask;
}

export interface Limits {
  readonly app: App;
  readonly plan: Plan;
  readonly model: Model;
}

export interface Fit<Input> {
  readonly input: Input;
  /** Beyond the plan: taken down to it. Whether that is a warning or a refusal is the app's choice. */
  readonly clamps: readonly Clamp[];
  /** What this model cannot do. */
  readonly problems: readonly FieldProblem[];
}

/** `pointer` is a JSON pointer into the submission: /input/steps. */
export interface Clamp {
  readonly pointer: string;
  readonly from: unknown;
  readonly to: unknown;
  readonly because: string;
}

/** One field at fault. `pointer` is a JSON pointer into the body: /input/width. */
export interface FieldProblem {
  readonly pointer: string;
  /** What is allowed, and what to do. */
  readonly detail: string;
}

/** A file that the caller names: an upload of ours by id, or a public HTTPS address. */
export type FileRef = { readonly assetId: string } | { readonly url: string };

export interface VariantOrder {
  readonly variant: number;
  /** 0 .. 2^31-1. The caller's own seed of the variant, or one derived from the run. */
  readonly seed: number;
  /** The files of `files(input)`, as URLs that the provider can read. */
  readonly fileUrls: Readonly<Record<string, string>>;
  /** The user's trained model; null when none is wanted. */
  readonly trained: TrainedRef | null;
  /** Whether the model's safety checker is on. */
  readonly safety: boolean;
}

export interface TrainedRef {
  /** A URL of its .safetensors, or the provider's own owner/name/version. */
  readonly weights: string;
  readonly triggerWord: string;
}
