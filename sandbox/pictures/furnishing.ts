import { floorLamp, picture, plant, rugOnFloor } from "./decor.ts";
import { armchair, bed, coffeeTable, diningTable, sofa } from "./furniture.ts";
import { between, pick, type Random } from "./random.ts";
import { styleFor } from "./style.ts";
import { glow } from "./svg.ts";

/**
 * Furniture on the lower part of a room of this size: the pieces by the words, their places by the seed. Pictures hang
 * in the middle, or at `hangAt` where there is a window to leave free.
 */
export function furnishing(width: number, height: number, prompt: string, random: Random, hangAt?: number): string {
  const style = styleFor(prompt);
  // A wide picture shows more room, not larger sofas.
  const unit = Math.min(width, height * 1.35);
  const side = random() < 0.5 ? 1 : -1;
  const middle = width / 2 + side * unit * between(random, 0, 0.09);
  const back = height * between(random, 0.8, 0.83);
  const front = height * between(random, 0.9, 0.92);
  const wall = height * between(random, 0.33, 0.39);
  const main = unit * between(random, 0.48, 0.56);
  const parts = [`<defs>${glow("lampglow", "#ffdf9e", 0.55)}</defs>`];

  if (/bed ?room|\bbed\b/i.test(prompt)) {
    parts.push(hung(hangAt ?? middle, wall - height * 0.09, unit, random));
    parts.push(rugOnFloor(middle, front + height * 0.01, main * 1.5, style));
    parts.push(bed(middle, back + height * 0.05, main, style));
    parts.push(floorLamp(middle + side * main * 0.74, back + height * 0.01, unit * 0.105, style));
    parts.push(plant(middle - side * main * 0.8, back + height * 0.035, unit * 0.13, style));
  } else if (/dining|kitchen/i.test(prompt)) {
    parts.push(hung(hangAt ?? middle, wall, unit, random));
    parts.push(rugOnFloor(middle, front + height * 0.015, main * 1.7, style));
    parts.push(plant(middle - side * main * 0.86, back, unit * 0.14, style));
    parts.push(floorLamp(middle + side * main * 0.82, back - height * 0.005, unit * 0.1, style));
    parts.push(diningTable(middle, front - height * 0.01, main * 1.12, style));
  } else {
    parts.push(hung(hangAt ?? middle, wall, unit, random));
    parts.push(rugOnFloor(middle, front + height * 0.02, main * 1.65, style));
    parts.push(floorLamp(middle + side * main * 0.68, back - height * 0.008, unit * between(random, 0.1, 0.12), style));
    parts.push(sofa(middle, back, main, style));
    parts.push(plant(middle - side * main * 0.7, back + height * 0.012, unit * between(random, 0.1, 0.14), style));
    parts.push(coffeeTable(middle - side * main * 0.06, front, main * 0.46, style));
    if (random() < 0.7) parts.push(armchair(middle + side * main * 0.72, front - height * 0.005, unit * 0.165, style));
  }
  return parts.join("");

  function hung(x: number, y: number, size: number, from: Random): string {
    const layout = pick(from, ["one", "pair", "three"]);
    const wide = size * 0.12;
    if (layout === "one") return picture(x, y, wide * 1.35, style);
    if (layout === "pair")
      return `${picture(x - wide * 0.66, y, wide, style)}${picture(x + wide * 0.66, y, wide, style)}`;
    return [-1.15, 0, 1.15].map((at) => picture(x + wide * at, y, wide * 0.88, style)).join("");
  }
}
