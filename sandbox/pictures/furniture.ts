import { turned } from "./palette.ts";
import { dark, type Piece, pale, shadow } from "./style.ts";
import { ellipse, n, path, polygon, rect } from "./svg.ts";

export const sofa: Piece = (x, y, wide, { fabric, cushion, wood }) => {
  const [left, tall, arm] = [x - wide / 2, wide * 0.36, wide * 0.11];
  const [seat, round] = [y - tall * 0.5, n(wide * 0.035)];
  const inner = wide - arm * 2;
  const back = (index: number) =>
    rect(
      left + arm + (inner / 2) * index + 2,
      y - tall,
      inner / 2 - 4,
      tall * 0.62,
      pale(fabric, 0.03),
      `rx="${round}"`,
    );
  const pad = (index: number) =>
    rect(left + arm + (inner / 2) * index + 1, seat, inner / 2 - 2, tall * 0.22, pale(fabric), `rx="${round}"`);
  const pillow = (at: number, turn: number, colour: string) =>
    rect(
      at - wide * 0.065,
      seat - wide * 0.115,
      wide * 0.13,
      wide * 0.125,
      colour,
      `rx="${n(wide * 0.02)}" transform="rotate(${turn} ${n(at)} ${n(seat - wide * 0.05)})"`,
    );
  return [
    shadow(x, y, wide),
    rect(left + wide * 0.06, y - tall * 0.14, wide * 0.025, tall * 0.14, wood),
    rect(left + wide * 0.915, y - tall * 0.14, wide * 0.025, tall * 0.14, wood),
    rect(left + arm * 0.6, y - tall * 0.95, wide - arm * 1.2, tall * 0.8, dark(fabric, 0.06), `rx="${round}"`),
    back(0),
    back(1),
    rect(left + arm * 0.5, seat + tall * 0.16, wide - arm, tall * 0.24, dark(fabric, 0.03), `rx="4"`),
    pad(0),
    pad(1),
    pillow(left + arm + wide * 0.08, -9, cushion),
    pillow(left + wide - arm - wide * 0.08, 8, pale(cushion, 0.12)),
    pillow(left + wide - arm - wide * 0.19, -5, dark(cushion, 0.06)),
    rect(left, y - tall * 0.68, arm, tall * 0.58, fabric, `rx="${round}"`),
    rect(left + wide - arm, y - tall * 0.68, arm, tall * 0.58, dark(fabric, 0.04), `rx="${round}"`),
  ].join("");
};

export const armchair: Piece = (x, y, wide, { fabric, cushion, wood }) => {
  const tall = wide * 1.02;
  const left = x - wide / 2;
  const tone = turned(cushion, 0, -0.03);
  return [
    shadow(x, y, wide),
    polygon(
      [
        [left + wide * 0.12, y - tall * 0.2],
        [left + wide * 0.18, y - tall * 0.2],
        [left + wide * 0.1, y],
        [left + wide * 0.06, y],
      ],
      wood,
    ),
    polygon(
      [
        [left + wide * 0.82, y - tall * 0.2],
        [left + wide * 0.88, y - tall * 0.2],
        [left + wide * 0.94, y],
        [left + wide * 0.9, y],
      ],
      wood,
    ),
    rect(left + wide * 0.1, y - tall, wide * 0.8, tall * 0.78, dark(tone, 0.07), `rx="${n(wide * 0.2)}"`),
    rect(left + wide * 0.17, y - tall * 0.94, wide * 0.66, tall * 0.62, tone, `rx="${n(wide * 0.14)}"`),
    rect(left + wide * 0.08, y - tall * 0.42, wide * 0.84, tall * 0.25, pale(tone, 0.05), `rx="${n(wide * 0.07)}"`),
    rect(left, y - tall * 0.55, wide * 0.17, tall * 0.38, tone, `rx="${n(wide * 0.07)}"`),
    rect(left + wide * 0.83, y - tall * 0.55, wide * 0.17, tall * 0.38, dark(tone, 0.05), `rx="${n(wide * 0.07)}"`),
    rect(
      x - wide * 0.16,
      y - tall * 0.6,
      wide * 0.32,
      wide * 0.24,
      fabric,
      `rx="${n(wide * 0.05)}" transform="rotate(-6 ${n(x)} ${n(y - tall * 0.5)})"`,
    ),
  ].join("");
};

