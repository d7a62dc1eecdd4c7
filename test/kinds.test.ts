import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { apps } from "../apps/all.ts";
import { type App, type Plan, UNLIMITED } from "../src/domain/app.ts";
import {
  CATALOGUE,
  costOf,
  type Family,
  findModel,
  type Model,
  modelsOf,
  type Route,
} from "../src/domain/catalogue.ts";
import { kindOf } from "../src/domain/kinds/all.ts";
import { KINDS, type KindName, type VariantOrder } from "../src/domain/kinds/kind.ts";
import { lookDelayMs } from "../src/domain/pacing.ts";
import { price, priceOf } from "../src/domain/pricing.ts";
import { FLUX_RATIOS, nearestAspectRatio } from "../src/domain/replicate-inputs.ts";
import { armOf, type Fitted, fitWish, type Wish } from "../src/domain/request.ts";
import { STYLES, stylesOf } from "../src/domain/styles.ts";
import { asOrdered, asSeen } from "../src/domain/suffix.ts";
import { makeApp } from "./rig/apps.ts";

const PHOTO = "https://photos.example.test/a.jpg";
const UPLOAD = "0195f000-0000-7000-8000-000000000001";
const PHOTOS = [1, 2, 3, 4].map((n) => `https://photos.example.test/${n}.jpg`);
const LEAST: Record<KindName, Record<string, unknown>> = {
  training: { photos: PHOTOS },
  generation: { prompt: "a fox" },
  staging: { image: PHOTO },
  edit: { image: PHOTO, instruction: "make it night" },
  video: { prompt: "a fox runs" },
};

const small: Partial<Plan> = { maxSide: 768, maxSteps: 2, maxSeconds: 3, maxTrainingResolution: 512, maxModels: 1 };
const clamping = makeApp({ id: "clamping", overLimit: "clamp" }, small);
const refusing = makeApp({ id: "refusing", overLimit: "refuse" }, small);
const free = makeApp({ id: "free" });

interface Over extends Partial<Omit<Wish, "kind" | "input">> {
  readonly app?: App;
}
const wish = (kind: KindName, input: Record<string, unknown> = {}, { app = free, ...over }: Over = {}) =>
  fitWish(app, null, { kind, user: "ann", ...over, input: kindOf(kind).input.parse({ ...LEAST[kind], ...input }) });

function fitted(...wanted: Parameters<typeof wish>): Fitted {
  const fitting = wish(...wanted);
  if (!fitting.ok) throw new Error(JSON.stringify(fitting.problems));
  return fitting.fitted;
}
function problems(...wanted: Parameters<typeof wish>): string[] {
  const fitting = wish(...wanted);
  return fitting.ok ? [] : fitting.problems.map(({ pointer, detail }) => `${pointer} ${detail}`);
}
const credits = (...wanted: Parameters<typeof wish>) => fitted(...wanted).price.credits;
const parseProblems = (kind: KindName, input: Record<string, unknown>) =>
  (kindOf(kind).input.safeParse({ ...LEAST[kind], ...input }).error?.issues ?? []).map(
    ({ path, message }) => `/${path.join("/")} ${message}`,
  );

