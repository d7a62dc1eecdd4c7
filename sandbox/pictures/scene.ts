import { city } from "./city.ts";
import { coast } from "./coast.ts";
import { furnishing } from "./furnishing.ts";
import { paletteFor } from "./palette.ts";
import { portrait } from "./portrait.ts";
import { between, pick, randomFrom } from "./random.ts";
import { firs, hills, mountains, sky } from "./sky.ts";
import { type Canvas, circle, gradient, n, path, rect, swell } from "./svg.ts";

const MOTIFS: readonly (readonly [words: RegExp, draw: (canvas: Canvas, prompt: string) => string])[] = [
  [/lighthouse|beacon/i, (canvas) => coast(canvas, true)],
  [/portrait|headshot|person|woman|man\b|girl|boy|face|selfie|model\b|TOK/, (canvas) => portrait(canvas)],
  [/room|interior|sofa|kitchen|apartment|furniture|staging|loft|bed\b/i, room],
  [/city|skyline|street|tower|urban|building|downtown|new york|tokyo/i, (canvas) => city(canvas)],
  [/sea|ocean|beach|coast|boat|sail|harbou?r|lake|water|island/i, (canvas) => coast(canvas, false)],
  [/forest|wood|tree|jungle|pine|fox|deer|bear/i, forest],
  [/mountain|alps?\b|peak|hill|valley|landscape|snow|canyon|desert/i, range],
];

/** A picture of the words, as SVG without its frame: the motif by what they name, the rest by the seed. */
export function scene(model: string, prompt: string, seed: number, width: number, height: number): string {
  const random = randomFrom(`${model}\n${prompt}\n${seed}`);
  const canvas: Canvas = { width, height, random, palette: paletteFor(prompt, random) };
  const named = MOTIFS.find(([words]) => words.test(prompt));
  return named ? named[1](canvas, prompt) : abstract(canvas);
}

function range(canvas: Canvas): string {
  const { height, random } = canvas;
  const base = height * between(random, 0.6, 0.7);
  const parts = [sky(canvas, base), mountains(canvas, base, height * between(random, 0.34, 0.46))];
  parts.push(hills(canvas, base + height * 0.08, canvas.palette.ground.slice(2)));
  if (random() < 0.75) parts.push(firs(canvas, height * between(random, 0.88, 0.94), 0.17));
  return parts.join("");
}

function forest(canvas: Canvas): string {
  const { height, random, palette } = canvas;
  const base = height * 0.6;
  const parts = [sky(canvas, base), mountains(canvas, base, height * 0.3)];
  palette.ground.forEach((colour, row) => {
    parts.push(firs(canvas, base + height * (0.02 + row * 0.085), 0.12 + row * 0.07, colour));
    parts.push(hills(canvas, base + height * (0.06 + row * 0.09), [colour]));
  });
  parts.push(firs(canvas, height * between(random, 0.96, 1), 0.46));
  return parts.join("");
}

