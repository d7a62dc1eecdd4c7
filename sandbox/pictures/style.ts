import { turned } from "./palette.ts";
import { ellipse } from "./svg.ts";

/** The colours of a furnishing style. */
export interface Style {
  readonly fabric: string;
  readonly cushion: string;
  readonly wood: string;
  readonly metal: string;
  readonly rug: string;
  readonly leaf: string;
  readonly art: readonly [string, string, string];
}

const STYLES: readonly (readonly [words: RegExp, style: Style])[] = [
  [
    /scandi|nordic|hygge|minimal|japandi/i,
    style("#d9d4c8", "#8fa58f", "#c9a277", "#3b3b3b", "#efe9dd", "#5f8a5b", ["#e8dccb", "#b9c4b1", "#3f4a45"]),
  ],
  [
    /industrial|loft|brick/i,
    style("#8a4f2d", "#3a3f45", "#5b4130", "#1f2123", "#6d6a66", "#4b6b46", ["#2b2e31", "#b7743f", "#d8d2c6"]),
  ],
  [
    /boho|bohemian|rustic|farmhouse|moroccan/i,
    style("#c8744f", "#e0b34c", "#9a6a3f", "#5c4630", "#b5473f", "#58834a", ["#2f6f73", "#e0a04a", "#f3e3c8"]),
  ],
  [
    /lux(ury|urious)?|glam|elegant|classic|traditional|hotel/i,
    style("#27386b", "#cfa756", "#4a2f25", "#c9a24b", "#dcd3c4", "#3f6b4c", ["#1c2749", "#c9a24b", "#efe6d5"]),
  ],
  [
    /coastal|beach|mediterranean|hamptons/i,
    style("#f2eee5", "#4f8fb5", "#d8b98e", "#8c9aa3", "#bcd3dc", "#6a9a66", ["#4f8fb5", "#f0e2c6", "#17506e"]),
  ],
  [
    /mid.?century|retro|vintage/i,
    style("#d08a2e", "#2f7270", "#7d4a28", "#b28a3d", "#e6d7b8", "#557f45", ["#d0532e", "#2f7270", "#f1dfb7"]),
  ],
];
const MODERN = style("#5f6b78", "#e2a93b", "#8a5a3b", "#26292d", "#d5d2cb", "#4f7d4f", [
  "#20344d",
  "#e2a93b",
  "#ece7dc",
]);

function style(
  fabric: string,
  cushion: string,
  wood: string,
  metal: string,
  rug: string,
  leaf: string,
  art: Style["art"],
): Style {
  return { fabric, cushion, wood, metal, rug, leaf, art };
}

export function styleFor(prompt: string): Style {
  return STYLES.find(([words]) => words.test(prompt))?.[1] ?? MODERN;
}

/** Pieces stand on the point (x, y), at the middle of their foot; `wide` is in pixels. */
export type Piece = (x: number, y: number, wide: number, style: Style) => string;

export const dark = (colour: string, by = 0.1) => turned(colour, 0, -by);
export const pale = (colour: string, by = 0.08) => turned(colour, 0, by);

export function shadow(x: number, y: number, wide: number): string {
  return `${ellipse(x, y, wide * 0.56, wide * 0.075, "#000000", `fill-opacity="0.16"`)}${ellipse(x, y, wide * 0.5, wide * 0.045, "#000000", `fill-opacity="0.22"`)}`;
}
