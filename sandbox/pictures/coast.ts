import { between } from "./random.ts";
import { mountains, sky } from "./sky.ts";
import { type Canvas, circle, glow, gradient, n, path, polygon, rect, swell } from "./svg.ts";

/** Open water with the light on it; sails on it, or a lighthouse beside it. */
export function coast(canvas: Canvas, withTower: boolean): string {
  const { height, random } = canvas;
  const horizon = height * between(random, 0.5, 0.6);
  const left = random() < 0.5;
  const light = withTower
    ? left
      ? between(random, 0.55, 0.85)
      : between(random, 0.15, 0.45)
    : between(random, 0.25, 0.75);
  const parts = [sky(canvas, horizon, light)];
  if (random() < 0.55)
    parts.push(`<g opacity="0.55">${mountains({ ...canvas, height: horizon }, horizon, height * 0.12)}</g>`);
  parts.push(water(canvas, horizon, light));
  parts.push(withTower ? lighthouse(canvas, horizon, left) : sails(canvas, horizon));
  return parts.join("");
}

function water({ width, height, random, palette }: Canvas, horizon: number, light: number): string {
  const [, , low] = palette.sky;
  const [far, , near, nearest] = palette.ground;
  const parts = [
    `<defs>${gradient("water", [
      [0, low],
      [0.12, far],
      [0.55, near],
      [1, nearest],
    ])}</defs>`,
    rect(0, horizon, width, height - horizon, "url(#water)"),
  ];
  for (let row = 0; row < 46; row += 1) {
    const depth = (row / 46) ** 1.5;
    const y = horizon + depth * (height - horizon) + 2;
    const spread = width * (0.035 + depth * 0.24);
    const x = light * width + (random() - 0.5) * spread;
    const long = width * between(random, 0.02, 0.09) * (0.5 + depth);
    parts.push(
      rect(x - long / 2, y, long, 1.2 + depth * 5, palette.disc, `rx="2" fill-opacity="${n(0.75 - depth * 0.5)}"`),
    );
  }
  for (let row = 0; row < 5; row += 1) {
    const y = horizon + (height - horizon) * (0.28 + row * 0.17);
    const points = Array.from(
      { length: 9 },
      (_, at) => [(at / 8) * width, y + (at % 2 ? 1 : -1) * height * 0.006 * (row + 1) * random()] as const,
    );
    parts.push(path(swell(points, height), nearest, `fill-opacity="0.16"`));
  }
  return parts.join("");
}

function sails({ width, height, random, palette }: Canvas, horizon: number): string {
  return Array.from({ length: 2 + Math.floor(random() * 2) }, (_, index) => {
    const tall = height * between(random, 0.07, 0.12) * (1 + index * 0.7);
    const [x, y] = [width * between(random, 0.12, 0.88), horizon + height * (0.03 + index * 0.09)];
    const sail = index % 2 ? palette.accent : "#fdf8ee";
    return [
      polygon(
        [
          [x, y - tall],
          [x, y - tall * 0.14],
          [x + tall * 0.48, y - tall * 0.14],
        ],
        sail,
      ),
      polygon(
        [
          [x - tall * 0.05, y - tall * 0.86],
          [x - tall * 0.05, y - tall * 0.14],
          [x - tall * 0.34, y - tall * 0.14],
        ],
        "#ffffff",
        `fill-opacity="0.85"`,
      ),
      path(
        `M${n(x - tall * 0.42)} ${n(y - tall * 0.1)}H${n(x + tall * 0.52)}L${n(x + tall * 0.36)} ${n(y + tall * 0.06)}H${n(x - tall * 0.28)}Z`,
        palette.ground[3],
      ),
      path(
        `M${n(x - tall * 0.3)} ${n(y + tall * 0.09)}h${n(tall * 0.7)}l${n(-tall * 0.2)} ${n(tall * 0.3)}h${n(-tall * 0.25)}Z`,
        palette.ground[3],
        `fill-opacity="0.22"`,
      ),
    ].join("");
  }).join("");
}

