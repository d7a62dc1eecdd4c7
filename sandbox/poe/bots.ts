import { CATALOGUE, type Program } from "../catalogue.ts";
import type { Fields } from "../field.ts";
import type { Chosen, Model } from "../models.ts";
import { seedanceReel } from "../video.ts";

const RATIOS = ["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"] as const;

const PICTURE: Fields = {
  prompt: { type: "string", required: true },
  aspect_ratio: { type: "string", enum: RATIOS, default: "1:1" },
  quality: { type: "string", enum: ["low", "medium", "high"], default: "medium" },
};

const EDIT: Fields = { prompt: { type: "string", required: true }, image: { type: "string", format: "uri" } };

const FILM: Fields = {
  ...EDIT,
  aspect_ratio: { type: "string", enum: ["16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "9:21"], default: "16:9" },
  duration: { type: "integer", minimum: 2, maximum: 12, default: 5 },
};

const LONG_FILM: Fields = { ...FILM, duration: { type: "integer", minimum: 2, maximum: 15, default: 15 } };

/** A bot's name, what paints for it, and what it takes beside the message. */
const BOTS: readonly { readonly name: string; readonly like: string; readonly rest: Partial<Program> }[] = [
  { name: "FLUX-schnell", like: "flux-schnell", rest: { input: PICTURE } },
  { name: "FLUX-dev", like: "flux-dev", rest: { input: PICTURE } },
  { name: "FLUX-Kontext-Pro", like: "flux-kontext-pro", rest: { input: EDIT, photo: "image" } },
  { name: "Seedance-1.0-Lite", like: "seedance-1-lite", rest: { input: FILM, reel: seedanceReel } },
  { name: "Video-Generator-PRO", like: "seedance-1-lite", rest: { input: LONG_FILM, reel: seedanceReel } },
];

/** The bots that answer, by their name in lower case. */
export function makeBots(): ReadonlyMap<string, Chosen> {
  return new Map(
    BOTS.map(({ name, like, rest }) => {
      const entry = CATALOGUE.find((each) => each.name === like);
      if (!entry) throw new Error(`the catalogue has no ${like}`);
      const program: Program = { ...entry, ...rest, output: "array" };
      const model: Model = {
        owner: "poe",
        name,
        description: entry.description,
        visibility: "public",
        hardware: "",
        official: true,
        createdAt: 0,
        versions: [],
        runCount: 0,
      };
      return [name.toLowerCase(), { model, version: "hidden", program }];
    }),
  );
}
