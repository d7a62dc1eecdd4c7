import type { Lora } from "../lora.ts";
import { n, path, rect } from "./svg.ts";

const MAX_OPACITY = 0.5; // the picture stays to be seen under any scale

/** What a LoRA adds to a picture: a colour and stripes of its own, the stronger the larger its scale. */
export function loraMark(width: number, height: number, lora: Lora | null): string {
  if (!lora) return "";
  const opacity = Math.min(MAX_OPACITY, Math.abs(lora.scale) * 0.2);
  const [turn, slant, wide] = [0, 1, 2].map((at) => Number.parseInt(lora.mark.slice(at * 4, at * 4 + 4), 16) / 65_536);
  const hue = Math.round((turn ?? 0) * 360 + (lora.scale < 0 ? 180 : 0)) % 360;
  const gap = Math.min(width, height) * (0.06 + (wide ?? 0) * 0.08);
  const lean = height * ((slant ?? 0) * 2 - 1);
  const stripes: string[] = [];
  for (let x = -height; x < width + height; x += gap) {
    stripes.push(`M${n(x)} 0l${n(lean)} ${n(height)}h${n(gap * 0.35)}l${n(-lean)} ${n(-height)}Z`);
  }
  const colour = (light: number) => `hsl(${hue},75%,${light}%)`;
  return (
    rect(0, 0, width, height, colour(50), `fill-opacity="${Math.round(opacity * 100) / 100}"`) +
    path(stripes.join(""), colour(30), `fill-opacity="${Math.round(opacity * 75) / 100}"`)
  );
}
