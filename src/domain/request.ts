import { type App, type Arm, kindsOf, type Plan, planOf, type Rate } from "./app.ts";
import { type Family, findModel, type Model, modelsOf } from "./catalogue.ts";
import { kindOf } from "./kinds/all.ts";
import type { Clamp, FieldProblem, FileRef, KindName } from "./kinds/kind.ts";
import { type Measure, mostPriced, type Price, type PriceBook, priceOf } from "./pricing.ts";
import { spread } from "./spread.ts";
import { keepBeside, withSuffix } from "./suffix.ts";

/** What a caller asks for, parsed by the schema of its kind. */
export interface Wish {
  readonly kind: KindName;
  readonly user: string;
  /** Absent: the app's default for the kind. */
  readonly model?: string | undefined;
  readonly input: unknown;
  /** Of the app's experiments. */
  readonly experiment?: string | undefined;
  /** Of the end user, for the app's limit by address. */
  readonly address?: string | undefined;
  /** Of the trained model that it names, where that is known: decides the default model. */
  readonly family?: Family | undefined;
}

/** A wish that fits its app, its user's plan and its model, with its price. */
export interface Fitted {
  readonly kind: KindName;
  readonly model: Model;
  readonly plan: string;
  readonly maxModels: number;
  /** As it will be done: defaults filled in, clamped to the plan. */
  readonly input: unknown;
  readonly clamps: readonly Clamp[];
  readonly files: Readonly<Record<string, FileRef>>;
  readonly trainedModel: string | null;
  readonly variants: number;
  readonly minSuccess: number;
  readonly maxAttempts: number;
  readonly maxRebuys: number;
  readonly price: Price;
  readonly priceBook: string;
  readonly rates: readonly RateCheck[];
  readonly experiment: string | null;
  readonly arm: string | null;
  /** Null: the deployment's own. */
  readonly deadlineSeconds: number | null;
}

/** One limit that a submission counts against. */
export interface RateCheck extends Rate {
  readonly subject: string;
  readonly action: string;
}

export type Fitting =
  | { readonly ok: true; readonly fitted: Fitted }
  | { readonly ok: false; readonly problems: readonly FieldProblem[] };

/** Pure: the same app, plan and wish give the same request. */
export function fitWish(app: App, planName: string | null, wish: Wish): Fitting {
  const { name, plan } = planOf(app, planName);
  if (!kindsOf(app).includes(wish.kind))
    return refuse("/kind", `the app ${app.id} does not offer ${wish.kind}, only ${kindsOf(app).join(", ")}`);
  const experiment = wish.experiment === undefined ? null : app.experiments[wish.experiment];
  if (experiment === undefined || (experiment && experiment.kind !== wish.kind)) {
    const known = Object.keys(app.experiments).filter((each) => app.experiments[each]?.kind === wish.kind);
    return refuse("/experiment", `is none for ${wish.kind}; there are: ${known.join(", ") || "none"}`);
  }
  const arm = experiment && wish.experiment ? armOf(experiment.arms, `${wish.experiment}\n${wish.user}`) : null;
  const model = modelFor(app, wish, arm);
  if ("detail" in model) return { ok: false, problems: [model] };

  const kind = kindOf(wish.kind);
  const wanted = withArm(wish.input, arm);
  const parsed = arm ? kind.input.safeParse(wanted) : null;
  if (parsed && !parsed.success)
    return refuse("/experiment", `arm ${arm?.name} does not fit this input: ${parsed.error.issues[0]?.message}`);
  const fit = kind.fit(parsed ? parsed.data : wanted, { app, plan, model });
  // A training shows nothing to anybody: there is nothing to be checked.
  const safe = wish.kind === "training" ? { input: fit.input, problems: [] } : withSafety(app, fit.input);
  const problems = [...fit.problems, ...safe.problems];
  if (app.overLimit === "refuse")
    for (const { pointer, to, because } of fit.clamps)
      problems.push({ pointer, detail: `is too much: ${because}. Ask for ${JSON.stringify(to)} or less` });
  if (problems.length > 0) return { ok: false, problems };

  const { count, minSuccess } = kind.variants(safe.input);
  const book = app.prices[0];
  const measure = kind.measure(safe.input, model);
  const unpriced = beyondBook(book, wish.kind, measure);
  if (unpriced) return { ok: false, problems: [unpriced] };
  return {
    ok: true,
    fitted: {
      kind: wish.kind,
      model,
      plan: name,
      maxModels: plan.maxModels,
      // Together they had to fit; from here on the words of the arm are nobody's to read.
      input: arm?.promptSuffix ? keepBeside(safe.input, arm.promptSuffix) : safe.input,
      clamps: fit.clamps,
      files: kind.files(safe.input),
      trainedModel: kind.trainedModel(safe.input),
      variants: count,
      minSuccess,
      maxAttempts: kind.maxAttempts,
      maxRebuys: kind.maxRebuys,
      price: priceOf(app, book, wish.kind, measure),
      priceBook: book.version,
      rates: ratesOf(app, plan, wish),
      experiment: wish.experiment ?? null,
      arm: arm?.name ?? null,
      deadlineSeconds: app.deadlineSeconds[wish.kind] ?? null,
    },
  };
}

function refuse(pointer: string, detail: string): Fitting {
  return { ok: false, problems: [{ pointer, detail }] };
}

