import { between, pick } from "./random.ts";
import { type Canvas, circle, ellipse, glow, gradient, n, path, rect } from "./svg.ts";

const SKINS = ["#f6d3bd", "#eebf9c", "#d99e75", "#b97a50", "#8d5535", "#643a24"] as const;
const HAIR = ["#20181a", "#3a2519", "#6b4023", "#a8703a", "#d9b36a", "#8c8c93", "#7a2e26"] as const;

/** Somebody who does not exist, in flat colours, before lights out of focus. */
export function portrait({ width, height, random, palette }: Canvas): string {
  const [top, middle, low] = palette.sky;
  const unit = Math.min(width * 0.95, height) / 10;
  const [x, y] = [width / 2 + between(random, -0.3, 0.3) * unit, height / 2 - unit * 0.75];
  const [skin, hair] = [pick(random, SKINS), pick(random, HAIR)];
  const long = random() < 0.5;
  const [headWide, headTall] = [unit * between(random, 1.5, 1.66), unit * between(random, 1.95, 2.1)];
  const cloth = palette.accent;

  const lights = Array.from({ length: 22 }, () => {
    const colour = pick(random, [palette.light, palette.disc, palette.accent]);
    return circle(
      random() * width,
      random() * height * 0.9,
      unit * between(random, 0.2, 0.85),
      colour,
      `fill-opacity="${n(between(random, 0.1, 0.3))}"`,
    );
  });
  const eye = (side: -1 | 1) => {
    const [atX, atY] = [x + side * headWide * 0.4, y + headTall * 0.02];
    return [
      ellipse(atX, atY, unit * 0.24, unit * 0.13, "#fffaf3"),
      circle(atX, atY, unit * 0.125, palette.ground[3]),
      circle(atX + unit * 0.04, atY - unit * 0.045, unit * 0.035, "#ffffff"),
      path(
        `M${n(atX - unit * 0.3)} ${n(atY - unit * 0.02)}q${n(unit * 0.3)} ${n(-unit * 0.26)} ${n(unit * 0.6)} 0`,
        "none",
        `stroke="${hair}" stroke-width="${n(unit * 0.055)}" stroke-linecap="round"`,
      ),
      path(
        `M${n(atX - unit * 0.36)} ${n(atY - unit * 0.32)}q${n(unit * 0.36)} ${n(-unit * 0.2)} ${n(unit * 0.72)} 0`,
        "none",
        `stroke="${hair}" stroke-width="${n(unit * 0.1)}" stroke-linecap="round"`,
      ),
      ellipse(
        atX + side * unit * 0.12,
        atY + unit * 0.62,
        unit * 0.3,
        unit * 0.17,
        palette.accent,
        `fill-opacity="0.22"`,
      ),
    ].join("");
  };
  const fall = long ? headTall * 1.75 : headTall * 0.15;
  const back = `M${n(x - headWide * 1.16)} ${n(y + fall)}C${n(x - headWide * 1.5)} ${n(y - headTall * 0.9)} ${n(x - headWide * 0.9)} ${n(y - headTall * 1.36)} ${n(x)} ${n(y - headTall * 1.36)}C${n(x + headWide * 0.9)} ${n(y - headTall * 1.36)} ${n(x + headWide * 1.5)} ${n(y - headTall * 0.9)} ${n(x + headWide * 1.16)} ${n(y + fall)}Z`;
  const parting = between(random, -0.5, 0.5) * headWide;
  const fringe = `M${n(x - headWide * 1.08)} ${n(y + headTall * 0.05)}C${n(x - headWide * 1.15)} ${n(y - headTall * 1.1)} ${n(x - headWide * 0.5)} ${n(y - headTall * 1.3)} ${n(x)} ${n(y - headTall * 1.3)}C${n(x + headWide * 0.5)} ${n(y - headTall * 1.3)} ${n(x + headWide * 1.15)} ${n(y - headTall * 1.1)} ${n(x + headWide * 1.08)} ${n(y + headTall * 0.05)}C${n(x + headWide * 0.9)} ${n(y - headTall * 0.5)} ${n(x + headWide * 0.5)} ${n(y - headTall * 0.6)} ${n(x + parting)} ${n(y - headTall * 0.72)}C${n(x - headWide * 0.5)} ${n(y - headTall * 0.55)} ${n(x - headWide * 0.9)} ${n(y - headTall * 0.45)} ${n(x - headWide * 1.08)} ${n(y + headTall * 0.05)}Z`;
  const neck = y + headTall * 0.85;
  const shoulders = y + headTall * 1.62;

  return [
    `<defs>${gradient("wall", [
      [0, top],
      [0.6, middle],
      [1, low],
    ])}${glow("rim", palette.disc, 0.6)}${gradient("cloth", [
      [0, cloth],
      [1, palette.ground[2]],
    ])}${gradient("face", [
      [0, "#ffffff", 0.16],
      [0.5, "#ffffff", 0],
      [1, "#3a1020", 0.16],
    ])}</defs>`,
    rect(0, 0, width, height, "url(#wall)"),
    ...lights,
    circle(x, y, unit * 5, "url(#rim)"),
    path(back, hair),
    path(
      `M${n(x - unit * 0.72)} ${n(neck - unit * 0.5)}V${n(shoulders)}Q${n(x)} ${n(shoulders + unit * 0.9)} ${n(x + unit * 0.72)} ${n(shoulders)}V${n(neck - unit * 0.5)}Z`,
      skin,
    ),
    path(
      `M${n(x - unit * 0.72)} ${n(neck + unit * 0.1)}Q${n(x)} ${n(neck + unit * 0.95)} ${n(x + unit * 0.72)} ${n(neck + unit * 0.1)}V${n(neck - unit * 0.3)}H${n(x - unit * 0.72)}Z`,
      "#3a1020",
      `fill-opacity="0.18"`,
    ),
    path(
      `M${n(x - unit * 3.9)} ${height}C${n(x - unit * 3.7)} ${n(shoulders + unit * 0.6)} ${n(x - unit * 2.2)} ${n(shoulders + unit * 0.1)} ${n(x - unit * 0.95)} ${n(shoulders - unit * 0.2)}Q${n(x)} ${n(shoulders + unit * 1.5)} ${n(x + unit * 0.95)} ${n(shoulders - unit * 0.2)}C${n(x + unit * 2.2)} ${n(shoulders + unit * 0.1)} ${n(x + unit * 3.7)} ${n(shoulders + unit * 0.6)} ${n(x + unit * 3.9)} ${height}Z`,
      "url(#cloth)",
    ),
    ellipse(x - headWide * 1.0, y + headTall * 0.1, unit * 0.26, unit * 0.42, skin),
    ellipse(x + headWide * 1.0, y + headTall * 0.1, unit * 0.26, unit * 0.42, skin),
    path(headOf(x, y, headWide, headTall), skin),
    path(headOf(x, y, headWide, headTall), "url(#face)"),
    eye(-1),
    eye(1),
    path(
      `M${n(x - unit * 0.02)} ${n(y + headTall * 0.1)}q${n(unit * 0.22)} ${n(unit * 0.5)} ${n(-unit * 0.1)} ${n(unit * 0.56)}`,
      "none",
      `stroke="#3a1020" stroke-opacity="0.3" stroke-width="${n(unit * 0.07)}" stroke-linecap="round"`,
    ),
    path(
      `M${n(x - unit * 0.46)} ${n(y + headTall * 0.52)}q${n(unit * 0.46)} ${n(unit * between(random, 0.28, 0.5))} ${n(unit * 0.92)} 0q${n(-unit * 0.46)} ${n(-unit * 0.12)} ${n(-unit * 0.92)} 0Z`,
      "#b5485a",
    ),
    path(fringe, hair),
  ].join("");
}

function headOf(x: number, y: number, wide: number, tall: number): string {
  return `M${n(x - wide)} ${n(y - tall * 0.25)}C${n(x - wide)} ${n(y - tall * 1.2)} ${n(x + wide)} ${n(y - tall * 1.2)} ${n(x + wide)} ${n(y - tall * 0.25)}C${n(x + wide)} ${n(y + tall * 0.6)} ${n(x + wide * 0.5)} ${n(y + tall)} ${n(x)} ${n(y + tall)}C${n(x - wide * 0.5)} ${n(y + tall)} ${n(x - wide)} ${n(y + tall * 0.6)} ${n(x - wide)} ${n(y - tall * 0.25)}Z`;
}