describe("a price", () => {
  test("of a generation is one credit for each started megapixel of each image", () => {
    expect(credits("generation")).toBe(1);
    expect(credits("generation", { size: "portrait", images: 4 })).toBe(4);
    expect(credits("generation", { width: 1_440, height: 720 })).toBe(1);
    expect(credits("generation", { width: 256, height: 256 })).toBe(1);
    expect(credits("generation", { width: 1_032, height: 1_024 }, { model: "sdxl" })).toBe(2);
    expect(credits("generation", { width: 2_048, height: 2_048, images: 3 }, { model: "sdxl" })).toBe(12);
  });

  test("of more steps than the model's own is one credit more for each ten begun", () => {
    const steps = (wanted: number) => credits("generation", { steps: wanted }, { model: "flux-dev" });
    expect([steps(1), steps(28), steps(29), steps(38), steps(39), steps(50)]).toEqual([1, 1, 2, 2, 3, 4]);
    expect(fitted("generation", { steps: 38, images: 2 }, { model: "flux-dev" }).price.lines).toEqual([
      { label: "image 1, 1024×1024, 1 MP, 38 steps", credits: 2 },
      { label: "image 2, 1024×1024, 1 MP, 38 steps", credits: 2 },
    ]);
  });

  test("of a film is that of the next length in the book, for each film", () => {
    const film = (seconds: number) => credits("video", { seconds }, { model: "zeroscope-v2-xl" });
    expect([film(1), film(5), film(6), film(15)]).toEqual([20, 20, 50, 50]);
    expect(credits("video", { variants: 3 })).toBe(60);
    expect(fitted("video").price.lines).toEqual([{ label: "video, 5 s", credits: 20 }]);
  });

  test("of a training is 5 and, for each thousand steps, 1, 2 or 3 by its resolution, rounded up", () => {
    const cost = (steps: number, resolution: number) => credits("training", { steps, resolution });
    expect([cost(1_000, 512), cost(1_000, 1_024), cost(1_000, 1_536)]).toEqual([6, 7, 8]);
    expect([cost(2_500, 512), cost(2_500, 1_024), cost(2_500, 1_536)]).toEqual([8, 10, 13]);
    expect([cost(100, 512), cost(1_001, 1_024), cost(1_000, 768)]).toEqual([6, 8, 7]);
    expect(credits("training")).toBe(7);
  });

  test("of a training is never a credit more because a computer cannot write 0.07", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100_000 }), fc.integer({ min: 1, max: 1_000 }), (steps, each) => {
        const rules = { training: { per: "training", base: 5, perThousandSteps: { 1024: each } } } as const;
        const book = { version: "1", rules, examples: [] };
        const measure = { noun: "training", variants: 1, steps, resolution: 1_024 };
        const exact = 5n + (BigInt(steps * each) + 999n) / 1_000n;
        expect(BigInt(priceOf(free, book, "training", measure).credits)).toBe(exact);
      }),
    );
  });

  test("of staging and editing is the same for each result", () => {
    expect(fitted("staging").price).toEqual({
      credits: 40,
      lines: [
        { label: "staged variant 1", credits: 20 },
        { label: "staged variant 2", credits: 20 },
      ],
    });
    expect(credits("edit", { variants: 3 })).toBe(15);
  });

  test("is a whole number of credits", () => {
    expect(() => price([{ label: "x", credits: 0.5 }])).toThrow(/whole number/);
    expect(() => price([{ label: "x", credits: -1 }])).toThrow(/whole number/);
  });

  test("that the app's book does not have is a refusal of the field, not a failure of ours", () => {
    const rules = {
      video: { per: "length", credits: { 3: 10 } },
      training: { per: "training", base: 5, perThousandSteps: { 512: 1 } },
    } as const;
    const app = makeApp({ id: "short", prices: [{ version: "1", rules, examples: [] }] });
    expect(problems("video", { seconds: 4 }, { app })).toEqual([
      "/input/seconds is 4 s, and the app has prices up to 3 s",
    ]);
    expect(problems("training", { resolution: 1_024 }, { app })).toEqual([
      "/input/resolution is 1024 pixels, and the app has prices up to 512 pixels",
    ]);
    expect(credits("video", { seconds: 3 }, { app })).toBe(10);
    expect(problems("edit", {}, { app })).toEqual(["/kind the app short does not offer edit, only video, training"]);
  });
});