function modelFor(app: App, wish: Wish, arm: Arm | null): Model | FieldProblem {
  const choice = app.models[wish.kind];
  const allowed = modelsOf(wish.kind).filter(({ alias }) => choice?.allowed?.includes(alias) ?? true);
  const trained = kindOf(wish.kind).trainedModel(wish.input);
  const byDefault = choice?.default ?? kindOf(wish.kind).defaultModel;
  const alias =
    arm?.model ??
    wish.model ??
    (trained !== null ? loraDefault(allowed, byDefault, wish.family) : maskDefault(wish, allowed, byDefault));
  const model = findModel(wish.kind, alias);
  if (model && allowed.includes(model)) return model;
  const names = allowed.map((each) => each.alias).join(", ");
  return { pointer: "/model", detail: `there is no model "${alias}" for ${wish.kind} in this app; one of: ${names}` };
}

/** Whoever sends a mask and names no model means one that takes it. */
function maskDefault({ input }: Wish, allowed: readonly Model[], byDefault: string): string {
  const isMasked = typeof input === "object" && input !== null && "mask" in input && input.mask !== undefined;
  const takesIt = (model: Model) => model.limits.mask !== undefined;
  if (!isMasked || allowed.some((model) => model.alias === byDefault && takesIt(model))) return byDefault;
  return allowed.find(takesIt)?.alias ?? byDefault;
}

/** Whoever names a trained model and no other means one that can use it. */
function loraDefault(allowed: readonly Model[], byDefault: string, family: Family | undefined): string {
  const able = allowed.filter(({ limits }) => limits.lora && (family === undefined || limits.lora === family));
  return (able.find(({ alias }) => alias.startsWith(byDefault)) ?? able[0])?.alias ?? byDefault;
}

function withArm(input: unknown, arm: Arm | null): unknown {
  if (!arm || typeof input !== "object" || input === null) return input;
  const set = { ...input, ...arm.set };
  return arm.promptSuffix ? withSuffix(set, arm.promptSuffix) : set;
}

/** Always the same arm for the same user; over many users in proportion to the weights. */
export function armOf(arms: readonly [Arm, ...Arm[]], subject: string): Arm {
  const total = arms.reduce((sum, { weight }) => sum + weight, 0);
  const at = (spread(subject) / 2 ** 32) * total;
  let passed = 0;
  for (const arm of arms) {
    passed += arm.weight;
    if (at < passed) return arm;
  }
  return arms[0];
}

function withSafety(app: App, input: unknown): { input: unknown; problems: FieldProblem[] } {
  if (typeof input !== "object" || input === null) return { input, problems: [] };
  const asked = "safety" in input ? input.safety : undefined;
  if (app.safety === "on" && asked === false)
    return {
      input,
      problems: [{ pointer: "/input/safety", detail: `the app ${app.id} keeps the safety checker on: leave it out` }],
    };
  const safety = app.safety === "off" ? false : app.safety === "on" || asked !== false;
  return { input: { ...input, safety }, problems: [] };
}

/** All limits of a user of that plan. */
export function allRatesOf(plan: Plan, user: string): RateCheck[] {
  return Object.entries(plan.rates).map(([action, rate]) => ({ subject: `user:${user}`, action, ...rate }));
}

/** What the model makes, the plan allows, and the app has not priced. */
function beyondBook(book: PriceBook, kind: KindName, { seconds, resolution }: Measure): FieldProblem | null {
  const rule = book.rules[kind];
  const most = rule ? mostPriced(rule) : null;
  const asked = rule?.per === "length" ? seconds : resolution;
  if (most === null || asked === undefined || asked <= most) return null;
  const [field, unit] = rule?.per === "length" ? ["seconds", "s"] : ["resolution", "pixels"];
  return { pointer: `/input/${field}`, detail: `is ${asked} ${unit}, and the app has prices up to ${most} ${unit}` };
}

/** The limits that a submission counts against, of the user and of the address where there is one. */
export function ratesOf(
  app: App,
  plan: Plan,
  { kind, user, address }: Pick<Wish, "kind" | "user" | "address">,
): RateCheck[] {
  const rates: RateCheck[] = [];
  for (const action of ["request", kind] as const) {
    const rate = plan.rates[action];
    if (rate) rates.push({ subject: `user:${user}`, action, ...rate });
  }
  if (app.addressRate && address !== undefined)
    rates.push({ subject: `address:${networkOf(address)}`, action: "request", ...app.addressRate });
  return rates;
}

/** Whoever has one IPv6 address has 2^64 of them: they count as one. IPv4 in the clothes of IPv6 is IPv4. */
function networkOf(address: string): string {
  if (!address.includes(":")) return address;
  // Lower case, without leading zeros, and hexadecimal to its end.
  const [head = "", tail = ""] = new URL(`http://[${address}]`).hostname.slice(1, -1).split("::");
  const [left, right] = [head, tail].map((part) => part.split(":").filter((group) => group !== "")) as [
    string[],
    string[],
  ];
  const groups = [...left, ...Array<string>(8 - left.length - right.length).fill("0"), ...right];
  if (groups.slice(0, 6).join() !== "0,0,0,0,0,ffff") return `${groups.slice(0, 4).join(":")}::/64`;
  return groups
    .slice(6)
    .flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255])
    .join(".");
}

/** Whether the model's safety checker is to look at it: frozen in the job's input, by the app's word or the caller's. */
export const isSafe = (input: unknown): boolean =>
  !(typeof input === "object" && input !== null && "safety" in input && input.safety === false);
