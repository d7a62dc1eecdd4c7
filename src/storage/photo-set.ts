import type { PhotoFacts } from "./photo.ts";

/** What a training is about. */
export type TrainingTask = "face" | "object" | "style";

export interface TaskGuess {
  readonly task: TrainingTask;
  /** 0..1: how far the photos are from the nearest border between two tasks, not a probability. */
  readonly confidence: number;
  /** For people: what was measured, and what it was compared with. */
  readonly because: string;
}

/** Of 64 bits. The same picture scaled, recompressed or slightly brightened stays within 4; strangers lie around 32. */
const DUPLICATE_BITS = 4;

/** From this many photos on, more of them add nothing to the score. */
const ENOUGH_PHOTOS = 20;
/** A median sharpness (see `PhotoFacts.sharpness`) with nothing left to wish for. */
const ENOUGH_SHARPNESS = 300;
/** The side that trainings work on. */
const TRAINING_SIDE = 1024;
/** Mean pairwise distance in bits that is as various as a set gets: strangers differ in about half of the 64. */
const ENOUGH_VARIETY = 24;

/** From this median share of skin on, the photos show somebody. */
const FACE_SKIN = 0.25;
/** Up to this median share of skin, and from this variety on, they share nothing but their manner. */
const STYLE_SKIN = 0.1;
const STYLE_VARIETY = 28;

/**
 * Photos that another one before them makes needless, as index → index of that earlier photo: the same bytes, or
 * difference hashes at most 4 of 64 bits apart. An earlier photo is never itself a duplicate, so small steps do not add
 * up: what is left after removing the keys is the set. Compares all pairs: meant for hundreds of photos, not for more.
 */
export function duplicatesOf(photos: readonly PhotoFacts[]): Map<number, number> {
  const found = new Map<number, number>();
  photos.forEach((photo, index) => {
    const earlier = photos.findIndex(
      (other, at) =>
        at < index &&
        !found.has(at) &&
        (other.sha256 === photo.sha256 || distance(other.dhash, photo.dhash) <= DUPLICATE_BITS),
    );
    if (earlier !== -1) found.set(index, earlier);
  });
  return found;
}

/**
 * How well a set may train, 0..100, a whole number; 0 for no photos. The sum of four parts, each growing evenly up to
 * its full worth:
 *
 * - 30 × number of photos / 20
 * - 25 × median sharpness / 300
 * - 25 × mean of (shorter side / 1024, at most 1)
 * - 20 × mean pairwise distance of the difference hashes / 24 bits (0 for a single photo)
 *
 * It says what can be measured cheaply. Whether the photos show the right thing, it does not know.
 */
export function setQuality(photos: readonly PhotoFacts[]): number {
  if (photos.length === 0) return 0;
  const sides = photos.map(({ width, height }) => share(Math.min(width, height), TRAINING_SIDE));
  const sharpness = median(photos.map((photo) => photo.sharpness));
  return Math.round(
    30 * share(photos.length, ENOUGH_PHOTOS) +
      25 * share(sharpness, ENOUGH_SHARPNESS) +
      25 * mean(sides) +
      20 * share(varietyOf(photos), ENOUGH_VARIETY),
  );
}

/**
 * Guesses what the photos are for from two numbers, the median share of skin-coloured pixels in the middle and how
 * various the pictures are: skin from 25 % on means a face; less than 10 % of it with a mean hash distance from 28 bits
 * on means a style; all else is an object. It is a heuristic and no more: sand, wood and sunsets are skin-coloured,
 * black-and-white portraits are not, and nothing here knows what a face looks like. Let the caller say the task, and
 * use this where he does not. Without photos it is an object with confidence 0.
 */
export function detectTask(photos: readonly PhotoFacts[]): TaskGuess {
  if (photos.length === 0) return { task: "object", confidence: 0, because: "there are no photos to judge by" };
  const skin = median(photos.map((photo) => photo.skin));
  const variety = varietyOf(photos);
  const measured = `the median share of skin colours is ${percent(skin)}, the pictures differ by ${variety.toFixed(0)} of 64 bits`;
  if (skin >= FACE_SKIN) {
    const confidence = rounded(0.5 + 0.5 * share(skin - FACE_SKIN, FACE_SKIN));
    return { task: "face", confidence, because: `${measured}; from ${percent(FACE_SKIN)} skin on it is a face` };
  }
  if (skin < STYLE_SKIN && variety >= STYLE_VARIETY) {
    const confidence = rounded(0.5 + 0.5 * share(variety - STYLE_VARIETY, 32 - STYLE_VARIETY));
    return {
      task: "style",
      confidence,
      because: `${measured}; pictures without skin that differ by ${STYLE_VARIETY} or more share a style`,
    };
  }
  // The nearer border decides how sure it is; with enough skin, variety no longer matters.
  const toFace = share(FACE_SKIN - skin, FACE_SKIN);
  const toStyle = skin < STYLE_SKIN ? share(STYLE_VARIETY - variety, STYLE_VARIETY) : 1;
  return {
    task: "object",
    confidence: rounded(0.5 + 0.5 * Math.min(toFace, toStyle)),
    because: `${measured}; that is neither much skin nor great variety`,
  };
}

/** Mean distance over all pairs, in bits of 64; 0 for fewer than two photos. */
function varietyOf(photos: readonly PhotoFacts[]): number {
  const distances = photos.flatMap((photo, index) =>
    photos.slice(index + 1).map((other) => distance(photo.dhash, other.dhash)),
  );
  return mean(distances);
}

/** Bits in which two hashes differ. */
function distance(one: string, other: string): number {
  let bits = 0;
  for (const at of [0, 8]) {
    let rest = Number.parseInt(one.slice(at, at + 8), 16) ^ Number.parseInt(other.slice(at, at + 8), 16);
    for (; rest !== 0; rest &= rest - 1) bits += 1;
  }
  return bits;
}

function share(value: number, full: number): number {
  return Math.min(1, Math.max(0, value / full));
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = 0, high = 0] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]];
  return (low + high) / 2;
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100;
}

function percent(value: number): string {
  return `${Math.round(value * 100)} %`;
}