describe("a model", () => {
  test("fills in what it decides itself", () => {
    const own = (model: string) => fitted("generation", {}, { model }).input;
    expect(own("flux-schnell")).toMatchObject({ steps: 4, format: "webp", width: 1_024, height: 1_024 });
    expect(own("flux-dev")).toMatchObject({ steps: 28, format: "webp" });
    expect(own("sdxl")).toMatchObject({ steps: 50, format: "png" });
    expect(own("sdxl-lightning")).toMatchObject({ steps: 4, format: "png" });
    expect(fitted("training").input).toMatchObject({ steps: 1_000, resolution: 1_024 });
    expect(fitted("video").input).toMatchObject({ seconds: 5 });
  });

  test("is the app's, or that of the kind, or what the caller names of those that the app allows", () => {
    const app = makeApp({
      id: "choosy",
      models: { generation: { default: "flux-dev", allowed: ["flux-dev", "sdxl"] } },
    });
    expect(fitted("generation").model.alias).toBe("flux-schnell");
    expect(fitted("generation", {}, { app }).model.alias).toBe("flux-dev");
    expect(fitted("generation", {}, { app, model: "sdxl" }).model.alias).toBe("sdxl");
    for (const model of ["flux-schnell", "flux-kontext-pro", "nothing"])
      expect(problems("generation", {}, { app, model })).toEqual([
        `/model there is no model "${model}" for generation in this app; one of: flux-dev, sdxl`,
      ]);
  });

  test.each<[KindName, string, Record<string, unknown>, RegExp]>([
    ["generation", "flux-schnell", { steps: 5 }, /^\/input\/steps the model flux-schnell takes 1 to 4 steps$/],
    [
      "generation",
      "flux-schnell",
      { image: PHOTO },
      /^\/input\/image the model flux-schnell takes no image; flux-dev, flux-dev-lora, sdxl do$/,
    ],
    ["generation", "flux-schnell", { width: 1_448, height: 256 }, /^\/input\/width the model .* makes at most 1440$/],
    [
      "generation",
      "flux-schnell",
      { width: 1_025, height: 1_024 },
      /^\/input\/width width × height is at most 1048576/,
    ],
    ["generation", "flux-schnell", { trainedModel: UPLOAD }, /^\/input\/trainedModel .*flux-dev-lora.*sdxl$/],
    ["generation", "sdxl", { format: "webp" }, /^\/input\/format the model sdxl makes png$/],
    ["generation", "flux-dev", { guidance: 11 }, /^\/input\/guidance the model flux-dev takes 0 to 10$/],
    ["generation", "sdxl", { guidance: 0.5 }, /^\/input\/guidance the model sdxl takes 1 to 50$/],
    ["generation", "sdxl", { width: 1_001, height: 777 }, /^\/input\/width .* 1000×776, say$/],
    ["generation", "sdxl", { trainedModel: UPLOAD, loraScale: 1.5 }, /^\/input\/loraScale .* takes 0 to 1$/],
    ["generation", "sdxl-lightning", { steps: 11 }, /^\/input\/steps .* 1 to 10 steps$/],
    ["generation", "sdxl-lightning", { width: 512, height: 2_048 }, /^\/input\/height .* at most 1280$/],
    [
      "edit",
      "flux-kontext-pro",
      { mask: PHOTO },
      /^\/input\/mask the model flux-kontext-pro takes no mask; flux-fill-pro does$/,
    ],
    ["edit", "flux-fill-pro", {}, /^\/input\/mask the model flux-fill-pro needs one; flux-kontext-pro works without$/],
    [
      "video",
      "zeroscope-v2-xl",
      { image: PHOTO },
      /^\/input\/image the model zeroscope-v2-xl takes no image; seedance-1-lite, wan-2\.2-i2v-fast do$/,
    ],
    ["video", "zeroscope-v2-xl", { aspectRatio: "4:3" }, /^\/input\/aspectRatio .* makes 16:9, 1:1, 9:16$/],
    ["video", "zeroscope-v2-xl", { seconds: 16 }, /^\/input\/seconds .* 1 to 15 s$/],
    [
      "video",
      "seedance-1-lite",
      { seconds: 15 },
      /^\/input\/seconds .* 2 to 12 s; zeroscope-v2-xl, campaign-film make 15 s$/,
    ],
    ["video", "seedance-1-lite", { image: PHOTO, seconds: 15 }, /^\/input\/seconds .* 2 to 12 s$/],
    [
      "video",
      "wan-2.2-i2v-fast",
      {},
      /^\/input\/image the model wan-2\.2-i2v-fast needs one; seedance-1-lite, zeroscope-v2-xl, campaign-film work without$/,
    ],
    [
      "video",
      "wan-2.2-i2v-fast",
      { image: PHOTO, seconds: 3 },
      /^\/input\/seconds .* 5 to 7 s; seedance-1-lite makes 3 s$/,
    ],
    ["training", "sdxl-lora-trainer", { resolution: 1_536 }, /^\/input\/resolution .* trains at 512, 768, 1024$/],
  ])("%s with %s cannot do everything: %j", (kind, model, input, problem) => {
    expect(problems(kind, input, { model })).toEqual([expect.stringMatching(problem)]);
  });

  test("that the caller did not choose and that ends too early is told with those of the app that go on", () => {
    expect(problems("video", { seconds: 15 })).toEqual([
      "/input/seconds the model seedance-1-lite makes videos of 2 to 12 s; zeroscope-v2-xl, campaign-film make 15 s",
    ]);
    const app = makeApp({
      id: "films",
      models: { video: { default: "seedance-1-lite", allowed: ["seedance-1-lite", "zeroscope-v2-xl"] } },
    });
    expect(problems("video", { seconds: 15 }, { app })).toEqual([
      "/input/seconds the model seedance-1-lite makes videos of 2 to 12 s; zeroscope-v2-xl makes 15 s",
    ]);
  });

  test("follows the picture, not the aspect ratio, where a film begins with one", () => {
    expect(problems("video", { image: PHOTO, aspectRatio: "4:3" }, { model: "wan-2.2-i2v-fast" })).toEqual([]);
  });

  test("is one that can load the trained model, of its family, when the caller names no other", () => {
    const dev = makeApp({ id: "dev", models: { generation: { default: "flux-dev" } } });
    const model = (family: Family | undefined, app = free, own?: string) =>
      fitted("generation", { trainedModel: UPLOAD }, { app, family, ...(own ? { model: own } : {}) }).model.alias;
    expect([model("flux"), model("flux", dev), model("sdxl"), model("sdxl", dev)]).toEqual([
      "flux-schnell-lora",
      "flux-dev-lora",
      "sdxl",
      "sdxl",
    ]);
    expect([model(undefined), model("flux", free, "flux-dev-lora")]).toEqual(["flux-schnell-lora", "flux-dev-lora"]);
    expect(fitted("generation", { trainedModel: UPLOAD }).trainedModel).toBe(UPLOAD);
  });
});

