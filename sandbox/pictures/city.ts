import { between, pick } from "./random.ts";
import { sky } from "./sky.ts";
import { type Canvas, gradient, n, polygon, rect } from "./svg.ts";

/** Three rows of buildings with lit windows, over still water. */
export function city(canvas: Canvas): string {
  const { width, height, random, palette } = canvas;
  const quay = height * between(random, 0.74, 0.8);
  const rows = [
    { colour: palette.ground[0], least: 0.3, most: 0.58, wide: 0.1, lit: 0.1, opacity: 0.75 },
    { colour: palette.ground[2], least: 0.2, most: 0.46, wide: 0.12, lit: 0.3, opacity: 1 },
    { colour: palette.ground[3], least: 0.08, most: 0.3, wide: 0.15, lit: 0.45, opacity: 1 },
  ];
  const skyline = rows.map((row) => `<g opacity="${row.opacity}">${buildings(canvas, quay, row)}</g>`).join("");
  return [
    sky(canvas, quay),
    skyline,
    `<defs>${gradient("quay", [
      [0, palette.sky[2]],
      [0.25, palette.ground[2]],
      [1, palette.ground[3]],
    ])}</defs>`,
    rect(0, quay, width, height - quay, "url(#quay)"),
    // The town upside down in the water, dimmed.
    `<g transform="translate(0 ${n(quay * 1.45)}) scale(1 -0.45)" opacity="0.28">${skyline}</g>`,
    ...Array.from({ length: 26 }, () => {
      const y = quay + random() * (height - quay);
      return rect(random() * width, y, between(random, 0.02, 0.1) * width, 1.5, palette.light, `fill-opacity="0.22"`);
    }),
  ].join("");
}

function buildings(
  { width, height, random, palette }: Canvas,
  foot: number,
  row: { colour: string; least: number; most: number; wide: number; lit: number },
): string {
  const parts: string[] = [];
  const size = Math.min(width, height);
  // At least a fiftieth of the width each, so the row ends.
  for (let x = -size * 0.03; x < width; ) {
    const wide = Math.max(width / 50, size * row.wide * between(random, 0.55, 1.1));
    const tall = height * between(random, row.least, row.most);
    const top = foot - tall;
    parts.push(rect(x, top, wide + 1, tall, row.colour));
    const roof = pick(random, ["flat", "flat", "spire", "step", "slope"]);
    if (roof === "spire")
      parts.push(
        polygon(
          [
            [x + wide * 0.42, top],
            [x + wide * 0.5, top - tall * 0.22],
            [x + wide * 0.58, top],
          ],
          row.colour,
        ),
      );
    if (roof === "step") parts.push(rect(x + wide * 0.2, top - tall * 0.07, wide * 0.6, tall * 0.08, row.colour));
    if (roof === "slope")
      parts.push(
        polygon(
          [
            [x, top + 1],
            [x + wide, top - wide * 0.3],
            [x + wide, top + 1],
          ],
          row.colour,
        ),
      );
    const [columns, gap] = [Math.max(2, Math.round(wide / (size * 0.022))), size * 0.028];
    for (let line = 0; line < tall / gap - 1.5; line += 1) {
      for (let column = 0; column < columns; column += 1) {
        if (random() > row.lit) continue;
        const cell = wide / columns;
        const colour = random() < 0.12 ? palette.accent : palette.light;
        parts.push(
          rect(
            x + cell * (column + 0.28),
            top + gap * (line + 0.7),
            cell * 0.44,
            gap * 0.48,
            colour,
            `fill-opacity="${n(between(random, 0.5, 1))}"`,
          ),
        );
      }
    }
    x += wide + size * 0.004;
  }
  return parts.join("");
}
