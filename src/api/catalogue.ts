import { z } from "zod";
import { type App, kindsOf, planOf, routingOf } from "../domain/app.ts";
import { type Model, modelsOf } from "../domain/catalogue.ts";
import { kindOf } from "../domain/kinds/all.ts";
import { KINDS, type KindName } from "../domain/kinds/kind.ts";
import { fitWish } from "../domain/request.ts";
import { type Choices, type Circumstances, choose, whyOf } from "../domain/routing.ts";
import { stylesOf } from "../domain/styles.ts";
import type { ApiServices, Routes } from "./app.ts";
import { statesOf } from "./catalogue-state.ts";
import { appOf } from "./ordering.ts";
import { problemSchema } from "./problem.ts";

const kind = z.enum(KINDS);
const time = z.iso.datetime();

const modelSchema = z
  .object({
    alias: z.string().describe("What submissions name as `model`."),
    title: z.string(),
    kinds: z.array(kind),
    defaultFor: z.array(kind).describe("Taken when a submission names none."),
    limits: z.record(z.string(), z.unknown()).describe("What it takes; what is not named it does not have."),
    credits: z
      .array(z.object({ kind, about: z.string(), credits: z.int() }))
      .describe("Worked examples by the app's current price book, on the default plan."),
    expectedSeconds: z
      .object({
        p50: z.number(),
        p95: z.number(),
        samples: z.int().describe("Runs of the last 7 days that it was learned from; 0: what the catalogue says."),
      })
      .describe("How long a run takes at the provider."),
    status: z.enum(["ok", "gone"]).describe("gone: no provider has it any more, and submissions are refused."),
    routes: z.array(
      z.object({
        provider: z.string(),
        name: z.string(),
        status: z.enum(["ok", "gone"]),
        trouble: z
          .string()
          .nullable()
          .describe("What keeps the account from taking orders now; behind its name, a sentence."),
        costUsd: z
          .number()
          .nullable()
          .describe("What the provider is expected to take for one output, on average; null: it cannot be asked now."),
        version: z.string().nullable().describe("The one that runs use now; null where the name alone is enough."),
        checkedAt: time.nullable().describe("Null: not asked for yet."),
      }),
    ),
    chosen: z
      .object({ provider: z.string(), why: z.string() })
      .nullable()
      .describe(
        "Whom an order of now would go to, on the app's default plan and from words alone where the model takes words, and why; null: nobody can serve it. Weights decide anew for each run.",
      ),
  })
  .meta({ id: "Model" });

const planSchema = z.object({
  name: z.string(),
  isDefault: z.boolean(),
  dailyAllowance: z.int(),
  maxSide: z.int(),
  maxSteps: z.int().nullable(),
  maxSeconds: z.number(),
  maxModels: z.int(),
  maxTrainingResolution: z.int(),
  rates: z.array(z.object({ action: z.string(), max: z.int(), seconds: z.int() })),
});

/** What an app has on offer: models, styles, prices. */
export const catalogueRoutes: Routes = (app, services) => {
  const { authenticate } = services;
  const tags = ["catalogue"];

  app.route({
    method: "GET",
    url: "/api/models",
    schema: {
      tags,
      summary: "The models that the app may name",
      querystring: z.strictObject({ kind: kind.optional() }),
      response: { 200: z.object({ models: z.array(modelSchema) }), 401: problemSchema, 422: problemSchema },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      return { models: await modelsFor(services, appOf(services, appId), request.query.kind) };
    },
  });

  app.route({
    method: "GET",
    url: "/api/styles",
    schema: {
      tags,
      summary: "The presets that an end user may pick",
      querystring: z.strictObject({ kind: kind.optional() }),
      response: {
        200: z.object({ styles: z.array(z.object({ id: z.string(), kind, title: z.string() })) }),
        401: problemSchema,
        422: problemSchema,
      },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      const kinds = kindsOf(appOf(services, appId));
      const wanted = kinds.filter((each) => (request.query.kind ?? each) === each);
      return { styles: wanted.flatMap((each) => stylesOf(each).map(({ id, title }) => ({ id, kind: each, title }))) };
    },
  });

  app.route({
    method: "GET",
    url: "/api/prices",
    schema: {
      tags: ["prices"],
      summary: "The app's price book and plans",
      response: {
        200: z.object({
          book: z.object({
            version: z.string(),
            rules: z
              .array(z.object({ kind, per: z.string() }).catchall(z.unknown()))
              .describe("How each kind is priced, in the app's credits; results are rounded up."),
            examples: z.array(
              z.object({
                about: z.string(),
                kind,
                model: z.string().nullable(),
                plan: z.string().nullable(),
                input: z.record(z.string(), z.unknown()),
                credits: z.int(),
              }),
            ),
          }),
          earlier: z.array(z.string()).describe("Versions that older jobs were priced with."),
          plans: z.array(planSchema),
        }),
        401: problemSchema,
      },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      const owner = appOf(services, appId);
      const [book, ...earlier] = owner.prices;
      return {
        book: {
          version: book.version,
          rules: kindsOf(owner).flatMap((each) => {
            const rule = book.rules[each];
            return rule ? [{ kind: each, ...rule }] : [];
          }),
          examples: book.examples.map(({ about, kind: of, model, plan, input, credits }) => ({
            about,
            kind: of,
            model: model ?? null,
            plan: plan ?? null,
            input,
            credits,
          })),
        },
        earlier: earlier.map(({ version }) => version),
        plans: Object.entries(owner.plans).map(([name, { rates, ...limits }]) => ({
          name,
          isDefault: name === owner.defaultPlan,
          ...limits,
          rates: Object.entries(rates).map(([action, { max, seconds }]) => ({ action, max, seconds })),
        })),
      };
    },
  });
};

