import { edit } from "./edit.ts";
import { generation } from "./generation.ts";
import type { Kind, KindName } from "./kind.ts";
import { staging } from "./staging.ts";
import { training } from "./training.ts";
import { video } from "./video.ts";

const all = { training, generation, staging, edit, video };

/**
 * The kind of that name. Its input is opaque here: it was parsed by this very kind when the job was accepted, and the
 * kind is the only one to read it again.
 */
export function kindOf(name: KindName): Kind<unknown> {
  return all[name] as Kind<unknown>;
}
