import { describe, expect, test } from "vitest";
import { aiFreedomStudios } from "../apps/ai-freedom-studios.ts";
import { apps } from "../apps/all.ts";
import { demo } from "../apps/demo.ts";
import { ensaioFotos } from "../apps/ensaio-fotos.ts";
import { imageStudio } from "../apps/image-studio.ts";
import { proHeadshots } from "../apps/pro-headshots.ts";
import { virtualStaging } from "../apps/virtual-staging.ts";
import { makeLogger, startApi } from "../src/compose.ts";
import { readConfig } from "../src/config.ts";
import { type App, kindsOf } from "../src/domain/app.ts";
import { appProblems, appsProblems, priceExample } from "../src/domain/app-check.ts";
import { kindOf } from "../src/domain/kinds/all.ts";
import type { KindName } from "../src/domain/kinds/kind.ts";
import { fitWish } from "../src/domain/request.ts";

describe.each(apps.map((app) => [app.id, app] as const))("the app %s", (_id, app) => {
  test("contradicts itself nowhere", () => {
    expect(appProblems(app)).toEqual([]);
  });

  test.each(app.prices.flatMap((book) => book.examples.map((each) => [each.about, book, each] as const)))(
    "charges for %s what its book says",
    (_about, book, example) => {
      expect(priceExample({ ...app, prices: [book] }, example)).toBe(example.credits);
    },
  );

  test("has an example for each kind that it offers", () => {
    const shown = new Set(app.prices[0].examples.map(({ kind }) => kind));
    expect([...shown].sort()).toEqual([...kindsOf(app)].sort());
  });
});

test("the five products are five apps of one deployment, with places of their own in the bucket", () => {
  expect(apps.map(({ id }) => id)).toEqual([
    "demo",
    "ensaio-fotos",
    "pro-headshots",
    "virtual-staging",
    "image-studio",
    "ai-freedom-studios",
  ]);
  expect(new Set(apps.map(({ storagePrefix }) => storagePrefix)).size).toBe(apps.length);
});

/** What an app makes of a wish of one plan. */
function fitted(app: App, kind: KindName, input: Record<string, unknown>, plan?: string, model?: string) {
  const fitting = fitWish(app, plan ?? null, { kind, user: "ann", model, input: kindOf(kind).input.parse(input) });
  if (!fitting.ok) throw new Error(JSON.stringify(fitting.problems));
  return fitting.fitted;
}

const PHOTOS = ["1", "2", "3", "4"].map((name) => `https://photos.example/${name}.jpg`);