async function modelsFor(
  services: ApiServices,
  app: App,
  only: KindName | undefined,
): Promise<z.input<typeof modelSchema>[]> {
  const states = await services.catalogue.states();
  const { providers } = services;
  const circumstances = { providers, routes: states, states: await services.catalogue.accounts(), now: new Date() };
  const offered = kindsOf(app).filter((each) => (only ?? each) === each);
  const models = new Set(
    offered.flatMap((each) => modelsOf(each).filter(({ alias }) => app.models[each]?.allowed?.includes(alias) ?? true)),
  );
  return [...models].map((model) => {
    const kinds = offered.filter((each) => isOnOffer(app, each, model));
    const routes = statesOf(model, services.providers, states);
    // Of several providers, the one that would be asked.
    const choices = choicesNow(services, app, model, kinds, circumstances);
    const [first] = choices.line;
    const isFirst = (route: (typeof routes)[number]) =>
      route.provider === first?.provider.name && route.name === first.route.model;
    const learned = (
      routes.find((route) => isFirst(route) && route.state?.p50 != null) ??
      routes.find(({ state }) => state?.p50 != null)
    )?.state;
    return {
      alias: model.alias,
      title: model.title,
      kinds,
      defaultFor: kinds.filter((each) => (app.models[each]?.default ?? kindOf(each).defaultModel) === model.alias),
      limits: { ...model.limits },
      credits: kinds.flatMap((each) => creditsOf(app, each, model)),
      expectedSeconds: {
        p50: tenths(learned?.p50 ?? model.expectedSeconds.p50),
        p95: tenths(learned?.p95 ?? model.expectedSeconds.p95),
        samples: learned?.samples ?? 0,
      },
      status: routes.every(({ state }) => state?.status === "gone") ? "gone" : "ok",
      routes: routes.map(({ provider, name, state }) => ({
        provider,
        name,
        status: state?.status ?? "ok",
        ...judgedOf(choices, provider, name),
        version: state?.version ?? null,
        checkedAt: state?.checkedAt?.toISOString() ?? null,
      })),
      chosen: first ? { provider: first.provider.name, why: whyOf(choices, first) } : null,
    };
  });
}

/** As a usual order of now would find it; what is known of an account may be 2 s old, of a model 10 s. */
function choicesNow(
  { preference, jobDeadlineSeconds }: ApiServices,
  app: App,
  model: Model,
  kinds: readonly KindName[],
  circumstances: Circumstances,
): Choices {
  const [kind] = kinds;
  if (!kind) return { line: [], gone: [], barred: [] };
  const seconds = app.deadlineSeconds[kind] ?? (model.limits.trains ? 2 * model.timeoutSeconds : jobDeadlineSeconds);
  return choose(circumstances, {
    kind,
    alias: model.alias,
    routing: routingOf(app, null, kind, model.alias) ?? preference[kind],
    runId: crypto.randomUUID(),
    deadlineAt: new Date(circumstances.now.getTime() + seconds * 1_000),
    hasImage: model.limits.image === "required",
    isTrained: false,
    isSafe: app.safety !== "off",
    filmSeconds: Math.min(5, model.limits.seconds?.max ?? 0),
  });
}

function judgedOf(
  { line, gone }: Choices,
  provider: string,
  name: string,
): { trouble: string | null; costUsd: number | null } {
  const choice = [...line, ...gone].find((each) => each.provider.name === provider && each.route.model === name);
  return { trouble: choice?.trouble ?? null, costUsd: choice ? choice.microUsd / 1_000_000 : null };
}

const isOnOffer = (app: App, each: KindName, model: Model) =>
  model.kinds.includes(each) && (app.models[each]?.allowed?.includes(model.alias) ?? true);

const PICTURE = "https://images.example/picture.jpg";

/** The least that can be asked of the model. */
function creditsOf(app: App, each: KindName, model: Model): { kind: KindName; about: string; credits: number }[] {
  const { image, mask, seconds } = model.limits;
  const files = {
    ...(image === "required" ? { image: PICTURE } : {}),
    ...(mask === "required" ? { mask: PICTURE } : {}),
  };
  const length = Math.max(seconds?.min ?? 5, Math.min(5, seconds?.max ?? 5, planOf(app, null).plan.maxSeconds));
  const samples: Record<KindName, { about: string; input: Record<string, unknown> }> = {
    generation: { about: "one image, 1024 × 1024", input: { prompt: "a fox", ...files } },
    staging: { about: "one room", input: { image: PICTURE } },
    edit: { about: "one edited image", input: { instruction: "add snow", image: PICTURE, ...files } },
    video: { about: `one video of ${length} s`, input: { prompt: "a fox runs", seconds: length, ...files } },
    training: {
      about: "a training with the default steps",
      input: { photos: [1, 2, 3, 4].map((number) => `${PICTURE}?${number}`) },
    },
  };
  const { about, input } = samples[each];
  const parsed = kindOf(each).input.safeParse(input);
  if (!parsed.success) return [];
  const fitting = fitWish(app, null, { kind: each, user: "anybody", model: model.alias, input: parsed.data });
  return fitting.ok ? [{ kind: each, about, credits: fitting.fitted.price.credits }] : [];
}

const tenths = (value: number) => Math.round(value * 10) / 10;
