import type { App } from "../src/domain/app.ts";

/**
 * ProHeadshots: a model of one person by a training with a trigger word, then headshots with it. The guide names models
 * and what they cost in dollars; it has no credits, plans or limits, so all of these are our reading: a credit is one
 * image, and a training is what a hundred images are.
 */

const PHOTOS = ["1", "2", "3", "4"].map((name) => `https://photos.example/${name}.jpg`);

export const proHeadshots: App = {
  id: "pro-headshots",
  name: "ProHeadshots",
  // Packs are bought before anything is made.
  signupGrant: 0,
  plans: {
    standard: {
      dailyAllowance: 0,
      maxSide: 1_280,
      maxSteps: null,
      maxSeconds: 0,
      maxModels: 20,
      maxTrainingResolution: 1_024,
      rates: { request: { max: 120, seconds: 60 }, training: { max: 10, seconds: 86_400 } },
    },
  },
  defaultPlan: "standard",
  overLimit: "refuse",
  addressRate: null,
  prices: [
    {
      version: "2026-11-01",
      rules: {
        generation: { per: "variant", credits: 1 },
        training: { per: "training", base: 50, perThousandSteps: { 1024: 50 } },
      },
      examples: [
        { about: "a headshot", kind: "generation", input: { prompt: "a headshot of TOK" }, credits: 1 },
        {
          about: "four headshots by SDXL-Lightning",
          kind: "generation",
          model: "sdxl-lightning",
          input: { prompt: "a headshot", images: 4 },
          credits: 4,
        },
        { about: "a training of 1000 steps: 50 + 1 × 50", kind: "training", input: { photos: PHOTOS }, credits: 100 },
        {
          about: "a training of 1500 steps for FLUX: 50 + 1.5 × 50",
          kind: "training",
          model: "flux-lora-trainer",
          input: { photos: PHOTOS, steps: 1_500 },
          credits: 125,
        },
      ],
    },
  ],
  models: {
    generation: {
      default: "sdxl",
      allowed: ["sdxl", "sdxl-lightning", "flux-dev", "flux-schnell", "flux-dev-lora", "flux-schnell-lora"],
    },
    // The guide's model_type is sdxl-lora.
    training: { default: "sdxl-lora-trainer", allowed: ["sdxl-lora-trainer", "flux-lora-trainer"] },
  },
  // No routing: AI_PRIMARY_PROVIDER and AI_SECONDARY_PROVIDER say who is first, "Replicate + RunPod for scale". Who would
  // be late with the queue that he has is passed over, and of several GPUs of one provider the cheapest comes first.
  safety: "on",
  minSuccess: {},
  deadlineSeconds: {},
  experiments: {},
  callbackUrl: null,
  storagePrefix: "apps/pro-headshots",
};
