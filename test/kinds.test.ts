import { describe, expect, test } from "vitest";
import { apps } from "../apps/all.ts";
import { demo } from "../apps/demo.ts";
import { CATALOGUE, findModel } from "../src/domain/catalogue.ts";
import { kindOf } from "../src/domain/kinds/all.ts";
import { nearestAspectRatio } from "../src/domain/kinds/generation.ts";
import { KINDS } from "../src/domain/kinds/kind.ts";
import { lookDelayMs } from "../src/domain/pacing.ts";
import { price } from "../src/domain/pricing.ts";

const generation = kindOf("generation");
const credits = (input: Record<string, unknown>) =>
  price(generation.price(generation.input.parse({ prompt: "x", ...input }), demo)).credits;

describe("a generation", () => {
  test("costs one credit for each started megapixel of each image", () => {
    expect(credits({})).toBe(1);
    expect(credits({ size: "portrait", images: 4 })).toBe(4);
    expect(credits({ width: 1024, height: 1024 })).toBe(1);
    expect(credits({ width: 1440, height: 720 })).toBe(1);
    expect(generation.input.safeParse({ prompt: "x", width: 1025, height: 1024 }).success).toBe(false);
    expect(credits({ width: 256, height: 256 })).toBe(1);
  });

  test("takes the model's aspect ratio that is nearest to the wanted dimensions", () => {
    const ratios = findModel("generation", "flux-schnell")?.aspectRatios ?? [];
    const nearest = (width: number, height: number) => nearestAspectRatio(width, height, ratios);
    expect([
      nearest(1024, 1024),
      nearest(1216, 832),
      nearest(832, 1216),
      nearest(1440, 810),
      nearest(1440, 256),
      nearest(256, 1440),
    ]).toEqual(["1:1", "3:2", "2:3", "16:9", "21:9", "9:21"]);
  });

  test("asks for a quarter of a megapixel only when that is all that was asked for", () => {
    const model = findModel("generation", "flux-schnell");
    if (!model) throw new Error("flux-schnell left the catalogue");
    const megapixels = (width: number, height: number) =>
      generation.order(generation.input.parse({ prompt: "x", width, height }), model, {
        variant: 0,
        seed: 1,
        fileUrls: {},
      })["megapixels"];
    expect([megapixels(512, 512), megapixels(513, 512), megapixels(1024, 1024)]).toEqual(["0.25", "1", "1"]);
  });
});

test("every kind has a default model in the catalogue, and every app offers kinds that exist", () => {
  for (const name of KINDS) expect(findModel(name, kindOf(name).defaultModel)).toBeDefined();
  for (const app of apps) for (const name of app.kinds) expect(KINDS).toContain(name);
  expect(new Set(apps.map((app) => app.id)).size).toBe(apps.length);
  expect(new Set(CATALOGUE.map((model) => `${model.kind}/${model.alias}`)).size).toBe(CATALOGUE.length);
});

test("a price is a whole number of credits", () => {
  expect(() => price([{ label: "x", credits: 0.5 }])).toThrow(/whole number/);
  expect(() => price([{ label: "x", credits: -1 }])).toThrow(/whole number/);
});

test("without webhooks a run is looked at after 1 s, growing to 5 s; with them at the model's p95, doubling to a minute", () => {
  const model = findModel("generation", "flux-schnell") ?? null;
  expect([0, 1, 2, 3, 4, 10].map((looks) => lookDelayMs(looks, false, model))).toEqual([
    1_000, 1_500, 2_250, 3_375, 5_000, 5_000,
  ]);
  expect([0, 1, 2, 3].map((looks) => lookDelayMs(looks, true, model))).toEqual([15_000, 30_000, 60_000, 60_000]);
});