/** Four walls, light from a window, and furniture. */
function room(canvas: Canvas, prompt: string): string {
  const { width, height, random, palette } = canvas;
  const floor = height * 0.7;
  const [wide, tall] = [Math.min(width * 0.3, height * 0.34), height * 0.36];
  const left = random() < 0.5 ? width * 0.06 : width * 0.94 - wide;
  const top = height * 0.12;
  const view =
    sky({ ...canvas, width: wide, height: tall }, tall) + hills({ ...canvas, width: wide, height: tall }, tall * 0.78);
  const boards = Array.from({ length: 13 }, (_, index) => {
    const at = index / 12;
    return `M${n(width * (0.5 + (at - 0.5) * 0.9))} ${n(floor)}L${n(width * (0.5 + (at - 0.5) * 2.6))} ${n(height)}`;
  });
  return [
    `<defs>${gradient("wall", [
      [0, "#f4efe6"],
      [1, "#dcd3c6"],
    ])}${gradient("floor", [
      [0, "#b98f66"],
      [1, "#8c633f"],
    ])}${gradient("day", [
      [0, palette.light, 0.5],
      [1, palette.light, 0],
    ])}</defs>`,
    rect(0, 0, width, floor, "url(#wall)"),
    rect(0, floor, width, height - floor, "url(#floor)"),
    path(boards.join(""), "none", `stroke="#5c3f28" stroke-opacity="0.25" stroke-width="1.5"`),
    rect(0, floor - height * 0.02, width, height * 0.02, "#fbf8f2"),
    `<svg x="${n(left)}" y="${n(top)}" width="${n(wide)}" height="${n(tall)}">${view}</svg>`,
    rect(left, top, wide, tall, "none", `stroke="#fdfbf7" stroke-width="${n(wide * 0.045)}"`),
    path(
      `M${n(left + wide / 2)} ${n(top)}v${n(tall)}M${n(left)} ${n(top + tall * 0.5)}h${n(wide)}`,
      "none",
      `stroke="#fdfbf7" stroke-width="${n(wide * 0.025)}"`,
    ),
    path(
      `M${n(left)} ${n(top + tall)}h${n(wide)}l${n(wide * 0.4)} ${n(height - top - tall)}h${n(-wide * 1.9)}Z`,
      "url(#day)",
      `fill-opacity="0.5"`,
    ),
    furnishing(width, height, prompt, random, left < width / 2 ? width * 0.68 : width * 0.32),
  ].join("");
}

/** Bands of colour that flow under a disc, with fine lines along them. */
function abstract(canvas: Canvas): string {
  const { width, height, random, palette } = canvas;
  const [top, middle, low] = palette.sky;
  const colours = [low, palette.accent, ...palette.ground];
  const size = Math.min(width, height);
  const [discX, discY] = [width * between(random, 0.2, 0.8), height * between(random, 0.18, 0.42)];
  const radius = size * between(random, 0.12, 0.22);
  const parts = [
    `<defs>${gradient("ground", [
      [0, top],
      [0.6, middle],
      [1, low],
    ])}${gradient("disc", [
      [0, palette.disc],
      [1, palette.accent],
    ])}</defs>`,
    rect(0, 0, width, height, "url(#ground)"),
    ...Array.from({ length: 4 }, (_, ring) =>
      circle(
        discX,
        discY,
        radius * (1.25 + ring * 0.28),
        "none",
        `stroke="${palette.disc}" stroke-opacity="${n(0.5 - ring * 0.1)}" stroke-width="1.5"`,
      ),
    ),
    circle(discX, discY, radius, "url(#disc)"),
  ];
  const phase = between(random, 0, 6);
  const beat = between(random, 1.2, 2.6);
  colours.forEach((colour, band) => {
    const y = height * (0.42 + band * 0.1);
    const points = Array.from({ length: 11 }, (_, at) => {
      const wave = Math.sin(phase + band * 0.9 + (at / 10) * Math.PI * beat) + Math.sin(phase * 2 + at * 0.7) * 0.3;
      return [(at / 10) * width, y + wave * height * 0.075] as const;
    });
    parts.push(path(swell(points, height), colour, `fill-opacity="0.9"`));
    for (let line = 1; line <= 3; line += 1) {
      const d =
        swell(
          points.map(([x, at]) => [x, at + line * height * 0.014] as const),
          height,
        ).split("L")[0] ?? "";
      parts.push(
        path(d, "none", `stroke="${palette.light}" stroke-opacity="${n(0.4 - line * 0.1)}" stroke-width="1.2"`),
      );
    }
  });
  for (let dot = 0; dot < 30; dot += 1) {
    const colour = pick(random, [palette.light, palette.accent, palette.disc]);
    parts.push(
      circle(random() * width, random() * height, size * between(random, 0.002, 0.008), colour, `fill-opacity="0.75"`),
    );
  }
  return parts.join("");
}
