import type { App } from "../src/domain/app.ts";

const PHOTO = "https://photos.example/photo.jpg";

/** The image, edit and video app: fixed prices, 3,000 credits at signup, limits by user and by address. */
export const imageStudio: App = {
  id: "image-studio",
  name: "Image Studio",
  signupGrant: 3_000,
  plans: {
    standard: {
      dailyAllowance: 0,
      maxSide: 1_440,
      maxSteps: null,
      maxSeconds: 5,
      maxModels: 0,
      maxTrainingResolution: 0,
      rates: { request: { max: 10, seconds: 60 } },
    },
  },
  defaultPlan: "standard",
  // Invalid dimensions are told to the user, not bent.
  overLimit: "refuse",
  addressRate: { max: 20, seconds: 60 },
  prices: [
    {
      version: "2026-11-01",
      rules: {
        generation: { per: "variant", credits: 500 },
        edit: { per: "variant", credits: 1_000 },
        video: { per: "length", credits: { 3: 2_000, 5: 3_000 } },
      },
      examples: [
        { about: "an image", kind: "generation", input: { prompt: "a fox", size: "portrait" }, credits: 500 },
        { about: "an edited image", kind: "edit", input: { image: PHOTO, instruction: "a red hat" }, credits: 1_000 },
        {
          about: "an edit of what a mask marks",
          kind: "edit",
          model: "flux-fill-pro",
          input: { image: PHOTO, mask: PHOTO, instruction: "a red hat" },
          credits: 1_000,
        },
        { about: "a video of 3 s", kind: "video", input: { prompt: "a fox runs", seconds: 3 }, credits: 2_000 },
        { about: "a video of 5 s", kind: "video", input: { prompt: "a fox runs", seconds: 5 }, credits: 3_000 },
      ],
    },
  ],
  models: {
    generation: { default: "flux-schnell", allowed: ["flux-schnell", "flux-dev"] },
    edit: { default: "flux-kontext-pro" },
    video: { default: "seedance-1-lite", allowed: ["seedance-1-lite", "wan-2.2-i2v-fast"] },
  },
  // The guide's providers, where their keys are set: WaveSpeed for pictures, Hugging Face instead, fal for films.
  routing: {
    generation: { by: "order", order: ["wavespeed", "huggingface"] },
    edit: { by: "order", order: ["wavespeed"] },
    video: { by: "order", order: ["huggingface", "fal"] },
  },
  safety: "on",
  minSuccess: {},
  deadlineSeconds: { generation: 300, edit: 600, video: 900 },
  experiments: {},
  callbackUrl: null,
  storagePrefix: "apps/image-studio",
};
