import type { z } from "zod";
import type { App } from "../app.ts";
import type { Model } from "../catalogue.ts";
import type { PriceLine } from "../pricing.ts";

export const KINDS = ["generation", "staging"] as const;
export type KindName = (typeof KINDS)[number];

/** What kind of job it is: its input, its price, its variants, and how a run's order is written. One file each. */
export interface Kind<Input> {
  readonly name: KindName;
  /** Parses what the caller sent. Unknown fields are refused. */
  readonly input: z.ZodType<Input>;
  readonly defaultModel: string;
  /** How many outputs are asked for, and how few of them still make a completed job. */
  variants(input: Input): { readonly count: number; readonly minSuccess: number };
  price(input: Input, app: App): readonly PriceLine[];
  /** The caller's own files that the model needs, by the name of the input field. */
  files(input: Input): Readonly<Record<string, FileRef>>;
  /** The provider's input for one variant, complete: it is committed before it is sent. */
  order(input: Input, model: Model, variant: VariantOrder): Readonly<Record<string, unknown>>;
}

/** A file that the caller names: an upload of ours by id, or a public HTTPS address. */
export type FileRef = { readonly assetId: string } | { readonly url: string };

export interface VariantOrder {
  readonly variant: number;
  /** 0 .. 2^31-1. The caller's own seed plus the variant, or one derived from the run. */
  readonly seed: number;
  /** The files of `files(input)`, as URLs that the provider can read. */
  readonly fileUrls: Readonly<Record<string, string>>;
}