describe("what is beyond the plan", () => {
  const big = { width: 1_024, height: 640, steps: 4 };

  test("is made smaller with a warning where the app clamps, and priced as it is done", () => {
    const { input, clamps, price: cost } = fitted("generation", big, { app: clamping });
    expect(input).toMatchObject({ width: 768, height: 480, steps: 2 });
    expect(clamps).toEqual([
      {
        pointer: "/input/width",
        from: { width: 1_024, height: 640 },
        to: { width: 768, height: 480 },
        because: "the plan makes images of at most 768 pixels a side",
      },
      { pointer: "/input/steps", from: 4, to: 2, because: "the plan allows 2 steps" },
    ]);
    expect(cost.lines).toEqual([{ label: "image, 768×480, 1 MP", credits: 1 }]);
    const film = fitted("video", { seconds: 5 }, { app: clamping, model: "zeroscope-v2-xl" });
    expect(film.input).toMatchObject({ seconds: 3 });
    expect(film.clamps).toEqual([expect.objectContaining({ pointer: "/input/seconds", from: 5, to: 3 })]);
    const trained = fitted("training", { resolution: 1_024 }, { app: clamping });
    expect(trained.input).toMatchObject({ resolution: 512 });
    expect(trained.clamps).toEqual([expect.objectContaining({ pointer: "/input/resolution", from: 1_024, to: 512 })]);
    expect(trained.price.credits).toBe(6);
  });

  test("is refused with the field and what is allowed where the app refuses", () => {
    expect(problems("generation", big, { app: refusing })).toEqual([
      '/input/width is too much: the plan makes images of at most 768 pixels a side. Ask for {"width":768,"height":480} or less',
      "/input/steps is too much: the plan allows 2 steps. Ask for 2 or less",
    ]);
    expect(problems("generation", { size: "portrait" }, { app: refusing })).toEqual([
      expect.stringMatching(/^\/input\/size is too much: .* Ask for \{"width":520,"height":768\} or less$/),
    ]);
    expect(problems("video", { seconds: 4 }, { app: refusing })).toEqual([
      "/input/seconds is too much: the plan makes videos of at most 3 s. Ask for 3 or less",
    ]);
    expect(problems("training", { resolution: 1_024 }, { app: refusing })).toEqual([
      "/input/resolution is too much: the plan trains at 512 pixels at most. Ask for 512 or less",
    ]);
  });

  test("is no warning and no refusal when nobody asked for it", () => {
    for (const app of [clamping, refusing]) {
      const image = fitted("generation", {}, { app });
      expect(image).toMatchObject({ clamps: [], input: { width: 768, height: 768, steps: 2 } });
      expect(fitted("video", {}, { app })).toMatchObject({ clamps: [], input: { seconds: 3 } });
      expect(fitted("training", {}, { app })).toMatchObject({ clamps: [], input: { resolution: 512 } });
    }
  });

  test("is a training where the plan has none, or none so small", () => {
    const none = makeApp({ id: "none", overLimit: "clamp" }, { maxModels: 0 });
    expect(problems("training", {}, { app: none })).toEqual([expect.stringMatching(/^\/kind the user's plan has no/)]);
    const tiny = makeApp({ id: "tiny" }, { maxTrainingResolution: 256 });
    expect(problems("training", { resolution: 512 }, { app: tiny })).toEqual([
      expect.stringMatching(/^\/input\/resolution the plan trains at 256 pixels at most, the model .* at 512, 768/),
    ]);
  });

  test("is counted by the user, the kind and the address", () => {
    const app = makeApp(
      { id: "rated", addressRate: { max: 9, seconds: 60 } },
      { rates: { request: { max: 5, seconds: 10 }, video: { max: 1, seconds: 3_600 } } },
    );
    expect(fitted("video", {}, { app, address: "192.0.2.1" }).rates).toEqual([
      { subject: "user:ann", action: "request", max: 5, seconds: 10 },
      { subject: "user:ann", action: "video", max: 1, seconds: 3_600 },
      { subject: "address:192.0.2.1", action: "request", max: 9, seconds: 60 },
    ]);
    expect(fitted("edit", {}, { app }).rates).toHaveLength(1);
    expect(fitted("edit").rates).toEqual([]);
  });
});

describe("the fields of a request", () => {
  test.each<[KindName, Record<string, unknown>, string]>([
    ["generation", { images: 2, seeds: [1] }, "/input/seeds has 1 seeds for 2 variants: give one for each"],
    ["staging", { seeds: [1, 2, 3] }, "/input/seeds has 3 seeds for 2 variants: give one for each"],
    ["edit", { seed: 1, seeds: [2] }, "/input/seed give either seed or seeds"],
    ["video", { minSuccess: 2 }, "/input/minSuccess is more than the 1 variants that are asked for"],
    ["generation", { images: 3, minSuccess: 4 }, "/input/minSuccess is more than the 3 variants that are asked for"],
  ])("of %s fit together: %j", (kind, input, problem) => {
    expect(problems(kind, input)).toEqual([problem]);
  });

  test("say how few results still make a completed job, or else the app, or else the kind", () => {
    const strict = makeApp({ id: "strict", minSuccess: { generation: 3, staging: 9, edit: 2, video: 2 } });
    const least = (kind: KindName, input = {}, app = free) => fitted(kind, input, { app }).minSuccess;
    expect(KINDS.map((kind) => least(kind))).toEqual([1, 1, 2, 1, 1]);
    expect(least("generation", { images: 4 }, strict)).toBe(3);
    // Never more than there are.
    expect(KINDS.map((kind) => least(kind, {}, strict))).toEqual([1, 1, 2, 1, 1]);
    expect(least("generation", { images: 4, minSuccess: 1 }, strict)).toBe(1);
  });

  test("name a style of their own kind; another's is told whose it is, and what there is", () => {
    for (const { kind, id } of STYLES) expect(parseProblems(kind, { style: id })).toEqual([]);
    expect(parseProblems("staging", { style: "watercolour" })).toEqual([
      `/style watercolour is a style of generation, not of staging; one of: ${stylesOf("staging")
        .map(({ id }) => id)
        .join(", ")}`,
    ]);
    expect(parseProblems("edit", { style: "cinematic" })).toEqual([
      "/style cinematic is a style of generation and video, not of edit; one of: retouch, black_and_white, golden_hour",
    ]);
    expect(parseProblems("video", { style: "nope" })).toEqual([expect.stringMatching(/^\/style one of: cinematic/)]);
    expect(parseProblems("training", { style: "photo" })).toEqual([expect.stringMatching(/style/)]);
  });

  test("of a generation give a size, or both sides, not all three", () => {
    expect(parseProblems("generation", { width: 512 })).toEqual(["/height give height too, or use size"]);
    expect(parseProblems("generation", { height: 512 })).toEqual(["/width give width too, or use size"]);
    expect(parseProblems("generation", { size: "square", width: 512, height: 512 })).toEqual([
      "/size give either size, or width and height",
    ]);
  });

  test("of a training are 4 to 40 photos, each once", () => {
    expect(parseProblems("training", { photos: PHOTOS.slice(1) })).toEqual(["/photos at least 4 photos are needed"]);
    const many = Array.from({ length: 41 }, (_, n) => `https://photos.example.test/${n}.jpg`);
    expect(parseProblems("training", { photos: many })).toEqual(["/photos at most 40 photos are taken"]);
    expect(parseProblems("training", { photos: [...PHOTOS, PHOTOS[1]] })).toEqual([
      "/photos/4 is the same as photo 2: each photo counts once",
    ]);
    expect(Object.keys(fitted("training").files)).toEqual(["photos/0", "photos/1", "photos/2", "photos/3"]);
  });

  test("name files by address or by upload", () => {
    const { files } = fitted("edit", { image: UPLOAD.toUpperCase(), mask: PHOTO }, { model: "flux-fill-pro" });
    expect(files).toEqual({ image: { assetId: UPLOAD }, mask: { url: PHOTO } });
  });

  test("that nobody knows are refused", () => {
    for (const kind of KINDS) expect(parseProblems(kind, { colour: "red" })).toHaveLength(1);
  });
});

describe("the safety checker", () => {
  const app = (safety: App["safety"]) => makeApp({ id: safety, safety });
  const shown = KINDS.filter((kind) => kind !== "training");

  test("is as the app says, and as the request says only where the app leaves it to callers", () => {
    for (const kind of shown) {
      expect(fitted(kind, {}, { app: app("request") }).input).toMatchObject({ safety: true });
      expect(fitted(kind, { safety: false }, { app: app("request") }).input).toMatchObject({ safety: false });
      expect(fitted(kind, { safety: true }, { app: app("off") }).input).toMatchObject({ safety: false });
      expect(fitted(kind, { safety: true }, { app: app("on") }).input).toMatchObject({ safety: true });
      expect(problems(kind, { safety: false }, { app: app("on") })).toEqual([
        "/input/safety the app on keeps the safety checker on: leave it out",
      ]);
    }
    expect(fitted("training", {}, { app: app("off") }).input).not.toHaveProperty("safety");
  });

  test("reaches the models that have one", () => {
    const disabled = (alias: string, safety: boolean) =>
      inputOf(model(alias), { safety })["disable_safety_checker"] ?? null;
    for (const alias of ["flux-schnell", "sdxl", "wan-2.2-i2v-fast"])
      expect([disabled(alias, true), disabled(alias, false)]).toEqual([null, true]);
    const tolerance = (alias: string, safety: boolean) => inputOf(model(alias), { safety })["safety_tolerance"];
    expect([tolerance("flux-fill-pro", true), tolerance("flux-fill-pro", false)]).toEqual([2, 6]);
    expect([tolerance("flux-kontext-pro", true), tolerance("flux-kontext-pro", false)]).toEqual([2, 2]);
  });
});

describe("an experiment", () => {
  const arms = [
    { name: "plain", weight: 3 },
    { name: "warm", weight: 1, promptSuffix: "in warm light", set: { steps: 2 } },
    { name: "finer", weight: 1, model: "flux-dev" },
    { name: "never", weight: 0 },
  ] as const;
  const app = makeApp({ id: "trying", experiments: { light: { kind: "generation", arms } } });
  const armFor = (user: string) => fitted("generation", {}, { app, user, experiment: "light" });

  test("gives each user one arm and keeps to it, over many users by weight", () => {
    const users = Array.from({ length: 10_000 }, (_, n) => `user-${n}`);
    const counted: Record<string, number> = {};
    for (const user of users) {
      const { name } = armOf(arms, `light\n${user}`);
      counted[name] = (counted[name] ?? 0) + 1;
    }
    const again = users.map((user) => armOf(arms, `light\n${user}`).name);
    expect(again.filter((name) => name === "plain")).toHaveLength(counted["plain"] ?? 0);
    expect(counted["never"]).toBeUndefined();
    for (const [name, share] of [
      ["plain", 0.6],
      ["warm", 0.2],
      ["finer", 0.2],
    ] as const)
      expect(Math.abs((counted[name] ?? 0) / 10_000 - share)).toBeLessThan(0.02);
    // Another experiment shuffles anew: who is in one arm here is not in the same one everywhere.
    const moved = users.filter((user) => armOf(arms, `light\n${user}`) !== armOf(arms, `dark\n${user}`));
    expect(moved.length).toBeGreaterThan(4_000);
  });

  test("changes what its arm says, and is noted on the job", () => {
    const users = Array.from({ length: 100 }, (_, n) => armFor(`user-${n}`));
    for (const { arm, input, model: own, experiment } of users) {
      expect(experiment).toBe("light");
      expect(own.alias).toBe(arm === "finer" ? "flux-dev" : "flux-schnell");
      expect(input).toMatchObject(
        arm === "warm"
          ? { prompt: "a fox", promptSuffix: "in warm light", steps: 2 }
          : { prompt: "a fox", steps: arm === "finer" ? 28 : 4 },
      );
      // The user reads what he wrote; the model is given both.
      expect(asSeen(input)).not.toHaveProperty("promptSuffix");
      expect(asOrdered(input)).toMatchObject({ prompt: arm === "warm" ? "a fox in warm light" : "a fox" });
    }
    expect(new Set(users.map(({ arm }) => arm))).toEqual(new Set(["plain", "warm", "finer"]));
    expect(fitted("generation", {}, { app })).toMatchObject({ experiment: null, arm: null });
  });

  test("that is none, or of another kind, is refused with those there are", () => {
    expect(problems("generation", {}, { app, experiment: "dark" })).toEqual([
      "/experiment is none for generation; there are: light",
    ]);
    expect(problems("video", {}, { app, experiment: "light" })).toEqual([
      "/experiment is none for video; there are: none",
    ]);
  });

  test("whose arm does not fit the input is refused before anything is charged", () => {
    const odd = [{ name: "odd", weight: 1, set: { images: 9 } }] as const;
    const broken = makeApp({ id: "broken", experiments: { odd: { kind: "generation", arms: odd } } });
    expect(problems("generation", {}, { app: broken, experiment: "odd" })).toEqual([
      expect.stringMatching(/^\/experiment arm odd does not fit this input: /),
    ]);
  });
});

const model = (alias: string): Model => {
  const found = CATALOGUE.find((each) => each.alias === alias);
  if (!found) throw new Error(`${alias} left the catalogue`);
  return found;
};
const VARIANT: VariantOrder = {
  variant: 0,
  seed: 7,
  fileUrls: { image: PHOTO, mask: PHOTO, archive: PHOTO },
  trained: null,
  safety: true,
};
/** What the provider is sent for the least input that the model takes. */
function inputOf(own: Model, order: Partial<VariantOrder> = {}, input: Record<string, unknown> = {}) {
  const kind = own.kinds[0] ?? "generation";
  const needs =
    own.limits.mask === "required" ? { mask: PHOTO } : own.limits.image === "required" ? { image: PHOTO } : {};
  const done = fitted(kind, { ...needs, ...input }, { model: own.alias }).input;
  return own.routes[0].input(kindOf(kind).ask(done, own, { ...VARIANT, ...order }));
}

describe("what a provider is sent", () => {
  test.each(CATALOGUE.map((own) => [own.alias, own] as const))("for %s holds nothing undefined", (_, own) => {
    fc.assert(
      fc.property(
        fc.constantFrom(...own.kinds).chain((kind) => fc.tuple(fc.constant(kind), INPUTS[kind])),
        fc.record({ safety: fc.boolean(), fileUrls: fc.constantFrom({ archive: PHOTO }, VARIANT.fileUrls) }),
        ([kind, input], order) => {
          const fitting = wish(kind, input, { model: own.alias });
          if (!fitting.ok) return;
          const ask = kindOf(kind).ask(fitting.fitted.input, own, { ...VARIANT, ...order });
          const sent = own.routes[0].input(ask);
          expect(JSON.parse(JSON.stringify(sent))).toStrictEqual(sent);
          expect(own.routes[0].input(ask)).toEqual(sent);
        },
      ),
    );
  });

  test("names the seed by which a lost order is found again, or is a training", () => {
    for (const own of CATALOGUE)
      expect(inputOf(own)["seed"] ?? own.limits.trains).toBe(own.limits.trains === "flux" ? "flux" : 7);
  });

  test("has the trained model's weights and its trigger word, once", () => {
    const trained = { weights: "https://w.example.test/x.safetensors", triggerWord: "TOK" };
    const sent = inputOf(model("flux-dev-lora"), { trained }, { style: "studio", loraScale: 0.8 });
    expect(sent).toMatchObject({ lora_weights: trained.weights, lora_scale: 0.8 });
    expect(sent["prompt"]).toMatch(/^TOK, a fox, a studio portrait/);
    expect(inputOf(model("sdxl"), { trained }, { prompt: "TOK as a king" })).toMatchObject({
      prompt: "TOK as a king",
      replicate_weights: trained.weights,
    });
  });

  test("is the model's aspect ratio that is nearest to the wanted dimensions", () => {
    const nearest = (width: number, height: number) => nearestAspectRatio(width, height, FLUX_RATIOS);
    expect([
      nearest(1_024, 1_024),
      nearest(1_216, 832),
      nearest(832, 1_216),
      nearest(1_440, 810),
      nearest(1_440, 256),
      nearest(256, 1_440),
    ]).toEqual(["1:1", "3:2", "2:3", "16:9", "21:9", "9:21"]);
  });

  test("is a quarter of a megapixel only when that is all that was asked for", () => {
    const megapixels = (width: number, height: number) =>
      inputOf(model("flux-schnell"), {}, { width, height })["megapixels"];
    expect([megapixels(512, 512), megapixels(513, 512), megapixels(1_024, 1_024)]).toEqual(["0.25", "1", "1"]);
  });

  test("is as long a film as was asked for", () => {
    expect(inputOf(model("seedance-1-lite"), {}, { seconds: 12 })).toMatchObject({ duration: 12 });
    expect(inputOf(model("zeroscope-v2-xl"), {}, { seconds: 15 })).toMatchObject({ num_frames: 360, fps: 24 });
    expect(inputOf(model("wan-2.2-i2v-fast"), {}, { seconds: 5 })).toMatchObject({ num_frames: 81 });
    expect(inputOf(model("wan-2.2-i2v-fast"), {}, { seconds: 7 })).toMatchObject({ num_frames: 113 });
  });

  test("is the training as it was asked for, in the trainer's own words", () => {
    const own = { steps: 2_000, resolution: 768, triggerWord: "ZED", task: "style" };
    expect(inputOf(model("flux-lora-trainer"), {}, own)).toEqual({
      input_images: PHOTO,
      trigger_word: "ZED",
      steps: 2_000,
      resolution: "512,768",
      autocaption: false,
    });
    expect(inputOf(model("sdxl-lora-trainer"), {}, { ...own, task: "face" })).toMatchObject({
      token_string: "ZED",
      caption_prefix: "a photo of ZED, ",
      max_train_steps: 2_000,
      resolution: 768,
      use_face_detection_instead: true,
    });
  });
});

/** Requests as callers send them; not every one fits every model and plan. */
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined, freq: 2 });
/** What most models, or most requests of one result, do not take. */
const rare = <T>(value: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: value });
const seeded = {
  seed: optional(fc.nat(100)),
  safety: optional(fc.boolean()),
  minSuccess: rare(fc.integer({ min: 1, max: 4 })),
};
const side = fc.integer({ min: 256, max: 1_440 });
const INPUTS: Record<KindName, fc.Arbitrary<Record<string, unknown>>> = {
  training: fc.record({
    steps: optional(fc.integer({ min: 100, max: 6_000 })),
    resolution: optional(fc.constantFrom(512, 768, 1_024, 1_536)),
    task: optional(fc.constantFrom("face", "object", "style")),
  }),
  generation: fc
    .tuple(
      fc.oneof(
        fc.record({ size: optional(fc.constantFrom("square", "portrait", "landscape")) }),
        fc.record({ width: side, height: side }),
      ),
      fc.record({
        ...seeded,
        prompt: fc.constantFrom("a fox", "TOK as a king"),
        negativePrompt: optional(fc.constant("blurred")),
        style: optional(fc.constantFrom(...stylesOf("generation").map(({ id }) => id))),
        images: fc.integer({ min: 1, max: 4 }),
        steps: optional(fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 100 }))),
        guidance: optional(fc.integer({ min: 0, max: 20 })),
        image: rare(fc.constantFrom(PHOTO, UPLOAD)),
        trainedModel: rare(fc.constant(UPLOAD)),
        format: rare(fc.constantFrom("webp", "jpg", "png")),
        goFast: fc.boolean(),
      }),
    )
    .map(([dimensions, rest]) => ({ ...dimensions, ...rest })),
  staging: fc.record({
    ...seeded,
    mode: optional(fc.constantFrom("furnish", "empty", "declutter")),
    style: optional(fc.constantFrom(...stylesOf("staging").map(({ id }) => id))),
  }),
  edit: fc.record({
    ...seeded,
    mask: optional(fc.constant(PHOTO)),
    variants: fc.integer({ min: 1, max: 4 }),
    style: optional(fc.constantFrom(...stylesOf("edit").map(({ id }) => id))),
  }),
  video: fc.record({
    ...seeded,
    image: optional(fc.constant(PHOTO)),
    seconds: optional(fc.integer({ min: 1, max: 16 })),
    aspectRatio: optional(fc.constantFrom("16:9", "9:16", "1:1", "4:3", "3:4")),
    variants: fc.integer({ min: 1, max: 4 }),
  }),
};