describe("Ensaio Fotos", () => {
  const credits = (plan: string, input: Record<string, unknown>) =>
    fitted(ensaioFotos, "training", { photos: PHOTOS, ...input }, plan).price.credits;

  test("gives each plan its credits a day, models, pixels and rates", () => {
    const told = Object.entries(ensaioFotos.plans).map(([name, plan]) => [
      name,
      plan.dailyAllowance,
      plan.maxModels,
      plan.maxSide,
      plan.maxTrainingResolution,
      plan.rates.training?.max,
      plan.rates.generation?.max,
      plan.rates.request?.max,
    ]);
    expect(told).toEqual([
      ["FREE", 10, 1, 512, 512, 1, 10, 100],
      ["PREMIUM", 100, 5, 1024, 1024, 5, 50, 300],
      ["GOLD", 500, 20, 1536, 1024, 20, 200, 1000],
    ]);
    const seconds = Object.values(ensaioFotos.plans).map(({ rates }) => [
      rates.training?.seconds,
      rates.generation?.seconds,
      rates.request?.seconds,
    ]);
    expect(new Set(seconds.map(String))).toEqual(new Set([String([86_400, 3_600, 900])]));
  });

  test("trains for 5 + (steps / 1000) × m(resolution), rounded up", () => {
    expect([credits("FREE", {}), credits("FREE", { steps: 100 }), credits("FREE", { steps: 2_000 })]).toEqual([
      6, 6, 7,
    ]);
    expect([credits("GOLD", {}), credits("GOLD", { steps: 3_000 })]).toEqual([7, 11]);
    expect(credits("GOLD", { resolution: 768, steps: 1_000 })).toBe(7);
  });

  test("trains GOLD at 1024 pixels at most although it makes images of 1536", () => {
    const { input, clamps } = fitted(ensaioFotos, "training", { photos: PHOTOS, resolution: 1_536 }, "GOLD");
    expect(input).toMatchObject({ resolution: 1_024 });
    expect(clamps).toMatchObject([{ pointer: "/input/resolution", from: 1_536, to: 1_024 }]);
  });

  test("makes GOLD's 1536 pixels with SDXL, and clamps everybody else", () => {
    const wanted = { prompt: "a beach", width: 1_536, height: 1_536 };
    const made = (plan: string) => fitted(ensaioFotos, "generation", wanted, plan, "sdxl");
    expect(made("GOLD").input).toMatchObject({ width: 1_536, height: 1_536 });
    expect(made("GOLD").price.credits).toBe(3);
    expect(made("PREMIUM").input).toMatchObject({ width: 1_024, height: 1_024 });
  });

  test("makes images with flux-schnell, 4 steps, WebP at 80, go_fast, unless it is told otherwise", () => {
    const { model, input } = fitted(ensaioFotos, "generation", { prompt: "a beach" }, "PREMIUM");
    expect(model.alias).toBe("flux-schnell");
    expect(input).toMatchObject({ steps: 4, format: "webp", quality: 80, goFast: true, width: 1_024, height: 1_024 });
  });

  test("makes what is beyond the plan smaller, and says so", () => {
    const { input, clamps } = fitted(ensaioFotos, "generation", { prompt: "a beach", width: 1_024, height: 1_024 });
    expect(input).toMatchObject({ width: 512, height: 512 });
    expect(clamps).toHaveLength(1);
    const steps = fitWish(ensaioFotos, "FREE", {
      kind: "generation",
      user: "ann",
      model: "flux-dev",
      input: kindOf("generation").input.parse({ prompt: "a beach", steps: 28 }),
    });
    expect(steps).toMatchObject({ ok: true, fitted: { input: { steps: 4 }, clamps: [{ pointer: "/input/steps" }] } });
  });
});

test("ProHeadshots takes SDXL for its own trained models, and has the four models of its guide", () => {
  expect(fitted(proHeadshots, "training", { photos: PHOTOS, triggerWord: "OHWX" }).model.alias).toBe(
    "sdxl-lora-trainer",
  );
  const id = "0198c0de-0000-7000-8000-000000000000";
  const wish = {
    kind: "generation" as const,
    user: "ann",
    input: kindOf("generation").input.parse({ prompt: "x", trainedModel: id }),
  };
  expect(fitWish(proHeadshots, null, { ...wish, family: "sdxl" })).toMatchObject({
    fitted: { model: { alias: "sdxl" } },
  });
  expect(fitWish(proHeadshots, null, { ...wish, family: "flux" })).toMatchObject({
    fitted: { model: { alias: expect.stringMatching(/^flux-.*-lora$/) } },
  });
  expect(proHeadshots.models.generation?.allowed).toEqual(
    expect.arrayContaining(["sdxl", "sdxl-lightning", "flux-dev", "flux-schnell"]),
  );
});

test("Virtual Staging charges 20 for each of two variants, and wants both", () => {
  const { price, variants, minSuccess } = fitted(virtualStaging, "staging", {
    image: "https://photos.example/room.jpg",
  });
  expect([price.lines.map(({ credits }) => credits), variants, minSuccess]).toEqual([[20, 20], 2, 2]);
  expect(virtualStaging.signupGrant).toBeGreaterThanOrEqual(price.credits);
});

test("Virtual Staging compares two ways to say it: a user stays with his, and about half have either", () => {
  const input = kindOf("staging").input.parse({ image: "https://photos.example/room.jpg" });
  const armOf = (user: string) => {
    const fitting = fitWish(virtualStaging, null, { kind: "staging", user, input, experiment: "furnishing-words" });
    if (!fitting.ok) throw new Error(JSON.stringify(fitting.problems));
    const { prompt } = fitting.fitted.input as { prompt: string };
    expect(prompt !== "").toBe(fitting.fitted.arm === "lived-in");
    return fitting.fitted.arm;
  };
  const arms = Array.from({ length: 400 }, (_, index) => armOf(`user-${index}`));
  expect(Array.from({ length: 400 }, (_, index) => armOf(`user-${index}`))).toEqual(arms);
  const plain = arms.filter((arm) => arm === "plain").length;
  expect(plain).toBeGreaterThan(150);
  expect(plain).toBeLessThan(250);
});

