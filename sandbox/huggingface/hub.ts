import { CATALOGUE, type Price, type Program } from "../catalogue.ts";
import type { Fields } from "../field.ts";
import type { Chosen, Model } from "../models.ts";
import { wanReel } from "../video.ts";

const UPSTREAMS = ["hf-inference", "fal-ai", "together"] as const;
export type Upstream = (typeof UPSTREAMS)[number];

/** A model of the hub at one of those who run it. */
export interface Served {
  readonly upstream: Upstream;
  /** The upstream's own name of it. */
  readonly providerId: string;
  readonly task: string;
  /** "staging": for tests of the upstream's own, and not to be sold. */
  readonly status: "live" | "staging";
  readonly chosen: Chosen;
}

const side = { type: "integer", minimum: 64, maximum: 2_048, default: 1_024 } as const;
const PICTURE: Fields = {
  prompt: { type: "string", required: true },
  negative_prompt: { type: "string" },
  width: side,
  height: side,
  num_inference_steps: { type: "integer", minimum: 1, maximum: 100 },
  guidance_scale: { type: "number", minimum: 0, maximum: 50 },
  output_format: { type: "string", enum: ["jpg", "png"], default: "jpg" },
  seed: { type: "integer" },
};
const EDIT: Fields = {
  prompt: { type: "string", required: true },
  image_url: { type: "string", format: "uri", required: true },
  output_format: { type: "string", enum: ["jpg", "png"], default: "png" },
  seed: { type: "integer" },
};
const FILM: Fields = {
  prompt: { type: "string", required: true },
  image_url: { type: "string", format: "uri", required: true },
  num_frames: { type: "integer", minimum: 17, maximum: 161, default: 81 },
  frames_per_second: { type: "integer", minimum: 4, maximum: 60, default: 16 },
  resolution: { type: "string", enum: ["480p", "580p", "720p"], default: "720p" },
  seed: { type: "integer" },
};

const each = (usd: number): Price => ({ per: "image", usd });

interface Entry {
  readonly id: string;
  /** What paints it here. */
  readonly like: string;
  readonly task: string;
  readonly rest: Partial<Program>;
  readonly at: Readonly<Partial<Record<Upstream, readonly [providerId: string, price: Price, status?: "staging"]>>>;
}

const ENTRIES: readonly Entry[] = [
  {
    id: "black-forest-labs/FLUX.1-schnell",
    like: "flux-schnell",
    task: "text-to-image",
    rest: { input: PICTURE },
    at: {
      "hf-inference": ["black-forest-labs/FLUX.1-schnell", each(0.0005)],
      "fal-ai": ["fal-ai/flux/schnell", each(0.003)],
      together: ["black-forest-labs/FLUX.1-schnell", each(0.0027)],
    },
  },
  {
    id: "black-forest-labs/FLUX.1-dev",
    like: "flux-dev",
    task: "text-to-image",
    rest: { input: PICTURE },
    at: {
      "hf-inference": ["black-forest-labs/FLUX.1-dev", each(0.0012)],
      "fal-ai": ["fal-ai/flux/dev", each(0.025)],
      together: ["black-forest-labs/FLUX.1-dev", each(0.025), "staging"],
    },
  },
  {
    id: "stabilityai/stable-diffusion-xl-base-1.0",
    like: "sdxl",
    task: "text-to-image",
    rest: { input: PICTURE },
    at: { "hf-inference": ["stabilityai/stable-diffusion-xl-base-1.0", each(0.0012)] },
  },
  {
    id: "ByteDance/SDXL-Lightning",
    like: "sdxl-lightning-4step",
    task: "text-to-image",
    rest: { input: PICTURE },
    at: { "fal-ai": ["fal-ai/lightning-models", each(0.002)] },
  },
  {
    id: "black-forest-labs/FLUX.1-Kontext-dev",
    like: "flux-kontext-pro",
    task: "image-to-image",
    rest: { input: EDIT, photo: "image_url" },
    at: { "fal-ai": ["fal-ai/flux-kontext/dev", each(0.025)] },
  },
  {
    id: "Wan-AI/Wan2.2-I2V-A14B",
    like: "wan-2.2-i2v-fast",
    task: "image-to-video",
    rest: { input: FILM, photo: "image_url", reel: wanReel },
    at: { "fal-ai": ["fal-ai/wan/v2.2-a14b/image-to-video", { per: "output second", usd: 0.04 }] },
  },
];

/** The hub's models and who serves them, by "owner/name". */
export function makeHub(): ReadonlyMap<string, readonly Served[]> {
  return new Map(
    ENTRIES.map(({ id, like, task, rest, at }) => {
      const entry = CATALOGUE.find(({ name }) => name === like);
      if (!entry) throw new Error(`the catalogue has no ${like}`);
      const [owner = "", name = ""] = id.split("/");
      const model: Model = {
        owner,
        name,
        description: entry.description,
        visibility: "public",
        hardware: "",
        official: true,
        createdAt: 0,
        versions: [],
        runCount: 0,
      };
      const served = UPSTREAMS.flatMap((upstream): Served[] => {
        const [providerId, price, status = "live"] = at[upstream] ?? [];
        if (providerId === undefined || price === undefined) return [];
        const program: Program = { ...entry, ...rest, output: "array", price };
        return [{ upstream, providerId, task, status, chosen: { model, version: "hidden", program } }];
      });
      return [id, served];
    }),
  );
}
