import { type App, kindsOf, type Plan, type Rate } from "./app.ts";
import { CATALOGUE, findModel, type Model, modelsOf } from "./catalogue.ts";
import { kindOf } from "./kinds/all.ts";
import { KINDS, type KindName } from "./kinds/kind.ts";
import type { PriceBook, PriceExample, PriceRule } from "./pricing.ts";
import { fitWish } from "./request.ts";
import type { Routing } from "./routing.ts";

/**
 * What contradicts itself in the apps' files, each as a sentence that names app and place; empty when all is well. Found
 * when the program starts, so that no user meets it.
 */
export function appsProblems(apps: readonly App[]): string[] {
  const problems = apps.flatMap((app) => appProblems(app).map((problem) => `app ${app.id}: ${problem}`));
  for (const [what, of] of [
    ["id", (app: App) => app.id],
    ["storagePrefix", (app: App) => app.storagePrefix],
  ] as const)
    for (const twice of doubles(apps.map(of))) problems.push(`two apps have the ${what} "${twice}"`);
  return problems;
}

export function appProblems(app: App): string[] {
  const problems: string[] = [];
  const say = (problem: string) => void problems.push(problem);
  checkNames(app, say);
  for (const [name, plan] of Object.entries(app.plans)) checkPlan(app, name, plan, say);
  if (app.addressRate) checkRate("addressRate", app.addressRate, say);
  checkBooks(app, say);
  const offered = kindsOf(app).filter((kind) => KINDS.includes(kind));
  if (offered.length === 0) say("its newest price book prices nothing, so it offers nothing");
  for (const kind of offered) checkKind(app, kind, say);
  for (const field of ["models", "minSuccess", "deadlineSeconds"] as const)
    for (const kind of Object.keys(app[field]))
      if (!offered.includes(kind as KindName))
        say(`${field} names ${kind}, which the newest price book does not price`);
  for (const [kind, least] of Object.entries(app.minSuccess)) checkWhole(`minSuccess of ${kind}`, least, 1, say);
  for (const [kind, seconds] of Object.entries(app.deadlineSeconds)) checkDeadline(app, kind as KindName, seconds, say);
  checkRoutings(app, "", app, say);
  for (const [name, plan] of Object.entries(app.plans)) checkRoutings(app, `plan ${name}: `, plan, say);
  checkExperiments(app, say);
  // What is wrong above makes examples fail in ways that say less.
  if (problems.length === 0) for (const book of app.prices) checkExamples(app, book, say);
  return problems;
}

type Say = (problem: string) => void;

/** What is out at the deadline is stopped, and has cost us money by then: the usual must be done. */
function checkDeadline(app: App, kind: KindName, seconds: number, say: Say): void {
  checkWhole(`deadlineSeconds of ${kind}`, seconds, 1, say);
  const model = findModel(kind, app.models[kind]?.default ?? kindOf(kind).defaultModel);
  const least = model ? (model.limits.trains ? model.timeoutSeconds : model.expectedSeconds.p95) : 0;
  if (seconds < least) say(`deadlineSeconds of ${kind} is ${seconds}, and ${model?.alias} may need ${least} s`);
}

