import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, tmpdir, totalmem } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { type ArchiveEntry, writeArchive } from "../src/storage/archive.ts";
import { makeLocalStorage } from "../src/storage/local.ts";
import { judgePhoto, normalizePhoto } from "../src/storage/photo.ts";
import { makeReader, type Storage } from "../src/storage/storage.ts";

export interface ArchiveOptions {
  readonly photos: number;
  readonly rounds: number;
}

/** The ways to make the archive, each in a process of its own. The last is what the others are compared with. */
const WAYS = [
  { id: "training", name: "each normalised to 2048 pixels, one after the other, as a worker does it" },
  { id: "stream", name: "one after the other, as it is" },
  { id: "judged", name: "judged as the API does, then normalised, one after the other" },
  { id: "whole", name: "all photos into memory, then the archive" },
] as const;

type Way = (typeof WAYS)[number]["id"];

interface Measurement {
  readonly seconds: number;
  /** Highest resident memory while at work, less what was resident before; MB of a million bytes. */
  readonly addedMb: number;
  /** The highest that the system saw of the process, its start included. */
  readonly peakMb: number;
  readonly archiveMb: number;
}

/** Of added memory, for a training: what a worker can spare beside its other jobs. */
const GOAL_MB = 150;
/** 12 megapixels of noise, which at this quality have a little over 10 MB. */
const PHOTO = { width: 4_000, height: 3_000, quality: 95 };
const KINDS = 5;
const MAX_SIDE = 2_048;
const SAMPLE_MS = 5;
const LIMITS = { maxBytes: 50_000_000, maxPixels: 100_000_000 };