describe("what has been made to fit", () => {
  const plans: Partial<Plan>[] = [
    {},
    small,
    { maxSide: 1_000, maxSteps: 20, maxSeconds: 10 },
    { maxSide: 256, maxSteps: 1 },
  ];
  const settings = fc.record({
    plan: fc.constantFrom(...plans),
    safety: fc.constantFrom<App["safety"][]>("on", "off", "request"),
    overLimit: fc.constantFrom<App["overLimit"][]>("clamp", "refuse"),
    minSuccess: fc.constantFrom<App["minSuccess"][]>({}, { generation: 3, staging: 1, edit: 2, video: 4 }),
  });

  test.each(KINDS)("fits again, and is the same: %s", (kind) => {
    let fits = 0;
    const wishes = fc.record({
      input: INPUTS[kind],
      model: fc.constantFrom(...modelsOf(kind).map(({ alias }) => alias)),
    });
    fc.assert(
      fc.property(settings, wishes, ({ plan, ...over }, { input, model: alias }) => {
        const app = makeApp({ id: "any", ...over }, plan);
        const once = wish(kind, input, { app, model: alias });
        if (!once.ok) return;
        fits++;
        // As it comes back from the database, or from a caller who sends again what the job says.
        const stored = JSON.parse(JSON.stringify(once.fitted.input));
        expect(kindOf(kind).input.parse(stored)).toEqual(stored);
        const again = wish(kind, stored, { app, model: alias });
        expect(again).toEqual({ ok: true, fitted: { ...once.fitted, clamps: [] } });
      }),
      { numRuns: 500 },
    );
    expect(fits).toBeGreaterThan(50);
  });

  test("is within the plan, whatever was asked for", () => {
    fc.assert(
      fc.property(settings, INPUTS.generation, INPUTS.video, ({ plan, ...over }, image, film) => {
        const app = makeApp({ id: "any", ...over }, plan);
        const { maxSide, maxSteps, maxSeconds } = { ...UNLIMITED, ...plan };
        const first = wish("generation", image, { app, model: "sdxl" });
        if (first.ok) {
          const { width, height, steps } = first.fitted.input as Record<"width" | "height" | "steps", number>;
          expect(Math.max(width, height)).toBeLessThanOrEqual(maxSide);
          expect(steps).toBeLessThanOrEqual(maxSteps ?? 100);
        }
        const second = wish("video", film, { app, model: "zeroscope-v2-xl" });
        if (second.ok) expect((second.fitted.input as { seconds: number }).seconds).toBeLessThanOrEqual(maxSeconds);
      }),
    );
  });
});

