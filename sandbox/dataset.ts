import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";
import sharp from "sharp";
import { type Entry, openPromise, type ZipFile } from "yauzl";
import { type Bound, type Downloads, RunFailure } from "./download.ts";
import { makeGate } from "./gate.ts";

const ZIP: Bound = { what: "The zip of input images", megabytes: 1_536, ms: 300_000 };
const READS_AT_ONCE = 4; // each may hold a large file on disk
const LEAST_PICTURES = 4;
const MAX_ENTRIES = 20_000; // of one zip
const MAX_CHECKED = 100; // pictures of one zip that are looked at
const MAX_PICTURE_BYTES = 40 * 1024 * 1024;

export type Datasets = ReturnType<typeof makeDatasets>;

/** Opens the zip of a training as a trainer does: it must hold pictures, and they must be pictures. */
export function makeDatasets(downloads: Downloads) {
  const gate = makeGate(READS_AT_ONCE);

  return {
    /** Throws RunFailure. Nothing of the zip is kept. */
    async check(location: string, signal: AbortSignal): Promise<void> {
      if (isNowhere(location)) return;
      await gate(async () => {
        if (signal.aborted) return; // the run ended while it waited
        const folder = await mkdtemp(join(tmpdir(), "sandbox-zip-"));
        try {
          const path = join(folder, "input.zip");
          await downloads.file(location, path, ZIP, signal);
          await checkZip(path, signal);
        } finally {
          await rm(folder, { recursive: true, force: true });
        }
      });
    },
  };
}

/**
 * RFC 2606 keeps .test for tests: such a host cannot exist, so nobody who names one means a real zip. It counts as read,
 * unseen, for tests of everything around a training.
 */
function isNowhere(location: string): boolean {
  return URL.canParse(location) && /\.test$/i.test(new URL(location).hostname);
}

async function checkZip(path: string, signal: AbortSignal): Promise<void> {
  const zip = await openPromise(path, { autoClose: false }).catch(() => {
    throw new RunFailure("zipfile.BadZipFile: File is not a zip file");
  });
  try {
    const pictures = await picturesIn(zip);
    if (pictures.length < LEAST_PICTURES) {
      const found = `the zip file holds ${pictures.length} ${pictures.length === 1 ? "image" : "images"}`;
      throw new RunFailure(`Not enough training images: ${found}, at least ${LEAST_PICTURES} are needed`);
    }
    for (const entry of pictures.slice(0, MAX_CHECKED)) {
      if (signal.aborted) return;
      await checkPicture(zip, entry);
    }
  } finally {
    zip.close();
  }
}

async function picturesIn(zip: ZipFile): Promise<Entry[]> {
  const pictures: Entry[] = [];
  let seen = 0;
  try {
    for await (const entry of zip.eachEntry()) {
      seen += 1;
      if (seen > MAX_ENTRIES) throw new RunFailure(`The zip file has more than ${MAX_ENTRIES} entries`);
      // What a Mac adds to its zips looks like pictures and is none.
      const hidden = /(^|\/)(\.|__MACOSX\/)/.test(entry.fileName);
      if (!hidden && /\.(jpe?g|png|webp)$/i.test(entry.fileName)) pictures.push(entry);
    }
  } catch (error) {
    if (error instanceof RunFailure) throw error;
    throw new RunFailure("zipfile.BadZipFile: Bad magic number for central directory");
  }
  return pictures;
}

/** The header is enough: a trainer would stumble over a torn picture much later. */
async function checkPicture(zip: ZipFile, entry: Entry): Promise<void> {
  const name = entry.fileName.slice(0, 200);
  if (entry.uncompressedSize > MAX_PICTURE_BYTES) throw new RunFailure(`Image is too large: '${name}'`);
  try {
    // yauzl refuses entries that are longer than they say, so this is bounded.
    await sharp(await buffer(await zip.openReadStreamPromise(entry))).metadata();
  } catch {
    throw new RunFailure(`PIL.UnidentifiedImageError: cannot identify image file '${name}'`);
  }
}