test("Image Studio limits each user to 10 and each address to 20 requests a minute", () => {
  const { rates } = fitted(imageStudio, "generation", { prompt: "a fox" });
  expect(rates).toEqual([{ subject: "user:ann", action: "request", max: 10, seconds: 60 }]);
  const fitting = fitWish(imageStudio, null, {
    kind: "generation",
    user: "ann",
    address: "203.0.113.7",
    input: kindOf("generation").input.parse({ prompt: "a fox" }),
  });
  expect(fitting).toMatchObject({
    fitted: { rates: [{}, { subject: "address:203.0.113.7", action: "request", max: 20, seconds: 60 }] },
  });
});

test("AI Freedom Studios gives an image five minutes and a film fifteen, which its slowest model needs", () => {
  expect(fitted(aiFreedomStudios, "generation", { prompt: "a sale" })).toMatchObject({
    deadlineSeconds: 300,
    model: { alias: "flux-schnell" },
  });
  expect(fitted(aiFreedomStudios, "video", { prompt: "a sale", seconds: 15 })).toMatchObject({
    deadlineSeconds: 900,
    model: { alias: "campaign-film" },
  });
});

describe("an app's file that contradicts itself is refused at boot", () => {
  const [book] = ensaioFotos.prices;
  const { FREE, GOLD } = ensaioFotos.plans;
  if (!FREE || !GOLD) throw new Error("Ensaio Fotos lost its plans");
  const priced = (rules: Partial<App["prices"][0]["rules"]>): Partial<App> => ({
    prices: [{ ...book, rules: { ...book.rules, ...rules } }],
  });
  const video = { per: "length", credits: { 5: 10 } } as const;

  const cases: [string, Partial<App>, RegExp][] = [
    ["an id with capitals", { id: "Ensaio" }, /its id is not/],
    ["a default plan that is missing", { defaultPlan: "SILVER" }, /defaultPlan "SILVER" is none of its plans: FREE/],
    ["no plans at all", { plans: {}, defaultPlan: "FREE" }, /it has none/],
    ["a negative grant", { signupGrant: -1 }, /signupGrant is -1/],
    [
      "half a credit a day",
      { plans: { ...ensaioFotos.plans, FREE: { ...FREE, dailyAllowance: 0.5 } } },
      /dailyAllowance is 0.5/,
    ],
    [
      "images smaller than can be made",
      { plans: { ...ensaioFotos.plans, FREE: { ...FREE, maxSide: 100 } } },
      /maxSide is 100/,
    ],
    [
      "a rate of none",
      { plans: { ...ensaioFotos.plans, FREE: { ...FREE, rates: { request: { max: 0, seconds: 60 } } } } },
      /rate of request: max is 0/,
    ],
    [
      "a rate of what is not offered",
      { plans: { ...ensaioFotos.plans, FREE: { ...FREE, rates: { video: { max: 1, seconds: 60 } } } } },
      /has a rate of video/,
    ],
    [
      "a rate by address longer than 30 days",
      { addressRate: { max: 1, seconds: 3_000_000 } },
      /more than the 2,592,000/,
    ],
    [
      "a model that does not exist",
      { models: { generation: { default: "flux-schnell", allowed: ["flux-schnell", "dall-e-9"] } } },
      /models of generation: dall-e-9 is none/,
    ],
    [
      "a model of another kind",
      { models: { generation: { default: "flux-kontext-pro" } } },
      /the default flux-kontext-pro is none of those allowed/,
    ],
    [
      "a default that is not allowed",
      { models: { generation: { default: "flux-dev", allowed: ["flux-schnell"] } } },
      /the default flux-dev is none of those allowed: flux-schnell/,
    ],
    [
      "a model for what is not offered",
      { models: { ...ensaioFotos.models, video: { default: "zeroscope-v2-xl" } } },
      /models names video/,
    ],
    ["a negative price", priced({ generation: { per: "variant", credits: -5 } }), /credits is -5/],
    [
      "a rule of another kind",
      priced({ generation: { per: "length", credits: { 5: 1 } } }),
      /priced per length, which only video can be/,
    ],
    ["an empty table", priced({ training: { per: "training", base: 5, perThousandSteps: {} } }), /its table is empty/],
    [
      "a training that a plan allows and the book cannot price",
      priced({ training: { per: "training", base: 5, perThousandSteps: { 512: 1 } } }),
      /plan GOLD: allows trainings at 1024 pixels, priced up to 512/,
    ],
    [
      "a video that a plan allows and the book cannot price",
      {
        ...priced({ video }),
        plans: { GOLD: { ...GOLD, maxSeconds: 15 } },
        defaultPlan: "GOLD",
      },
      /plan GOLD: allows videos of 15 s, priced up to 5 s/,
    ],
    [
      "videos that a plan makes too short for the model",
      { ...priced({ video }), plans: { GOLD: { ...GOLD, maxSeconds: 1 } }, defaultPlan: "GOLD" },
      /plan GOLD: allows videos of 1 s, and seedance-1-lite makes them from 2 s on/,
    ],
    [
      "trainings of which no model may be kept",
      { plans: { FREE: { ...FREE, maxModels: 0 } } },
      /training is priced, and no plan keeps a trained model/,
    ],
    [
      "trainings that no trainer can do",
      { plans: { FREE: { ...FREE, maxTrainingResolution: 256 } } },
      /trains at 256 pixels at most, which flux-lora-trainer cannot/,
    ],
    ["a least success of none", { minSuccess: { generation: 0 } }, /minSuccess of generation is 0/],
    ["a deadline of what is not offered", { deadlineSeconds: { edit: 60 } }, /deadlineSeconds names edit/],
    ["two books of one version", { prices: [book, book] }, /two price books have the version/],
    [
      "an example that does not come out",
      { prices: [{ ...book, examples: book.examples.map((each) => ({ ...each, credits: 99 })) }] },
      /comes to 1, not to 99 credits/,
    ],
    [
      "an example of a plan that does not exist",
      {
        prices: [
          {
            ...book,
            examples: [
              ...book.examples,
              { about: "x", kind: "generation", plan: "SILVER", input: { prompt: "x" }, credits: 1 },
            ],
          },
        ],
      },
      /there is no plan SILVER/,
    ],
    [
      "a kind without an example",
      { prices: [{ ...book, examples: book.examples.filter(({ kind }) => kind === "training") }] },
      /has no example of generation/,
    ],
    [
      "an experiment that nobody is given",
      { experiments: { words: { kind: "generation", arms: [{ name: "a", weight: 0 }] } } },
      /no arm has a weight/,
    ],
    [
      "an experiment with a model that the app does not have",
      { experiments: { words: { kind: "generation", arms: [{ name: "a", weight: 1, model: "sdxl-lightning" }] } } },
      /takes the model sdxl-lightning/,
    ],
    [
      "an experiment that sets what the kind does not take",
      { experiments: { words: { kind: "generation", arms: [{ name: "a", weight: 1, set: { colour: "red" } }] } } },
      /what a sets does not fit generation/,
    ],
    ["a callback address that is none", { callbackUrl: "ftp://x.example" }, /is no http or https address/],
    ["files outside its place", { storagePrefix: "../other" }, /storagePrefix "..\/other"/],
  ];
  test.each(cases)("%s", (_what, change, says) => {
    expect(appProblems({ ...ensaioFotos, ...change }).join("\n")).toMatch(says);
  });

  test("by the API before it opens anything", async () => {
    const config = readConfig({
      NODE_ENV: "test",
      DATABASE_URL: "postgres://nobody@127.0.0.1:1/none",
      AI_PROVIDER: "sandbox",
      SANDBOX_URL: "http://127.0.0.1:1",
      SIGNING_SECRET: "a secret of the tests that is long enough",
    });
    const start = startApi(config, makeLogger({ LOG_LEVEL: "silent" }, "test"), [{ ...demo, defaultPlan: "gold" }]);
    await expect(start).rejects.toThrow(/app demo: defaultPlan "gold" is none of its plans: default/);
  });

  test("two apps with one id or one place in the bucket", () => {
    expect(appsProblems([demo, { ...demo }]).join("\n")).toMatch(/the id "demo"[\s\S]*the storagePrefix "apps\/demo"/);
  });
});
