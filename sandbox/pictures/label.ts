import { escaped, n, rect } from "./svg.ts";

const LETTER_WIDTH = 0.6; // of the font size; a generous average of sans-serif faces

/** The strip along the bottom that says where the picture is from, so that nobody takes it for a model's work. */
export function label(width: number, height: number, model: string, seed: number, prompt: string): string {
  const size = Math.max(9, Math.min(26, Math.round(Math.min(width, height) * 0.02)));
  const tall = size * 3.3;
  const top = height - tall;
  const fits = Math.max(4, Math.floor((width - size * 2) / (size * LETTER_WIDTH)));
  const line = (y: number, text: string, more: string) =>
    `<text x="${n(size)}" y="${n(y)}" font-family="sans-serif" font-size="${size}" ${more}>${escaped(shortened(text, fits))}</text>`;
  return [
    rect(0, top, width, tall, "#0b0d12", `fill-opacity="0.66"`),
    line(top + size * 1.35, `sandbox · ${model} · seed ${seed}`, `fill="#ffffff" font-weight="bold"`),
    line(top + size * 2.65, prompt, `fill="#d7dbe2"`),
  ].join("");
}

function shortened(text: string, letters: number): string {
  const points = [...text]; // by code point, so that no emoji is cut in two
  return points.length <= letters
    ? text
    : `${points
        .slice(0, letters - 1)
        .join("")
        .trimEnd()}…`;
}