/** On a headland to one side, its beam over the water. */
function lighthouse({ width, height, random, palette }: Canvas, horizon: number, left: boolean): string {
  const x = width * (left ? between(random, 0.2, 0.3) : between(random, 0.7, 0.8));
  const foot = horizon + height * 0.02;
  const tall = height * between(random, 0.34, 0.42);
  const wide = Math.min(width, height) * 0.1;
  const [top, inner] = [foot - tall, wide * 0.62];
  const edge = (share: number) => (inner + (wide - inner) * share) / 2;
  const bands = Array.from({ length: 5 }, (_, band) => {
    const [from, to] = [band / 5, (band + 1) / 5];
    const colour = band % 2 === 0 ? "#f7f1e6" : palette.accent;
    return polygon(
      [
        [x - edge(from), top + tall * from],
        [x + edge(from), top + tall * from],
        [x + edge(to), top + tall * to],
        [x - edge(to), top + tall * to],
      ],
      colour,
    );
  });
  const side = left ? 1 : -1;
  const lampY = top - wide * 0.34;
  const reach = (left ? width - x : x) * 1.02;
  const beam = polygon(
    [
      [x, lampY - wide * 0.08],
      [x + side * reach, lampY - height * 0.1],
      [x + side * reach, lampY + height * 0.07],
      [x, lampY + wide * 0.08],
    ],
    "url(#beam)",
  );
  const rock = left
    ? `M0 ${n(foot - height * 0.05)}L${n(x - wide * 1.2)} ${n(foot - height * 0.025)}L${n(x + wide * 1.1)} ${n(foot)}L${n(x + wide * 1.9)} ${n(foot + height * 0.09)}L${n(x + wide * 3.1)} ${n(foot + height * 0.17)}L${n(x + wide * 3.6)} ${n(height)}H0Z`
    : `M${width} ${n(foot - height * 0.05)}L${n(x + wide * 1.2)} ${n(foot - height * 0.025)}L${n(x - wide * 1.1)} ${n(foot)}L${n(x - wide * 1.9)} ${n(foot + height * 0.09)}L${n(x - wide * 3.1)} ${n(foot + height * 0.17)}L${n(x - wide * 3.6)} ${n(height)}H${width}Z`;
  const shade = gradient(
    "shade",
    [
      [0, "#000000", left ? 0 : 0.3],
      [1, "#000000", left ? 0.3 : 0],
    ],
    true,
  );
  const beamStops = [
    [0, palette.light, left ? 0.8 : 0],
    [1, palette.light, left ? 0 : 0.8],
  ] as const;
  return [
    `<defs>${shade}${gradient("beam", beamStops, true)}${glow("lamp", palette.light, 0.95)}${gradient("rock", [
      [0, palette.ground[2]],
      [1, palette.ground[3]],
    ])}</defs>`,
    beam,
    path(rock, "url(#rock)"),
    ...bands,
    polygon(
      [
        [x - edge(0), top],
        [x + edge(0), top],
        [x + edge(1), foot],
        [x - edge(1), foot],
      ],
      "url(#shade)",
    ),
    rect(x - inner * 0.68, top - wide * 0.08, inner * 1.36, wide * 0.12, palette.ground[3]),
    rect(x - inner * 0.34, top - wide * 0.56, inner * 0.68, wide * 0.5, palette.light),
    path(
      `M${n(x - inner * 0.5)} ${n(top - wide * 0.54)}Q${n(x)} ${n(top - wide * 1.15)} ${n(x + inner * 0.5)} ${n(top - wide * 0.54)}Z`,
      palette.accent,
    ),
    rect(x - wide * 0.09, foot - tall * 0.1, wide * 0.18, tall * 0.1, palette.ground[3], `rx="${n(wide * 0.09)}"`),
    circle(x, lampY, wide * 1.7, "url(#lamp)"),
  ].join("");
}
