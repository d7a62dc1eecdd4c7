import type { Palette } from "./palette.ts";
import { between, type Random } from "./random.ts";

/** What every motif draws on: pixels, a source of variety, and colours. */
export interface Canvas {
  readonly width: number;
  readonly height: number;
  readonly random: Random;
  readonly palette: Palette;
}

export type Point = readonly [x: number, y: number];

/** One decimal is finer than a pixel, and keeps the drawing the same on every machine. */
export function n(value: number): string {
  return String(Math.round(value * 10) / 10);
}

export function rect(x: number, y: number, width: number, height: number, fill: string, more = ""): string {
  return `<rect x="${n(x)}" y="${n(y)}" width="${n(width)}" height="${n(height)}" fill="${fill}" ${more}/>`;
}

export function circle(x: number, y: number, radius: number, fill: string, more = ""): string {
  return `<circle cx="${n(x)}" cy="${n(y)}" r="${n(radius)}" fill="${fill}" ${more}/>`;
}

export function ellipse(x: number, y: number, rx: number, ry: number, fill: string, more = ""): string {
  return `<ellipse cx="${n(x)}" cy="${n(y)}" rx="${n(rx)}" ry="${n(ry)}" fill="${fill}" ${more}/>`;
}

export function polygon(points: readonly Point[], fill: string, more = ""): string {
  return `<polygon points="${points.map(([x, y]) => `${n(x)},${n(y)}`).join(" ")}" fill="${fill}" ${more}/>`;
}

export function path(d: string, fill: string, more = ""): string {
  return `<path d="${d}" fill="${fill}" ${more}/>`;
}

/** A gradient from top to bottom, or with `x2=1,y2=0` from left to right. */
export function gradient(
  id: string,
  stops: readonly (readonly [at: number, colour: string, opacity?: number])[],
  across = false,
) {
  const direction = across ? `x1="0" y1="0" x2="1" y2="0"` : `x1="0" y1="0" x2="0" y2="1"`;
  return `<linearGradient id="${id}" ${direction}>${stopsOf(stops)}</linearGradient>`;
}

export function glow(id: string, colour: string, opacity: number): string {
  const stops = [
    [0, colour, opacity],
    [0.35, colour, opacity * 0.35],
    [1, colour, 0],
  ] as const;
  return `<radialGradient id="${id}">${stopsOf(stops)}</radialGradient>`;
}

function stopsOf(stops: readonly (readonly [at: number, colour: string, opacity?: number])[]): string {
  return stops
    .map(([at, colour, opacity = 1]) => `<stop offset="${at}" stop-color="${colour}" stop-opacity="${n2(opacity)}"/>`)
    .join("");
}

const n2 = (value: number) => String(Math.round(value * 100) / 100);

/** A smooth line through the points, closed along the bottom edge. */
export function swell(points: readonly Point[], bottom: number): string {
  const [first, ...rest] = points;
  if (!first) return "";
  let d = `M${n(first[0])} ${n(first[1])}`;
  let [fromX, fromY] = first;
  for (const [x, y] of rest) {
    const middle = (fromX + x) / 2;
    d += `C${n(middle)} ${n(fromY)} ${n(middle)} ${n(y)} ${n(x)} ${n(y)}`;
    [fromX, fromY] = [x, y];
  }
  return `${d}L${n(fromX)} ${n(bottom)}L${n(first[0])} ${n(bottom)}Z`;
}

/** A skyline of rock: each gap is halved and its middle moved, less each time. */
export function ridge(random: Random, width: number, base: number, height: number, rounds = 7): Point[] {
  let heights = [
    between(random, 0.2, 0.8),
    between(random, 0.5, 1),
    between(random, 0.1, 0.7),
    between(random, 0.4, 1),
  ];
  let roughness = 0.34;
  for (let round = 0; round < rounds; round += 1) {
    const finer: number[] = [];
    heights.forEach((here, index) => {
      const next = heights[index + 1];
      finer.push(here);
      if (next !== undefined) finer.push((here + next) / 2 + (random() - 0.5) * roughness);
    });
    heights = finer;
    roughness *= 0.52;
  }
  return heights.map((share, index) => [(index / (heights.length - 1)) * width, base - share * height]);
}

export function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}
