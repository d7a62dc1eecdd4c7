import type { KindName } from "./kinds/kind.ts";
import type { PriceBook } from "./pricing.ts";
import type { Routing } from "./routing.ts";

/** How many in how long; a sliding window. */
export interface Rate {
  readonly max: number;
  /** 1..2,592,000. */
  readonly seconds: number;
}

/** What a user may do. Every app has at least one plan. */
export interface Plan {
  /** Credits that each user may spend a day before the balance is touched; not carried over. 0: none. */
  readonly dailyAllowance: number;
  /** The longest side of an output, in pixels. */
  readonly maxSide: number;
  /** Inference steps of a generation; null: what the model takes. */
  readonly maxSteps: number | null;
  /** Seconds of a video. */
  readonly maxSeconds: number;
  /** Trained models that a user may keep; 0: none can be trained. */
  readonly maxModels: number;
  /** Pixels of a side that a training works at. */
  readonly maxTrainingResolution: number;
  /** `request` counts every submission of a user, the others one kind each. */
  readonly rates: Partial<Record<KindName | "request", Rate>>;
  /** Who serves its users, where that is not as for the others. */
  readonly routing?: Partial<Record<KindName, Routing>>;
  /** The same for single models, by alias; comes before what is said of their kinds. */
  readonly modelRouting?: Readonly<Record<string, Routing>>;
}

/**
 * Another way to do the same, to be compared by what users think of the outcome. Each user stays with the arm that the
 * weights gave him.
 */
export interface Experiment {
  readonly kind: KindName;
  readonly arms: readonly [Arm, ...Arm[]];
}

export interface Arm {
  readonly name: string;
  /** A whole number; 0 gives nobody. */
  readonly weight: number;
  /** Input fields that it sets, whatever the caller said. */
  readonly set?: Readonly<Record<string, unknown>>;
  /** Added to the caller's prompt. */
  readonly promptSuffix?: string;
  readonly model?: string;
}

export interface ModelChoice {
  readonly default: string;
  /** What callers may name; absent: every model of the kind. */
  readonly allowed?: readonly string[];
}

/** One product that uses this deployment. An app is one file in `apps/`. */
export interface App {
  /** Lower-case letters, digits and hyphens; never changed once money has moved. */
  readonly id: string;
  readonly name: string;
  /** Credits given once to each new user, by a trigger in the database. */
  readonly signupGrant: number;
  readonly plans: Readonly<Record<string, Plan>>;
  /** Of who has no plan of his own. */
  readonly defaultPlan: string;
  /** What happens to a request that is beyond the plan: made smaller with a warning, or refused with the field. */
  readonly overLimit: "clamp" | "refuse";
  /** Submissions for one address of an end user, where the caller names it. */
  readonly addressRate: Rate | null;
  /** What a credit brings in, in millionths of a dollar; absent: nobody says what is left of a price. */
  readonly creditMicroUsd?: number;
  /** The newest first. A job keeps the price of the book it was accepted with. The kinds it prices are on offer. */
  readonly prices: readonly [PriceBook, ...PriceBook[]];
  readonly models: Partial<Record<KindName, ModelChoice>>;
  /** Who serves which kind, by weight, in order or by cost; absent: as the deployment has it (AI_PROVIDER and so on). */
  readonly routing?: Partial<Record<KindName, Routing>>;
  /** Who serves which model, by alias: a primary and a secondary of its own. Comes before what is said of its kind. */
  readonly modelRouting?: Readonly<Record<string, Routing>>;
  /** The models' safety checker: always, never, or as each request says (on unless it says `safety: false`). */
  readonly safety: "on" | "off" | "request";
  /** Fewer delivered variants than this is a failed job, unless the request says otherwise. Absent: the kind's own. */
  readonly minSuccess: Partial<Record<KindName, number>>;
  /**
   * So long after acceptance, in seconds, nothing more is bought, what is out is stopped, and what was not delivered is
   * refunded. Absent: JOB_DEADLINE_SECONDS, and twice the trainer's time limit for a training.
   */
  readonly deadlineSeconds: Partial<Record<KindName, number>>;
  readonly experiments: Readonly<Record<string, Experiment>>;
  /** Where the ends of jobs are told, unless a request says otherwise; null: nowhere. */
  readonly callbackUrl: string | null;
  /** Begins the keys of the app's files in the bucket: "apps/<id>" by default. */
  readonly storagePrefix: string;
}

/** The kinds that the app offers: those that its book prices. */
export function kindsOf(app: App): KindName[] {
  return Object.keys(app.prices[0].rules) as KindName[];
}

export function planOf(app: App, name: string | null): { readonly name: string; readonly plan: Plan } {
  const own = name === null ? undefined : app.plans[name];
  if (own && name !== null) return { name, plan: own };
  const plan = app.plans[app.defaultPlan];
  if (!plan) throw new Error(`the app ${app.id} has no plan ${app.defaultPlan}, which it names as its default`);
  return { name: app.defaultPlan, plan };
}

/** Who is to serve users of a plan: what is said of the model, then of the kind; null: as the deployment has it. */
export function routingOf(app: App, plan: string | null, kind: KindName, alias: string): Routing | null {
  const own = planOf(app, plan).plan;
  return own.modelRouting?.[alias] ?? app.modelRouting?.[alias] ?? own.routing?.[kind] ?? app.routing?.[kind] ?? null;
}

/** A plan without limits of its own: what the models take is what can be asked for. */
export const UNLIMITED: Plan = {
  dailyAllowance: 0,
  maxSide: 4_096,
  maxSteps: null,
  maxSeconds: 60,
  maxModels: 1_000,
  maxTrainingResolution: 2_048,
  rates: {},
};
