import type { App } from "../src/domain/app.ts";

/**
 * AI Freedom Studios: pictures and films for marketing campaigns of many tenants; a tenant is part of the user's id, see
 * src/api/compat/creatives.ts. Its guide has no credits: prices and the grant are our reading, a credit being a tenth of a
 * cent of what the guide says that providers take ($0.003 an image, $0.05 for 15 s of film).
 */
export const aiFreedomStudios: App = {
  id: "ai-freedom-studios",
  name: "AI Freedom Studios",
  signupGrant: 500,
  plans: {
    standard: {
      dailyAllowance: 0,
      maxSide: 1_440,
      maxSteps: null,
      maxSeconds: 15,
      maxModels: 0,
      maxTrainingResolution: 0,
      rates: { request: { max: 60, seconds: 60 } },
    },
  },
  defaultPlan: "standard",
  overLimit: "refuse",
  addressRate: null,
  prices: [
    {
      version: "2026-11-01",
      rules: {
        generation: { per: "variant", credits: 3 },
        video: { per: "length", credits: { 5: 20, 15: 50 } },
      },
      examples: [
        { about: "an image of 1024 × 1024", kind: "generation", input: { prompt: "a summer sale" }, credits: 3 },
        { about: "a film of 15 s", kind: "video", input: { prompt: "a summer sale", seconds: 15 }, credits: 50 },
        { about: "a film of 4 s", kind: "video", input: { prompt: "a summer sale", seconds: 4 }, credits: 20 },
      ],
    },
  ],
  models: {
    generation: { default: "flux-schnell", allowed: ["flux-schnell", "flux-dev", "sdxl", "sdxl-lightning"] },
    // Zeroscope or Poe's, whichever VIDEO_PROVIDER prefers.
    video: {
      default: "campaign-film",
      allowed: ["campaign-film", "zeroscope-v2-xl", "seedance-1-lite", "wan-2.2-i2v-fast"],
    },
  },
  safety: "on",
  minSuccess: {},
  // The guide gives up after 60 s and 120 s. That is how long its page waits (Prefer: wait=60); at our deadline the
  // provider is told to stop, and Zeroscope often needs more than two minutes.
  deadlineSeconds: { generation: 300, video: 900 },
  experiments: {},
  callbackUrl: null,
  storagePrefix: "apps/ai-freedom-studios",
};
