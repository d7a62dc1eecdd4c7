import type { App } from "../src/domain/app.ts";

const ROOM = "https://photos.example/room.jpg";

/** Virtual Staging: two furnished variants of a room photo, both or nothing. */
export const virtualStaging: App = {
  id: "virtual-staging",
  name: "Virtual Staging",
  // Three rooms to try it with: our reading.
  signupGrant: 120,
  plans: {
    standard: {
      dailyAllowance: 0,
      maxSide: 4_096,
      maxSteps: null,
      maxSeconds: 0,
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
      rules: { staging: { per: "variant", credits: 20 } },
      examples: [
        { about: "a furnished room, two variants of 20", kind: "staging", input: { image: ROOM }, credits: 40 },
        { about: "an emptied room", kind: "staging", input: { image: ROOM, mode: "empty" }, credits: 40 },
      ],
    },
  ],
  models: { staging: { default: "flux-kontext-pro", allowed: ["flux-kontext-pro"] } },
  safety: "on",
  // The front end expects two. With 1, users would get the one that worked, at half the price.
  minSuccess: { staging: 2 },
  // The guide's 90 s for each of two variants, three times over: a variant that was interrupted may be bought again.
  deadlineSeconds: { staging: 540 },
  experiments: {
    // Which words furnish better is told by what users rate.
    "furnishing-words": {
      kind: "staging",
      arms: [
        { name: "plain", weight: 50 },
        {
          name: "lived-in",
          weight: 50,
          promptSuffix: "Make it look lived-in: a folded throw, a book, a plant, warm afternoon light.",
        },
      ],
    },
  },
  callbackUrl: null,
  storagePrefix: "apps/virtual-staging",
};