describe("the catalogue", () => {
  test("has a default model of every kind, and no alias twice", () => {
    for (const name of KINDS) expect(findModel(name, kindOf(name).defaultModel)).toBeDefined();
    expect(new Set(CATALOGUE.map(({ alias }) => alias)).size).toBe(CATALOGUE.length);
    expect(new Set(apps.map(({ id }) => id)).size).toBe(apps.length);
    // Trained models of each family that is trained can be used, and no others are asked for.
    const families = (of: (each: Model) => Family | undefined) => new Set(CATALOGUE.flatMap((each) => of(each) ?? []));
    expect(families(({ limits }) => limits.trains)).toEqual(families(({ limits }) => limits.lora));
  });

  test("knows what a run cost by the day it ended", () => {
    const route = (per: "output" | "second" | "film_second"): Route => ({
      api: "x",
      model: "a/b",
      input: () => ({}),
      costs: [
        { from: "2026-11-01", per, microUsd: 100 },
        { from: "2027-02-01", per, microUsd: 50 },
      ],
    });
    const used = { outputs: 3, seconds: 2.5, filmSeconds: 7 };
    const cost = (per: "output" | "second" | "film_second", day: string, more = used) =>
      costOf(route(per), new Date(day), more);
    expect([cost("output", "2026-12-01"), cost("second", "2026-12-01"), cost("film_second", "2026-12-01")]).toEqual([
      300, 250, 700,
    ]);
    expect([cost("output", "2027-01-31T23:59:59Z"), cost("output", "2027-02-01T00:00:00Z")]).toEqual([300, 150]);
    // Before the first row counts the oldest; what the provider did not tell counts as none.
    expect(cost("output", "2020-01-01")).toBe(300);
    expect(costOf(route("second"), new Date("2026-12-01"), { ...used, seconds: null })).toBe(0);
  });
});