export const bed: Piece = (x, y, wide, { fabric, cushion, wood, rug }) => {
  const tall = wide * 0.62;
  const left = x - wide / 2;
  const pillow = (at: number) =>
    rect(left + wide * at, y - tall * 0.72, wide * 0.32, tall * 0.2, "#fbf8f2", `rx="${n(wide * 0.035)}"`);
  return [
    shadow(x, y, wide * 1.05),
    rect(left - wide * 0.02, y - tall, wide * 1.04, tall * 0.75, wood, `rx="${n(wide * 0.03)}"`),
    rect(left + wide * 0.03, y - tall * 0.95, wide * 0.94, tall * 0.5, pale(wood, 0.06), `rx="${n(wide * 0.025)}"`),
    rect(left, y - tall * 0.56, wide, tall * 0.48, "#f4efe6", `rx="${n(wide * 0.03)}"`),
    pillow(0.12),
    pillow(0.56),
    rect(left + wide * 0.39, y - tall * 0.63, wide * 0.22, tall * 0.14, cushion, `rx="${n(wide * 0.025)}"`),
    path(
      `M${n(left - wide * 0.015)} ${n(y - tall * 0.4)}Q${n(x)} ${n(y - tall * 0.47)} ${n(left + wide * 1.015)} ${n(y - tall * 0.4)}V${n(y - tall * 0.06)}H${n(left - wide * 0.015)}Z`,
      fabric,
    ),
    path(
      `M${n(left - wide * 0.015)} ${n(y - tall * 0.4)}Q${n(x)} ${n(y - tall * 0.47)} ${n(left + wide * 1.015)} ${n(y - tall * 0.4)}v${n(tall * 0.09)}Q${n(x)} ${n(y - tall * 0.37)} ${n(left - wide * 0.015)} ${n(y - tall * 0.31)}Z`,
      rug,
    ),
  ].join("");
};

export const diningTable: Piece = (x, y, wide, { wood, fabric, metal, leaf }) => {
  const top = y - wide * 0.34;
  const chair = (at: number, side: 1 | -1) => {
    const seat = y - wide * 0.19;
    return [
      rect(at - wide * 0.075, seat - wide * 0.24, wide * 0.15, wide * 0.24, fabric, `rx="${n(wide * 0.03)}"`),
      rect(at - wide * 0.08, seat - wide * 0.02, wide * 0.16, wide * 0.05, pale(fabric), `rx="4"`),
      rect(at - wide * 0.07, seat, wide * 0.014, wide * 0.18, metal),
      rect(at + wide * 0.056, seat, wide * 0.014, wide * 0.18 + side, metal),
    ].join("");
  };
  return [
    shadow(x, y, wide * 1.1),
    ...[-0.3, 0, 0.3].map((at) => chair(x + wide * at, 1)),
    ...[-0.4, 0.4].map((at) => rect(x + wide * at - wide * 0.015, top, wide * 0.03, wide * 0.34, dark(wood))),
    polygon(
      [
        [x - wide * 0.44, top - wide * 0.05],
        [x + wide * 0.44, top - wide * 0.05],
        [x + wide * 0.5, top + wide * 0.02],
        [x - wide * 0.5, top + wide * 0.02],
      ],
      pale(wood, 0.05),
    ),
    rect(x - wide * 0.5, top + wide * 0.02, wide, wide * 0.03, dark(wood, 0.05)),
    path(
      `M${n(x - wide * 0.03)} ${n(top - wide * 0.02)}v${n(-wide * 0.1)}h${n(wide * 0.06)}v${n(wide * 0.1)}Z`,
      "#f3eee4",
    ),
    ...[-34, -12, 12, 34].map((turn) =>
      ellipse(
        x,
        top - wide * 0.19,
        wide * 0.016,
        wide * 0.085,
        leaf,
        `transform="rotate(${turn} ${n(x)} ${n(top - wide * 0.11)})"`,
      ),
    ),
  ].join("");
};

export const coffeeTable: Piece = (x, y, wide, { wood, metal, leaf, art }) => {
  const top = y - wide * 0.27;
  return [
    shadow(x, y, wide * 0.9),
    ...[-0.36, 0.36].map((at) =>
      polygon(
        [
          [x + wide * at - 3, top],
          [x + wide * at + 3, top],
          [x + wide * at * 1.12 + 3, y],
          [x + wide * at * 1.12 - 3, y],
        ],
        metal,
      ),
    ),
    ellipse(x, top + wide * 0.02, wide * 0.5, wide * 0.105, dark(wood, 0.1)),
    ellipse(x, top, wide * 0.5, wide * 0.1, wood),
    ellipse(x - wide * 0.1, top - wide * 0.02, wide * 0.28, wide * 0.045, pale(wood, 0.07), `fill-opacity="0.6"`),
    rect(x - wide * 0.3, top - wide * 0.045, wide * 0.22, wide * 0.03, art[0]),
    rect(x - wide * 0.28, top - wide * 0.072, wide * 0.19, wide * 0.028, art[2]),
    path(
      `M${n(x + wide * 0.12)} ${n(top)}q${n(-wide * 0.05)} ${n(-wide * 0.11)} ${n(wide * 0.02)} ${n(-wide * 0.14)}h${n(wide * 0.06)}q${n(wide * 0.07)} ${n(wide * 0.03)} ${n(wide * 0.02)} ${n(wide * 0.14)}Z`,
      "#f3eee4",
    ),
    ...[-24, 0, 22].map((turn) =>
      ellipse(
        x + wide * 0.17,
        top - wide * 0.24,
        wide * 0.025,
        wide * 0.11,
        leaf,
        `transform="rotate(${turn} ${n(x + wide * 0.17)} ${n(top - wide * 0.13)})"`,
      ),
    ),
  ].join("");
};
