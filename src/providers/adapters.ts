import type { Adapter } from "./adapter.ts";
import { fal } from "./fal.ts";
import { huggingFace } from "./huggingface.ts";
import { poe } from "./poe.ts";
import { replicate } from "./replicate.ts";
import { runpod } from "./runpod.ts";
import { waveSpeed } from "./wavespeed.ts";

/** Everybody we can buy from. A new provider is one file and one line here. */
export const ADAPTERS: readonly Adapter[] = [replicate, runpod, fal, waveSpeed, huggingFace, poe];