test("whoever sends a mask and names no model means one that takes it", () => {
  const wish = {
    kind: "edit",
    user: "ann",
    input: kindOf("edit").input.parse({ image: PHOTO, mask: PHOTO, instruction: "x" }),
  } as const;
  expect(fitWish(makeApp({ id: "free" }), null, wish)).toMatchObject({
    ok: true,
    fitted: { model: { alias: "flux-fill-pro" } },
  });
});

test("without webhooks a run is looked at after 1 s, growing to 5 s or a sixtieth of its time; with them at p95, doubling", () => {
  const schnell = findModel("generation", "flux-schnell") ?? null;
  const looks = (webhooks: boolean, own: Model | null) => [0, 1, 2, 3, 4, 10].map((n) => lookDelayMs(n, webhooks, own));
  expect(looks(false, schnell)).toEqual([1_000, 1_500, 2_250, 3_375, 5_000, 5_000]);
  expect(looks(false, model("flux-lora-trainer")).at(-1)).toBe(25_000);
  expect(looks(true, schnell)).toEqual([15_000, 30_000, 60_000, 60_000, 60_000, 60_000]);
  // An output is kept for an hour: whoever looks once an hour comes too late.
  expect(looks(true, model("flux-lora-trainer")).at(-1)).toBe(600_000);
});
