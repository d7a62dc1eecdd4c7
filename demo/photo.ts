import sharp from "sharp";

export interface PhotoOptions {
  readonly width?: number;
  readonly height?: number;
  readonly format?: "jpeg" | "png" | "webp";
}

/** A sharp picture with a lot in it, always the same for a number, and unlike those of other numbers. */
export async function photo(number: number, options: PhotoOptions = {}): Promise<Buffer> {
  const { width = 640, height = 640, format = "jpeg" } = options;
  let state = (number + 1) * 2_654_435_761;
  const random = (below: number): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const colour = () => `rgb(${random(256)},${random(256)},${random(256)})`;
  const shapes = Array.from({ length: 60 }, () => {
    const [x, y, w, h] = [random(width), random(height), 10 + random(width / 3), 10 + random(height / 3)];
    return random(2) === 0
      ? `<rect x="${x - w / 2}" y="${y - h / 2}" width="${w}" height="${h}" fill="${colour()}"/>`
      : `<circle cx="${x}" cy="${y}" r="${w / 2}" fill="${colour()}" stroke="${colour()}" stroke-width="3"/>`;
  });
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}"><rect width="100%" height="100%" fill="${colour()}"/>${shapes.join("")}</svg>`;
  return sharp(Buffer.from(svg)).toFormat(format).toBuffer();
}
