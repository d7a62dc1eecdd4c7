import { withoutDirectives } from "../fault.ts";
import type { Run } from "../run.ts";
import type { Shelf } from "../shelf.ts";
import { draw } from "./picture.ts";

const MAX_BYTES = 64 * 1024 * 1024; // bytes of finished pictures kept in memory

/** Draws pictures when they are first asked for: most runs of a load test are never looked at. */
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
    const wantsPhoto = program.art === "furnish" && values["input_image"] !== undefined;
    const photo = wantsPhoto ? await shelf.get(run.id) : null;
    if (wantsPhoto && !photo) return null; // made room for newer ones
    const prompt = withoutDirectives(String(values["prompt"] ?? ""));
    return draw({ model, prompt, seed: run.seed + index, values, photo });
  }

  return {
    /** The n-th picture of a run, or null when what it was made from is gone. */
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
