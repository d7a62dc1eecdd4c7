import sharp from "sharp";
import type { Datasets } from "./dataset.ts";
import { RunFailure } from "./download.ts";
import type { Loras } from "./lora.ts";
import type { Photos } from "./photo.ts";
import type { Run } from "./run.ts";
import type { Shelf } from "./shelf.ts";

export type Intake = ReturnType<typeof makeIntake>;

/** Where a run's own copies of its input lie on the shelf. */
export const photoOf = (run: Run) => run.id;
export const maskOf = (run: Run) => `${run.id}mask`;

/** Everything a run reads when it begins: pictures, weights, the zip of a training. */
export function makeIntake(parts: {
  readonly photos: Photos;
  readonly loras: Loras;
  readonly datasets: Datasets;
  readonly shelf: Shelf;
}) {
  const { photos, loras, datasets, shelf } = parts;
  const reading = new Map<string, { readonly stop: AbortController; readonly done: Promise<string | null> }>();

  async function read(run: Run, signal: AbortSignal): Promise<void> {
    const { values, program } = run;
    if (run.kind === "training") {
      await datasets.check(String(values["input_images"] ?? ""), signal);
      return;
    }
    run.lora = await loras.read(values, signal);
    const location = program.photo === undefined ? undefined : values[program.photo];
    if (typeof location !== "string") return;
    const photo = await photos.read(location, signal);
    if (program.art === "fill") await keepMask(run, photo, signal);
    await shelf.put(photoOf(run), photo);
  }

  async function keepMask(run: Run, photo: Buffer, signal: AbortSignal): Promise<void> {
    const { autoOrient: size, hasAlpha } = await sharp(photo).metadata();
    const location = run.values["mask"];
    if (typeof location !== "string") {
      if (hasAlpha) return; // what is transparent is painted
      throw new RunFailure("A mask is needed: the image has no alpha channel");
    }
    const mask = await photos.read(location, signal);
    const { autoOrient: other } = await sharp(mask).metadata();
    if (size.width !== other.width || size.height !== other.height) {
      const sizes = `the image is ${size.width}x${size.height}, the mask is ${other.width}x${other.height}`;
      throw new RunFailure(`The mask must have the same size as the image: ${sizes}`);
    }
    await shelf.put(maskOf(run), mask);
  }

  return {
    /** Resolves to what went wrong, or null. */
    take(run: Run): Promise<string | null> {
      const stop = new AbortController();
      const done = read(run, stop.signal)
        .then(() => null)
        .catch((error: unknown) => (error instanceof RunFailure ? error.message : `Unexpected error: ${String(error)}`))
        .finally(() => reading.delete(run.id));
      reading.set(run.id, { stop, done });
      return done;
    },

    /** A run that is over reads no more. */
    stop(run: Run): void {
      reading.get(run.id)?.stop.abort();
    },

    /** Resolves when nothing is read any more, and no file is left behind. */
    async close(): Promise<void> {
      const all = [...reading.values()];
      for (const { stop } of all) stop.abort();
      await Promise.all(all.map(({ done }) => done));
    },
  };
}