function checkNames(app: App, say: Say): void {
  if (!/^[a-z0-9][a-z0-9-]{0,39}$/.test(app.id)) say("its id is not 1 to 40 lower-case letters, digits and hyphens");
  if (!/^[a-z0-9][a-z0-9-]*(\/[a-z0-9][a-z0-9-]*)*$/.test(app.storagePrefix))
    say(`storagePrefix "${app.storagePrefix}" is not made of lower-case letters, digits and hyphens, parted by /`);
  if (!(app.defaultPlan in app.plans))
    say(`defaultPlan "${app.defaultPlan}" is none of its plans: ${Object.keys(app.plans).join(", ") || "it has none"}`);
  checkWhole("signupGrant", app.signupGrant, 0, say);
  if (app.creditMicroUsd !== undefined) checkWhole("creditMicroUsd", app.creditMicroUsd, 1, say);
  if (app.callbackUrl !== null && !(/^https?:\/\//.test(app.callbackUrl) && URL.canParse(app.callbackUrl)))
    say(`callbackUrl "${app.callbackUrl}" is no http or https address`);
}

function checkPlan(app: App, name: string, plan: Plan, say: Say): void {
  const place = `plan ${name}`;
  if (name.length < 1 || name.length > 40) say(`${place}: its name is not 1 to 40 characters long`);
  for (const field of ["dailyAllowance", "maxModels", "maxTrainingResolution", "maxSeconds"] as const)
    checkWhole(`${place}: ${field}`, plan[field], 0, say);
  // The smallest that a generation can be.
  checkWhole(`${place}: maxSide`, plan.maxSide, 256, say);
  if (plan.maxSteps !== null) checkWhole(`${place}: maxSteps`, plan.maxSteps, 1, say);
  for (const [action, rate] of Object.entries(plan.rates)) {
    checkRate(`${place}: rate of ${action}`, rate, say);
    if (action !== "request" && !(action in app.prices[0].rules))
      say(`${place}: has a rate of ${action}, which the newest price book does not price`);
  }
}

function checkRate(place: string, rate: Rate, say: Say): void {
  checkWhole(`${place}: max`, rate.max, 1, say);
  checkWhole(`${place}: seconds`, rate.seconds, 1, say);
  if (rate.seconds > 2_592_000) say(`${place}: ${rate.seconds} s is more than the 2,592,000 of 30 days`);
}

function checkWhole(place: string, value: number, least: number, say: Say): void {
  if (!Number.isSafeInteger(value) || value < least) say(`${place} is ${value}, not a whole number from ${least} on`);
}

/** How a kind can be priced; every kind can be by the variant. */
const RULE_OF: Partial<Record<PriceRule["per"], KindName>> = {
  megapixel: "generation",
  length: "video",
  training: "training",
};

function checkBooks(app: App, say: Say): void {
  for (const twice of doubles(app.prices.map(({ version }) => version)))
    say(`two price books have the version ${twice}`);
  for (const { version, rules } of app.prices)
    for (const [kind, rule] of Object.entries(rules)) {
      const place = `price book ${version}, ${kind}`;
      if (!KINDS.includes(kind as KindName)) say(`${place}: is no kind; there are ${KINDS.join(", ")}`);
      const only = RULE_OF[rule.per];
      if (only && only !== kind) say(`${place}: is priced per ${rule.per}, which only ${only} can be`);
      for (const [what, credits] of amountsOf(rule))
        if (!Number.isFinite(credits) || credits < 0) say(`${place}: ${what} is ${credits}, not a number from 0 on`);
      if (rule.per === "megapixel" && rule.extraSteps)
        checkWhole(`${place}: extraSteps.each`, rule.extraSteps.each, 1, say);
      if (tableOf(rule)?.length === 0) say(`${place}: its table is empty`);
    }
}

function amountsOf(rule: PriceRule): [what: string, credits: number][] {
  switch (rule.per) {
    case "variant":
      return [["credits", rule.credits]];
    case "megapixel":
      return [
        ["credits", rule.credits],
        ["extraSteps.credits", rule.extraSteps?.credits ?? 0],
      ];
    case "length":
      return Object.entries(rule.credits).map(([seconds, credits]) => [`the price of ${seconds} s`, credits]);
    case "training":
      return [
        ["base", rule.base],
        ...Object.entries(rule.perThousandSteps).map(([side, credits]): [string, number] => [
          `the price at ${side} pixels`,
          credits,
        ]),
      ];
  }
}

/** The keys of a rule that looks its price up; null for the others. */
function tableOf(rule: PriceRule): number[] | null {
  if (rule.per === "length") return Object.keys(rule.credits).map(Number);
  if (rule.per === "training") return Object.keys(rule.perThousandSteps).map(Number);
  return null;
}

function checkKind(app: App, kind: KindName, say: Say): void {
  const choice = app.models[kind];
  for (const alias of choice?.allowed ?? [])
    if (!findModel(kind, alias)) say(`models of ${kind}: ${alias} is none; there are ${aliases(modelsOf(kind))}`);
  const allowed = modelsOf(kind).filter(({ alias }) => choice?.allowed?.includes(alias) ?? true);
  const byDefault = choice?.default ?? kindOf(kind).defaultModel;
  const model = allowed.find(({ alias }) => alias === byDefault);
  if (!model) {
    say(`models of ${kind}: the default ${byDefault} is none of those allowed: ${aliases(allowed)}`);
    return;
  }

  const plans = Object.entries(app.plans);
  const rule = app.prices[0].rules[kind];
  const dearest = rule && Math.max(...(tableOf(rule) ?? [Number.POSITIVE_INFINITY]));
  if (kind === "video") {
    const longest = Math.max(...allowed.map(({ limits }) => limits.seconds?.max ?? 60));
    const shortest = model.limits.seconds?.min ?? 1;
    for (const [name, plan] of plans) {
      if (plan.maxSeconds < shortest)
        say(`plan ${name}: allows videos of ${plan.maxSeconds} s, and ${byDefault} makes them from ${shortest} s on`);
      const most = Math.min(plan.maxSeconds, longest);
      if (dearest !== undefined && most > dearest)
        say(`plan ${name}: allows videos of ${most} s, priced up to ${dearest} s`);
    }
  }
  if (kind === "training") {
    if (plans.every(([, plan]) => plan.maxModels === 0)) say("training is priced, and no plan keeps a trained model");
    for (const [name, plan] of plans.filter(([, each]) => each.maxModels > 0)) {
      const able = (of: Model) => (of.limits.resolutions ?? []).filter((side) => side <= plan.maxTrainingResolution);
      if (able(model).length === 0)
        say(`plan ${name}: trains at ${plan.maxTrainingResolution} pixels at most, which ${byDefault} cannot`);
      const most = Math.max(...allowed.flatMap(able));
      if (dearest !== undefined && most > dearest)
        say(`plan ${name}: allows trainings at ${most} pixels, priced up to ${dearest}`);
    }
  }
}

function checkRoutings(app: App, place: string, of: Pick<App, "routing" | "modelRouting">, say: Say): void {
  for (const [kind, routing] of Object.entries(of.routing ?? {}) as [KindName, Routing][]) {
    const at = `${place}routing of ${kind}`;
    if (!(kind in app.prices[0].rules)) say(`${at}: the newest price book does not price ${kind}`);
    checkRouting(at, routing, offeredOf(app, kind), say);
  }
  const offered = [...new Set(kindsOf(app).flatMap((kind) => offeredOf(app, kind)))];
  for (const [alias, routing] of Object.entries(of.modelRouting ?? {})) {
    const at = `${place}modelRouting of ${alias}`;
    const meant = offered.filter((model) => model.alias === alias);
    if (meant.length > 0) checkRouting(at, routing, meant, say);
    else say(`${at}: is no model of this app; there are ${aliases(offered)}`);
  }
}

/** What the app lets its callers name. */
export function offeredOf(app: App, kind: KindName): readonly Model[] {
  return modelsOf(kind).filter(({ alias }) => app.models[kind]?.allowed?.includes(alias) ?? true);
}

function checkRouting(at: string, routing: Routing, models: readonly Model[], say: Say): void {
  if (routing.by === "cost") return;
  const names = routing.by === "order" ? routing.order : Object.keys(routing.weights);
  for (const twice of doubles(names)) say(`${at}: ${twice} is named twice`);
  const able = apisOf(models);
  for (const name of names.filter((each) => !able.includes(apiNamed(each))))
    say(`${at}: ${name} has no route to any of its models; these have: ${able.join(", ")}`);
  if (routing.by !== "weight") return;
  for (const [name, weight] of Object.entries(routing.weights))
    if (!Number.isFinite(weight) || weight < 0)
      say(`${at}: the weight of ${name} is ${weight}, not a number from 0 on`);
  if (Object.values(routing.weights).every((weight) => weight === 0)) say(`${at}: nobody has a weight`);
}

const apisOf = (models: readonly Model[]) => [...new Set(models.flatMap(({ routes }) => routes.map(({ api }) => api)))];

/** Accounts are called after their api: replicate_2, runpod_a40. */
function apiNamed(account: string): string {
  return apisOf(CATALOGUE).find((api) => account === api || account.startsWith(`${api}_`)) ?? account;
}

function aliases(models: readonly Model[]): string {
  return models.map(({ alias }) => alias).join(", ");
}

function checkExperiments(app: App, say: Say): void {
  for (const [name, { kind, arms }] of Object.entries(app.experiments)) {
    const place = `experiment ${name}`;
    if (!(kind in app.prices[0].rules)) say(`${place}: is about ${kind}, which the newest price book does not price`);
    for (const twice of doubles(arms.map((arm) => arm.name))) say(`${place}: two arms are called ${twice}`);
    for (const arm of arms) {
      checkWhole(`${place}: the weight of ${arm.name}`, arm.weight, 0, say);
      if (arm.model === undefined) continue;
      const isAllowed = app.models[kind]?.allowed?.includes(arm.model) ?? true;
      if (!findModel(kind, arm.model) || !isAllowed)
        say(`${place}: ${arm.name} takes the model ${arm.model}, which ${kind} does not have in this app`);
    }
    if (arms.every(({ weight }) => weight === 0)) say(`${place}: no arm has a weight, so nobody would be given any`);
    const example = app.prices[0].examples.find((each) => each.kind === kind);
    for (const arm of example ? arms : []) {
      const parsed = kindOf(kind).input.safeParse({ ...example?.input, ...arm.set });
      if (!parsed.success)
        say(`${place}: what ${arm.name} sets does not fit ${kind}: ${parsed.error.issues[0]?.message}`);
    }
  }
}

/** Each example comes out at what it says, and the newest book has one for each kind. */
function checkExamples(app: App, book: PriceBook, say: Say): void {
  for (const kind of Object.keys(book.rules))
    if (book === app.prices[0] && !book.examples.some((each) => each.kind === kind))
      say(`price book ${book.version} has no example of ${kind}`);
  for (const example of book.examples) {
    const outcome = priceExample({ ...app, prices: [book] }, example);
    if (outcome !== example.credits)
      say(`price book ${book.version}, "${example.about}": comes to ${outcome}, not to ${example.credits} credits`);
  }
}

/** What a worked example costs by the app's newest book, or why it cannot be priced. */
export function priceExample(app: App, example: PriceExample): number | string {
  if (example.plan !== undefined && !(example.plan in app.plans)) return `no price (there is no plan ${example.plan})`;
  const { kind, model } = example;
  const parsed = kindOf(kind).input.safeParse(example.input);
  if (!parsed.success) return `no price (${parsed.error.issues[0]?.path.join("/")} ${parsed.error.issues[0]?.message})`;
  try {
    const fitting = fitWish(app, example.plan ?? null, { kind, model, user: "example", input: parsed.data });
    if (fitting.ok) return fitting.fitted.price.credits;
    return `no price (${fitting.problems.map(({ pointer, detail }) => `${pointer} ${detail}`).join("; ")})`;
  } catch (error) {
    return `no price (${error instanceof Error ? error.message : String(error)})`;
  }
}

function doubles(values: readonly string[]): string[] {
  return [...new Set(values.filter((value, index) => values.indexOf(value) < index))];
}
