import { withoutDirectives } from "../fault.ts";
import { film } from "../film.ts";
import { maskOf, photoOf } from "../intake.ts";
import type { Run } from "../run.ts";
import type { Shelf } from "../shelf.ts";
import { draw } from "./picture.ts";

const MAX_BYTES = 64 * 1024 * 1024; // bytes of finished pictures and films kept in memory

/** Draws pictures and films when they are first asked for: most runs of a load test are never looked at. */
export function makeGallery(shelf: Shelf) {
  const drawn = new Map<string, Buffer>(); // least recently asked for first
  const drawing = new Map<string, Promise<Buffer | null>>();
  let total = 0;

  function keep(key: string, bytes: Buffer): void {
    drawn.set(key, bytes);
    total += bytes.length;
    for (const [oldest, { length }] of drawn) {
      if (total <= MAX_BYTES) break;
      drawn.delete(oldest);
      total -= length;
    }
  }

  async function paint(run: Run, index: number): Promise<Buffer | null> {
    const { values, program, model } = run;
    const wantsPhoto = program.photo !== undefined && values[program.photo] !== undefined;
    const photo = wantsPhoto ? await shelf.get(photoOf(run)) : null;
    if (wantsPhoto && !photo) return null; // made room for newer ones
    const wantsMask = program.art === "fill" && values["mask"] !== undefined;
    const mask = wantsMask ? await shelf.get(maskOf(run)) : null;
    if (wantsMask && !mask) return null;
    const prompt = withoutDirectives(String(values["prompt"] ?? ""));
    const script = { model, prompt, seed: run.seed + index, photo };
    if (run.reel) return film(script, run.reel);
    return draw({ ...script, values, fill: program.art === "fill" ? { mask } : null, lora: run.lora });
  }

  return {
    /** The n-th picture or film of a run, or null when what it was made from is gone. */
    async picture(run: Run, index: number): Promise<Buffer | null> {
      const key = `${run.id} ${index}`;
      const known = drawn.get(key);
      if (known) {
        drawn.delete(key);
        drawn.set(key, known);
        return known;
      }
      const begun = drawing.get(key) ?? paint(run, index).finally(() => drawing.delete(key));
      drawing.set(key, begun);
      const bytes = await begun;
      if (bytes && !drawn.has(key)) keep(key, bytes);
      return bytes;
    },
  };
}
