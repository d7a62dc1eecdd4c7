export const WIDTH = 1280;
export const HEIGHT = 853;

/** Metres, seen from the camera: x to the right, y up, z into the picture. */
export const ROOM = { left: -2.1, right: 2.85, floor: -1.3, ceiling: 1.4, back: 4.6, front: 1.2 } as const;
const FOCAL = 760; // pixels; a wide lens
const EYE = { x: 640, y: 372 } as const; // pixels; where everything vanishes

export type Point = readonly [x: number, y: number, z: number];

/** A point of the room in the picture. */
export function at([x, y, z]: Point): [number, number] {
  return [round(EYE.x + (x * FOCAL) / z), round(EYE.y - (y * FOCAL) / z)];
}

export function points(corners: readonly Point[]): string {
  return corners.map((corner) => at(corner).join(",")).join(" ");
}

export function polygon(corners: readonly Point[], rest: string): string {
  return `<polygon points="${points(corners)}" ${rest}/>`;
}

export function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** mulberry32: small, and the same everywhere. */
export function makeRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
