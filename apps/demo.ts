import { type App, UNLIMITED } from "../src/domain/app.ts";

/** The app that `npm run dev` and `npm run demo` use. Copy this file to add your own. */
export const demo: App = {
  id: "demo",
  name: "Darkroom demo",
  signupGrant: 200,
  plans: { default: UNLIMITED },
  defaultPlan: "default",
  overLimit: "refuse",
  addressRate: null,
  prices: [
    {
      version: "2026-11-01",
      rules: {
        generation: { per: "megapixel", credits: 1, extraSteps: { each: 10, credits: 1 } },
        staging: { per: "variant", credits: 20 },
        edit: { per: "variant", credits: 5 },
        video: { per: "length", credits: { 5: 20, 15: 50 } },
        training: { per: "training", base: 5, perThousandSteps: { 512: 1, 1024: 2, 1536: 3 } },
      },
      examples: [
        { about: "an image of one megapixel", kind: "generation", input: { prompt: "a fox" }, credits: 1 },
        { about: "two staged variants", kind: "staging", input: { image: "https://x.example/room.jpg" }, credits: 40 },
        {
          about: "an edited picture",
          kind: "edit",
          input: { image: "https://x.example/room.jpg", instruction: "at night" },
          credits: 5,
        },
        { about: "five seconds of film", kind: "video", input: { prompt: "a fox runs" }, credits: 20 },
        {
          about: "a training of 1000 steps at 1024 pixels: 5 + 1 × 2",
          kind: "training",
          input: { photos: ["1", "2", "3", "4"].map((name) => `https://x.example/${name}.jpg`) },
          credits: 7,
        },
      ],
    },
  ],
  models: {},
  safety: "request",
  minSuccess: {},
  deadlineSeconds: {},
  experiments: {},
  callbackUrl: null,
  storagePrefix: "apps/demo",
};
