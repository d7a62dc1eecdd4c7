import { between, type Random } from "./random.ts";
import { type Canvas, circle, ellipse, glow, gradient, n, polygon, rect, ridge, swell } from "./svg.ts";

/** The sky down to `horizon`, with sun or moon, clouds or stars. */
export function sky(
  { width, height, random, palette }: Canvas,
  horizon: number,
  discX = between(random, 0.18, 0.82),
): string {
  const [top, middle, low] = palette.sky;
  const size = Math.min(width, height);
  const x = discX * width;
  const y = horizon * between(random, palette.night ? 0.18 : 0.35, palette.night ? 0.4 : 0.8);
  const radius = size * between(random, 0.045, palette.night ? 0.06 : 0.09);
  const parts = [
    `<defs>${gradient("sky", [
      [0, top],
      [0.55, middle],
      [1, low],
    ])}${glow("halo", palette.disc, 0.75)}</defs>`,
    rect(0, 0, width, Math.max(horizon, 1) + 2, "url(#sky)"),
    palette.night ? stars(random, width, horizon) : "",
    circle(x, y, radius * 5.5, "url(#halo)"),
    circle(x, y, radius, palette.disc, `fill-opacity="0.95"`),
    palette.night ? circle(x - radius * 0.3, y - radius * 0.2, radius * 0.22, "#d9d3b8", `fill-opacity="0.7"`) : "",
    clouds(random, width, horizon, palette.night ? "#8fa0cf" : "#ffffff", palette.night ? 0.12 : 0.42),
    palette.night ? "" : birds(random, width, horizon, palette.ground[3]),
  ];
  return parts.join("");
}

function stars(random: Random, width: number, horizon: number): string {
  return Array.from({ length: 140 }, () => {
    const bright = random() ** 3;
    return circle(
      random() * width,
      random() ** 1.4 * horizon,
      0.6 + bright * 2.2,
      "#ffffff",
      `fill-opacity="${n(0.3 + bright * 0.7)}"`,
    );
  }).join("");
}

function clouds(random: Random, width: number, horizon: number, colour: string, opacity: number): string {
  return Array.from({ length: 2 + Math.floor(random() * 4) }, () => {
    const [x, y, length] = [
      random() * width,
      between(random, 0.1, 0.75) * horizon,
      between(random, 0.12, 0.34) * width,
    ];
    const puffs = Array.from({ length: 7 }, (_, index) => {
      const share = (index + 0.5) / 7 - 0.5;
      const high = (0.25 - share * share) * length * between(random, 0.22, 0.42);
      return ellipse(x + share * length, y - high * 0.4, length * 0.13, Math.max(2, high), colour);
    });
    return `<g opacity="${opacity}">${puffs.join("")}${ellipse(x, y, length * 0.56, length * 0.025, colour)}</g>`;
  }).join("");
}

function birds(random: Random, width: number, horizon: number, colour: string): string {
  const [x, y, size] = [between(random, 0.2, 0.8) * width, between(random, 0.18, 0.5) * horizon, width * 0.012];
  return Array.from({ length: 3 + Math.floor(random() * 4) }, () => {
    const [atX, atY, wing] = [
      x + (random() - 0.5) * size * 16,
      y + (random() - 0.5) * size * 7,
      size * between(random, 0.6, 1),
    ];
    const d = `M${n(atX - wing)} ${n(atY - wing * 0.45)}Q${n(atX - wing * 0.3)} ${n(atY - wing * 0.5)} ${n(atX)} ${n(atY)}Q${n(atX + wing * 0.3)} ${n(atY - wing * 0.5)} ${n(atX + wing)} ${n(atY - wing * 0.45)}`;
    return `<path d="${d}" fill="none" stroke="${colour}" stroke-width="${n(Math.max(1, size * 0.16))}" stroke-opacity="0.65" stroke-linecap="round"/>`;
  }).join("");
}

/** Mountains behind mountains, each nearer one darker; the farthest with snow and haze. */
export function mountains({ width, height, random, palette }: Canvas, base: number, tall: number): string {
  const [far, mid, near] = palette.ground;
  const layers = [
    { colour: far, peak: tall, foot: base },
    { colour: mid, peak: tall * 0.68, foot: base + height * 0.03 },
    { colour: near, peak: tall * 0.4, foot: base + height * 0.07 },
  ];
  return layers
    .map(({ colour, peak, foot }, index) => {
      const points = ridge(random, width, foot, peak);
      const body = polygon([[0, height], ...points, [width, height]], colour);
      if (index > 0) return body;
      const snow = points.map(
        ([x, y], at) => [x, y + Math.max(0, foot - peak * 0.62 - y) * (at % 2 ? 0.5 : 0.8)] as const,
      );
      const haze = `<defs>${gradient("haze", [
        [0, palette.sky[2], 0],
        [1, palette.sky[2], 0.75],
      ])}</defs>`;
      return `${body}${polygon([...points, ...[...snow].reverse()], "#ffffff", `fill-opacity="0.72"`)}${haze}${rect(0, foot - peak * 0.6, width, peak * 0.75, "url(#haze)")}`;
    })
    .join("");
}

/** Rolling hills from `top` to the bottom edge. */
export function hills(
  { width, height, random, palette }: Canvas,
  top: number,
  colours = palette.ground.slice(1),
): string {
  return colours
    .map((colour, index) => {
      const y = top + ((height - top) * index) / colours.length;
      const points = Array.from({ length: 6 }, (_, at) => [(at / 5) * width, y - random() * height * 0.07] as const);
      return `<path d="${swell(points, height)}" fill="${colour}"/>`;
    })
    .join("");
}

/** A stand of firs along a line, the nearer the larger. */
export function firs(
  { width, height, random, palette }: Canvas,
  line: number,
  scale: number,
  colour = palette.ground[3],
): string {
  const count = Math.round(9 + (1 - scale) * 22);
  return Array.from({ length: count }, (_, index) => {
    const x = ((index + random() * 0.9) / count) * width;
    const tall = height * scale * between(random, 0.6, 1);
    const foot = line + random() * height * 0.03;
    const tiers = [0, 1, 2, 3].map((tier) => {
      const [top, wide] = [foot - tall + (tall * tier) / 5, tall * (0.1 + tier * 0.055)];
      return polygon(
        [
          [x, top],
          [x - wide, top + tall * 0.36],
          [x + wide, top + tall * 0.36],
        ],
        colour,
      );
    });
    return `${rect(x - tall * 0.025, foot - tall * 0.15, tall * 0.05, tall * 0.18, colour)}${tiers.join("")}`;
  }).join("");
}
