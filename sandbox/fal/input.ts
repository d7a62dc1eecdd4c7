import { z } from "zod";
import { type Input, violations } from "../field.ts";
import { type FalModel, SIZES } from "./models.ts";
import { detail, refused, reworded } from "./problems.ts";

const MEGAPIXEL = 1_048_576; // pixels
const FORMATS: Readonly<Record<string, string>> = { jpeg: "jpg", png: "png" };

const side = z.int().min(64).max(2_048); // the real service goes further; here it would be drawn
const size = z.union([
  z.enum(["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]),
  z.object({ width: side, height: side }),
]);
const loras = z.array(z.object({ path: z.string().min(1), scale: z.number().min(0).max(4).default(1) })).max(3);

/** What a body asks for: the gallery's own words for it, and started megapixels of an output. Throws the 422. */
export function readInput(model: FalModel, body: Input): { readonly values: Input; readonly megapixels: number } {
  const wrong = violations(model.input, body).map((violation) => reworded(violation, body));
  const wanted = size.safeParse(body["image_size"] ?? model.size ?? "square_hd");
  if (model.size !== null && !wanted.success)
    wrong.push(
      detail(
        "value_error",
        "image_size is a name or a width and height of 64 to 2048",
        "image_size",
        body["image_size"],
      ),
    );
  const weights = loras.safeParse(body["loras"] ?? []);
  if (model.loras && !weights.success)
    wrong.push(
      detail("value_error", "loras are at most three, each of a path and a scale of 0 to 4", "loras", body["loras"]),
    );
  if (wrong.length > 0) throw refused(wrong);

  const [width, height] = sidesOf(wanted.data ?? "square_hd");
  // The gallery loads one: that is enough to see that it was heeded.
  const lora = model.loras ? weights.data?.[0] : undefined;
  const { prompt, seed, num_images: count, num_inference_steps: steps, output_format: format, resolution } = body;
  const { aspect_ratio: ratio, duration, num_frames, frames_per_second, image_url: image, mask_url: mask } = body;
  const values = {
    prompt,
    seed,
    num_outputs: count,
    num_inference_steps: steps ?? defaultOf(model, "num_inference_steps"),
    output_format: FORMATS[String(format ?? "jpeg")],
    ...(model.size !== null && { width, height }),
    // As a film's "auto" is read from its photo, the shape that is named for it counts for nothing.
    aspect_ratio: ratio === "auto" || (ratio === undefined && model.makes === "video") ? "16:9" : ratio,
    ...(model.makes === "video" && { resolution: resolution ?? defaultOf(model, "resolution") }),
    duration: duration === undefined ? 5 : Number(duration),
    num_frames,
    frames_per_second,
    image,
    mask,
    lora_weights: lora?.path,
    lora_scale: lora?.scale,
  };
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
  return { values: given, megapixels: model.size === null ? 1 : Math.ceil((width * height) / MEGAPIXEL) };
}

function sidesOf(named: z.output<typeof size>): readonly [width: number, height: number] {
  return typeof named === "string" ? SIZES[named] : [named.width, named.height];
}

function defaultOf(model: FalModel, name: string): string | number | boolean | undefined {
  return model.input[name]?.default;
}
