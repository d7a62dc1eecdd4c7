import { turned } from "./palette.ts";
import { type Piece, pale, shadow } from "./style.ts";
import { circle, ellipse, n, path, polygon, rect } from "./svg.ts";

export const floorLamp: Piece = (x, y, wide, { metal, cushion }) => {
  const tall = wide * 4.2;
  const shade = y - tall;
  return [
    shadow(x, y, wide * 0.8),
    circle(x, shade + wide * 0.3, wide * 1.9, "url(#lampglow)"),
    ellipse(x, y - 2, wide * 0.32, wide * 0.07, metal),
    rect(x - wide * 0.025, shade + wide * 0.4, wide * 0.05, tall - wide * 0.42, metal),
    polygon(
      [
        [x - wide * 0.28, shade],
        [x + wide * 0.28, shade],
        [x + wide * 0.5, shade + wide * 0.62],
        [x - wide * 0.5, shade + wide * 0.62],
      ],
      "#fff3d6",
    ),
    polygon(
      [
        [x + wide * 0.05, shade],
        [x + wide * 0.28, shade],
        [x + wide * 0.5, shade + wide * 0.62],
        [x + wide * 0.12, shade + wide * 0.62],
      ],
      cushion,
      `fill-opacity="0.16"`,
    ),
    ellipse(x, shade + wide * 0.62, wide * 0.5, wide * 0.07, "#ffe2a3"),
  ].join("");
};

export const plant: Piece = (x, y, wide, { leaf, wood, rug }) => {
  const pot = wide * 0.55;
  const rim = y - pot;
  const blades = [-62, -44, -27, -11, 6, 22, 40, 58].map((turn, index) => {
    const long = wide * (1.05 + ((index * 37) % 5) * 0.09);
    const shape = `M${n(x)} ${n(rim + 4)}C${n(x - wide * 0.22)} ${n(rim - long * 0.4)} ${n(x - wide * 0.1)} ${n(rim - long * 0.85)} ${n(x)} ${n(rim - long)}C${n(x + wide * 0.1)} ${n(rim - long * 0.85)} ${n(x + wide * 0.22)} ${n(rim - long * 0.4)} ${n(x)} ${n(rim + 4)}Z`;
    return path(
      shape,
      turned(leaf, (index % 3) * 7, (index % 2) * 0.06 - 0.03),
      `transform="rotate(${turn} ${n(x)} ${n(rim)})"`,
    );
  });
  return [
    shadow(x, y, wide * 0.75),
    ...blades,
    polygon(
      [
        [x - pot * 0.5, rim],
        [x + pot * 0.5, rim],
        [x + pot * 0.38, y],
        [x - pot * 0.38, y],
      ],
      pale(rug, 0.02),
    ),
    polygon(
      [
        [x + pot * 0.12, rim],
        [x + pot * 0.5, rim],
        [x + pot * 0.38, y],
        [x + pot * 0.1, y],
      ],
      wood,
      `fill-opacity="0.22"`,
    ),
    rect(x - pot * 0.54, rim - pot * 0.08, pot * 1.08, pot * 0.12, pale(rug, 0.05), `rx="3"`),
  ].join("");
};

export const rugOnFloor: Piece = (x, y, wide, { rug, cushion, fabric }) => {
  const deep = wide * 0.2;
  const outline = (share: number): [number, number][] => {
    const [half, far] = [(wide / 2) * share, (wide / 2) * 0.8 * share];
    const [top, bottom] = [y - deep / 2 - (deep / 2) * share, y - deep / 2 + (deep / 2) * share];
    return [
      [x - far, top],
      [x + far, top],
      [x + half, bottom],
      [x - half, bottom],
    ];
  };
  return [
    polygon(outline(1.02), "#000000", `fill-opacity="0.14"`),
    polygon(outline(1), rug),
    polygon(outline(0.88), "none", `stroke="${cushion}" stroke-width="${n(wide * 0.008)}" stroke-opacity="0.8"`),
    polygon(outline(0.8), "none", `stroke="${fabric}" stroke-width="${n(wide * 0.004)}" stroke-opacity="0.6"`),
    polygon(outline(0.42), fabric, `fill-opacity="0.12"`),
  ].join("");
};

/** Hangs with its middle on (x, y). */
export const picture: Piece = (x, y, wide, { metal, art }) => {
  const tall = wide * 1.28;
  const [left, top, edge] = [x - wide / 2, y - tall / 2, wide * 0.05];
  const [back, shape, line] = art;
  return [
    rect(left + wide * 0.04, top + wide * 0.05, wide, tall, "#000000", `fill-opacity="0.2"`),
    rect(left, top, wide, tall, metal),
    rect(left + edge, top + edge, wide - edge * 2, tall - edge * 2, "#faf7f1"),
    rect(left + edge * 3, top + edge * 3, wide - edge * 6, tall - edge * 6, back),
    circle(x + wide * 0.08, y - tall * 0.12, wide * 0.2, shape),
    path(
      `M${n(left + edge * 3)} ${n(y + tall * 0.12)}q${n(wide * 0.2)} ${n(-tall * 0.16)} ${n(wide * 0.38)} 0t${n(wide * 0.32)} ${n(-tall * 0.04)}V${n(top + tall - edge * 3)}H${n(left + edge * 3)}Z`,
      line,
    ),
  ].join("");
};
