import type { App, Plan } from "../src/domain/app.ts";

/**
 * Ensaio Fotos: photo shoots of oneself, by a LoRA training and FLUX. Everything here is the product's own guide,
 * but for what is marked "our reading": there it gives less than is needed.
 */

const DAY = 86_400;
const HOUR = 3_600;
const QUARTER_OF_AN_HOUR = 900;

/** The guide gives the ends of each range, for FREE and GOLD; what PREMIUM may is our reading. */
function rates(training: number, generation: number, request: number): Plan["rates"] {
  return {
    training: { max: training, seconds: DAY },
    generation: { max: generation, seconds: HOUR },
    request: { max: request, seconds: QUARTER_OF_AN_HOUR },
  };
}

const PHOTOS = ["1", "2", "3", "4"].map((name) => `https://photos.example/${name}.jpg`);

export const ensaioFotos: App = {
  id: "ensaio-fotos",
  name: "Ensaio Fotos",
  signupGrant: 0,
  plans: {
    FREE: {
      dailyAllowance: 10,
      maxSide: 512,
      // What flux-schnell is made for.
      maxSteps: 4,
      maxSeconds: 0,
      maxModels: 1,
      // Training and output have caps of their own: GOLD makes 1536 pixels, and trains at 1024. The others: our reading.
      maxTrainingResolution: 512,
      rates: rates(1, 10, 100),
    },
    PREMIUM: {
      dailyAllowance: 100,
      maxSide: 1_024,
      maxSteps: 40,
      maxSeconds: 0,
      maxModels: 5,
      maxTrainingResolution: 1_024,
      rates: rates(5, 50, 300),
    },
    GOLD: {
      dailyAllowance: 500,
      maxSide: 1_536,
      maxSteps: null,
      maxSeconds: 0,
      maxModels: 20,
      maxTrainingResolution: 1_024,
      rates: rates(20, 200, 1_000),
    },
  },
  defaultPlan: "FREE",
  overLimit: "clamp",
  addressRate: null,
  prices: [
    {
      version: "2026-11-01",
      rules: {
        // One for each megapixel; what extra steps cost is our reading.
        generation: { per: "megapixel", credits: 1, extraSteps: { each: 10, credits: 1 } },
        // 5 + (steps / 1000) × m, rounded up. The table of m is our reading; no plan reaches 1536 today.
        training: { per: "training", base: 5, perThousandSteps: { 512: 1, 1024: 2, 1536: 3 } },
      },
      examples: [
        {
          about: "an image of 512 × 512, the FREE plan's size",
          kind: "generation",
          input: { prompt: "a beach" },
          credits: 1,
        },
        {
          about: "four portraits of one megapixel",
          kind: "generation",
          plan: "PREMIUM",
          input: { prompt: "a beach", size: "portrait", images: 4 },
          credits: 4,
        },
        {
          about: "an image with 48 steps, 20 more than flux-dev takes by itself",
          kind: "generation",
          model: "flux-dev",
          plan: "GOLD",
          input: { prompt: "a beach", steps: 48 },
          credits: 3,
        },
        { about: "1000 steps at 512 pixels: 5 + 1 × 1", kind: "training", input: { photos: PHOTOS }, credits: 6 },
        {
          about: "1200 steps at 512 pixels: 5 + 1.2 × 1, rounded up",
          kind: "training",
          input: { photos: PHOTOS, steps: 1_200 },
          credits: 7,
        },
        {
          about: "1500 steps at 1024 pixels: 5 + 1.5 × 2",
          kind: "training",
          plan: "GOLD",
          input: { photos: PHOTOS, steps: 1_500, resolution: 1_024 },
          credits: 8,
        },
      ],
    },
  ],
  models: {
    generation: {
      default: "flux-schnell",
      // FLUX makes 1,440 pixels a side at most: GOLD's 1,536 are SDXL's.
      allowed: ["flux-schnell", "flux-schnell-lora", "flux-dev", "flux-dev-lora", "sdxl"],
    },
    training: { default: "flux-lora-trainer", allowed: ["flux-lora-trainer"] },
  },
  safety: "request",
  minSuccess: {},
  deadlineSeconds: { generation: 600 },
  experiments: {},
  callbackUrl: null,
  storagePrefix: "apps/ensaio-fotos",
};