/** Draws the photos, makes their archive in every way, in turns, and returns the table. */
export async function benchArchive({ photos, rounds }: ArchiveOptions, say: (line: string) => void): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "darkroom-bench-archive-"));
  const loadBefore = loads();
  try {
    const bytes = await drawPhotos(storageIn(folder), photos);
    say(`${photos} photos, ${mb(bytes).toFixed(0)} MB`);
    const measured: Record<Way, Measurement[]> = { training: [], stream: [], judged: [], whole: [] };
    for (let round = 0; round < rounds; round++) {
      // Who begins changes, so that a noisy minute of the machine is everybody's.
      for (let turn = 0; turn < WAYS.length; turn++) {
        const way = (WAYS[(round + turn) % WAYS.length] ?? WAYS[0]).id;
        const found = await runApart(way, folder, photos);
        measured[way].push(found);
        say(`round ${round + 1}, ${way}: ${found.addedMb.toFixed(0)} MB added, ${found.seconds.toFixed(1)} s`);
      }
    }
    const machine = `processor ${availableParallelism()} × ${cpus()[0]?.model ?? "?"}, memory ${(totalmem() / 2 ** 30).toFixed(0)} GB, system ${process.platform} ${process.arch}, node ${process.version}, load before ${loadBefore}, load after ${loads()}.`;
    return render(machine, `${photos} photos, ${mb(bytes).toFixed(0)} MB in all, ${rounds} rounds.`, measured);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** One measurement, in the process that was started for it; told to its parent. */
async function runArchive(way: Way, folder: string, photos: number): Promise<void> {
  const storage = storageIn(folder);
  const path = join(folder, `${way}-${process.pid}.zip`);
  globalThis.gc?.();
  const before = process.memoryUsage.rss();
  let highest = before;
  const watch = setInterval(() => {
    highest = Math.max(highest, process.memoryUsage.rss());
  }, SAMPLE_MS);
  const start = performance.now();
  const { bytes } = await writeArchive(path, await entriesOf(way, storage, photos));
  const seconds = (performance.now() - start) / 1_000;
  clearInterval(watch);
  await rm(path);
  // What no sample saw, the system did.
  const peak = Math.max(highest, highWaterMark());
  const found: Measurement = {
    seconds,
    addedMb: mb(peak - before),
    peakMb: mb(peak),
    archiveMb: mb(bytes),
  };
  process.send?.(found);
}

/**
 * The most memory that was ever resident, in bytes; 0 where there is no /proc. Not `resourceUsage().maxRSS`: on Linux that
 * begins with what the parent had when it started this process.
 */
function highWaterMark(): number {
  try {
    const kilobytes = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    return Number(kilobytes ?? 0) * 1_024;
  } catch {
    return 0;
  }
}

async function entriesOf(way: Way, storage: Storage, photos: number): Promise<Iterable<ArchiveEntry>> {
  const names = Array.from({ length: photos }, (_, index) => nameOf(index));
  const readFile = makeReader(storage);
  if (way === "whole") {
    const all: [string, Buffer][] = [];
    for (const name of names) all.push([name, Buffer.from(await readFile(name))]);
    return all.map(([name, bytes]) => ({ name, read: async () => bytes }));
  }
  const read = async (name: string) => {
    const bytes = await readFile(name);
    // The archive may still hold the last one while the next is read.
    if (way === "stream") return Buffer.from(bytes);
    if (way === "judged") {
      const { ok, problems } = await judgePhoto(bytes, LIMITS);
      if (!ok) throw new Error(`The bench drew a bad photo: ${problems.map(({ detail }) => detail).join(" ")}`);
    }
    return normalizePhoto(bytes, MAX_SIDE);
  };
  return names.map((name) => ({ name, read: () => read(name) }));
}

/** A few kinds of noise; a comment of its own makes each photo different from the others of its kind. */
async function drawPhotos(storage: Storage, photos: number): Promise<number> {
  const { width, height, quality } = PHOTO;
  const kinds: Buffer[] = [];
  for (let kind = 0; kind < KINDS; kind++) {
    const noise = { type: "gaussian", mean: 100 + 10 * kind, sigma: 40 } as const;
    const picture = sharp({ create: { width, height, channels: 3, background: "#888", noise } });
    kinds.push(await picture.jpeg({ quality }).toBuffer());
  }
  let total = 0;
  for (let index = 0; index < photos; index++) {
    const kind = kinds[index % KINDS] ?? Buffer.alloc(0);
    const comment = Buffer.from(`\u00ff\u00fe\u0000\u0006${String(index).padStart(4, "0")}`, "latin1");
    const photo = Buffer.concat([kind.subarray(0, 2), comment, kind.subarray(2)]);
    await storage.put(nameOf(index), photo, "image/jpeg");
    total += photo.length;
  }
  return total;
}

async function runApart(way: Way, folder: string, photos: number): Promise<Measurement> {
  const args = ["--expose-gc", "--import", "tsx", fileURLToPath(import.meta.url), way, folder, String(photos)];
  // As the image runs its workers: otherwise glibc keeps what pictures no longer need.
  const malloc = { MALLOC_ARENA_MAX: "2", MALLOC_MMAP_THRESHOLD_: "131072", MALLOC_TRIM_THRESHOLD_: "131072" };
  const env = { ...process.env, ...malloc };
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", "ignore", "inherit", "ipc"] });
  let found: Measurement | null = null;
  child.on("message", (message) => {
    found = message as Measurement;
  });
  await once(child, "exit");
  if (found === null) throw new Error(`The process for "${way}" ended with ${child.exitCode} and no measurement`);
  return found;
}

function render(machine: string, what: string, measured: Record<Way, Measurement[]>): string {
  const ratio = (way: Way, of: (each: Measurement) => number) => {
    const values = measured[way].map((each, round) => {
      const base = measured.whole[round];
      return base ? of(each) / of(base) : Number.NaN;
    });
    return way === "whole" ? "1" : median(values).toFixed(2);
  };
  const rows = WAYS.map(({ id, name }) => [
    `${id}: ${name}`,
    spread(measured[id].map((each) => each.addedMb)),
    ratio(id, (each) => each.addedMb),
    spread(measured[id].map((each) => each.peakMb)),
    spread(measured[id].map((each) => each.seconds)),
    ratio(id, (each) => each.seconds),
    median(measured[id].map((each) => each.archiveMb)).toFixed(0),
  ]);
  const added = median(measured.training.map((each) => each.addedMb));
  return [
    machine,
    `${what} Medians, with least–most; ratios against "whole" of the same round.`,
    "",
    table(["", "added MB", "ratio", "peak MB", "seconds", "ratio", "archive MB"], rows),
    "",
    `A training's archive adds ${added.toFixed(0)} MB, ${added < GOAL_MB ? "within" : "BEYOND"} the goal of ${GOAL_MB} MB.`,
  ].join("\n");
}

function table(head: string[], rows: string[][]): string {
  const widths = head.map((cell, column) =>
    Math.max(3, ...[cell, ...rows.map((row) => row[column] ?? "")].map((text) => text.length)),
  );
  const pad = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0);
  const line = (cells: string[]) => `| ${cells.map(pad).join(" | ")} |`;
  const rule = `|${widths.map((width, column) => "-".repeat(width + 1) + (column === 0 ? "-" : ":")).join("|")}|`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

function spread(values: readonly number[]): string {
  const digits = median(values) < 20 ? 1 : 0;
  const [middle, least, most] = [median(values), Math.min(...values), Math.max(...values)];
  return `${middle.toFixed(digits)} (${least.toFixed(digits)}–${most.toFixed(digits)})`;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = 0, high = 0] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]];
  return (low + high) / 2;
}

const nameOf = (index: number) => `photos/${String(index).padStart(3, "0")}.jpg`;
const mb = (bytes: number) => bytes / 1_000_000;
const loads = () =>
  loadavg()
    .map((load) => load.toFixed(1))
    .join(" ");

function storageIn(folder: string): Storage {
  return makeLocalStorage({ directory: folder, publicUrl: "http://127.0.0.1", secret: "only for this measurement" });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [way, folder, photos] = process.argv.slice(2) as [Way, string, string];
  await runArchive(way, folder, Number(photos));
}
