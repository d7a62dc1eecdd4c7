import { CATALOGUE, GPU_HOUR_USD, isOwn, modelsOf } from "./domain/catalogue.ts";
import { KINDS, type KindName } from "./domain/kinds/kind.ts";
import { type Account, isMeant, type Routing, routesOn } from "./domain/routing.ts";
import type { Environment } from "./variables.ts";

/**
 * From the environment to the accounts that runs are bought from, and to who is asked first. A key is an account;
 * `_2` to `_9` behind its name are further ones of the same provider.
 */

interface Vendor {
  readonly api: string;
  readonly key: keyof Keys;
  readonly secret?: keyof Keys;
}

const VENDORS = [
  { api: "replicate", key: "REPLICATE_API_TOKEN", secret: "REPLICATE_WEBHOOK_SECRET" },
  { api: "runpod", key: "RUNPOD_API_KEY" },
  { api: "fal", key: "FAL_KEY" },
  { api: "wavespeed", key: "WAVESPEED_API_KEY", secret: "WAVESPEED_WEBHOOK_SECRET" },
  { api: "huggingface", key: "HF_TOKEN" },
  { api: "poe", key: "POE_API_KEY" },
] as const satisfies readonly Vendor[];

/** The first of these is the account of the vendor's own name; an empty one is left out, and the others keep their names. */
type Keys = Pick<
  Partial<Environment>,
  | "REPLICATE_API_TOKEN"
  | "REPLICATE_WEBHOOK_SECRET"
  | "RUNPOD_API_KEY"
  | "FAL_KEY"
  | "WAVESPEED_API_KEY"
  | "WAVESPEED_WEBHOOK_SECRET"
  | "HF_TOKEN"
  | "POE_API_KEY"
>;

type Names = Pick<
  Partial<Environment>,
  | "AI_PROVIDER"
  | "AI_SECONDARY_PROVIDER"
  | "IMAGE_PROVIDER"
  | "VIDEO_PROVIDER"
  | "REPLICATE_DEPLOYMENTS"
  | "RUNPOD_ENDPOINTS"
  | "SANDBOX_URL"
>;

/** What an adapter is to be made of; see AdapterOptions. */
export interface AccountPlan extends Pick<Account, "name" | "api" | "models" | "secondMicroUsd"> {
  readonly token: string;
  /** Of the sandbox; null: the real service. */
  readonly baseUrl: string | null;
  readonly webhookSecret: string | null;
  readonly endpoints: Readonly<Record<string, string>> | null;
}

export interface Accounts {
  /** In the order in which they are named; those that are not named come last. */
  readonly accounts: readonly AccountPlan[];
  /** Who is asked first, unless an app or a plan says otherwise. */
  readonly preference: Readonly<Record<KindName, Routing>>;
  /** What is missing, and what works without it; for the log. */
  readonly notes: readonly string[];
  /** Each with its remedy; with one of them nothing may start. */
  readonly problems: readonly string[];
}

/** What a name of AI_PROVIDER and its like looks like. */
export const PROVIDER_NAME = new RegExp(
  `^(sandbox(:(${VENDORS.map(({ api }) => api).join("|")})(_[2-9])?)?|(${VENDORS.map(({ api }) => api).join("|")})(_\\w{1,20})?)$`,
);
export const PROVIDER_NAMES = `${VENDORS.map(({ api }) => api).join(", ")}; one account of it, such as replicate_2, replicate_own or runpod_a40; sandbox, or one face of it, such as sandbox:fal`;

/** Their kinds, by the variable that names who serves them. */
const KINDS_OF: Readonly<Record<"IMAGE_PROVIDER" | "VIDEO_PROVIDER", readonly KindName[]>> = {
  IMAGE_PROVIDER: ["generation", "edit", "staging"],
  VIDEO_PROVIDER: ["video"],
};

export function readAccounts(env: Names & Keys): Accounts {
  const problems: string[] = [];
  const named = namedBy(env);
  const isSandbox = named.some(({ name }) => isOfSandbox(name));
  const real = named.find(({ name }) => !isOfSandbox(name));
  if (isSandbox && real)
    problems.push(
      `${real.by} is ${real.name}, and another provider is the sandbox: what is drawn would be mixed with what is bought. Name sandboxes only (sandbox:fal and so on), or none.`,
    );
  const plain = isSandbox
    ? sandboxAccounts(
        env,
        named.map(({ name }) => name),
      )
    : realAccounts(env);
  const own = [...ownDeployments(env, plain, problems), ...ownEndpoints(env, plain, problems)];
  const all = [...plain, ...own];
  const order = named.map(({ name }) => accountName(name));
  const rank = (each: AccountPlan) => {
    const place = order.findIndex((name) => isMeant(name, each));
    return place < 0 ? order.length : place;
  };
  const accounts = all.toSorted((a, b) => rank(a) - rank(b));
  if (problems.length === 0) problems.push(...namesProblems(named, accounts));
  return {
    accounts,
    preference: preferences(env, accounts),
    notes: isSandbox || problems.length > 0 ? [] : notesOn(accounts),
    problems,
  };
}

interface Named {
  readonly by: "AI_PROVIDER" | "AI_SECONDARY_PROVIDER" | "IMAGE_PROVIDER" | "VIDEO_PROVIDER";
  readonly name: string;
}

function namedBy(env: Names): Named[] {
  const variables = ["AI_PROVIDER", "AI_SECONDARY_PROVIDER", "IMAGE_PROVIDER", "VIDEO_PROVIDER"] as const;
  return variables.flatMap((by) => (env[by] ?? []).map((name) => ({ by, name })));
}

const isOfSandbox = (name: string) => name === "sandbox" || name.startsWith("sandbox:");

/** "sandbox:fal" → "sandbox_fal": names stand in paths of webhooks. */
const accountName = (name: string) => name.replace(":", "_");

/** It lets any token in; these are the ones that the tests give. */
function sandboxAccounts(env: Names, names: readonly string[]): AccountPlan[] {
  return [...new Set(names)].filter(isOfSandbox).map((name) => {
    const api = /:([a-z]+)/.exec(name)?.[1] ?? "replicate";
    const isReplicate = api === "replicate";
    return {
      name: accountName(name),
      api,
      token: isReplicate ? "r8_sandbox" : "sandbox-key",
      baseUrl: `${env.SANDBOX_URL}/${isReplicate ? "v1" : api}`,
      webhookSecret: null,
      endpoints: null,
    };
  });
}

function realAccounts(env: Keys): AccountPlan[] {
  return VENDORS.flatMap((vendor) =>
    (env[vendor.key] ?? []).flatMap((token, index) => {
      if (token === "") return [];
      const secret = "secret" in vendor ? env[vendor.secret]?.[index] : undefined;
      return {
        name: index === 0 ? vendor.api : `${vendor.api}_${index + 1}`,
        api: vendor.api,
        token,
        baseUrl: null,
        webhookSecret: secret || null,
        endpoints: null,
      };
    }),
  );
}

/** The names that the catalogue has for what accounts of this api may have of their own. */
function ownModels(api: string): string[] {
  const its = CATALOGUE.flatMap(({ routes }) => routes.filter((route) => route.api === api));
  return [...new Set(its.map(({ model }) => model).filter(isOwn))];
}

/** own/flux-dev=acme/my-flux:0.001525, the dollars of a second on its hardware, which are not nothing. */
export const DEPLOYMENT =
  /^(own\/[\w.-]{1,60})=(\w[\w.-]{0,99}\/\w[\w.-]{0,99}):(?=[\d.]*[1-9])(\d{1,2}(?:\.\d{1,9})?)$/;

/** Deployments are an account, with the first token: they have one price, and models that no other account has. */
function ownDeployments(env: Names, plain: readonly AccountPlan[], problems: string[]): AccountPlan[] {
  const given = env.REPLICATE_DEPLOYMENTS ?? [];
  if (given.length === 0) return [];
  const host = plain.find(({ api }) => api === "replicate");
  if (!host)
    problems.push(
      "REPLICATE_API_TOKEN is missing: REPLICATE_DEPLOYMENTS names deployments. Make a token at https://replicate.com/account/api-tokens.",
    );
  const known = ownModels("replicate");
  const endpoints: Record<string, string> = {};
  let usd: number | null = null;
  for (const each of given) {
    const [, model = "", deployment = "", price] = DEPLOYMENT.exec(each) ?? [];
    const twin = endpoints[model];
    if (twin !== undefined)
      problems.push(
        `REPLICATE_DEPLOYMENTS names ${model} twice: ${twin} and ${deployment}. Leave one out: give it more instances.`,
      );
    if (!known.includes(model))
      problems.push(
        `REPLICATE_DEPLOYMENTS names ${model}, which no model of the catalogue has: one of ${known.join(", ")}.`,
      );
    if (usd !== null && usd !== Number(price))
      problems.push(
        `REPLICATE_DEPLOYMENTS says of a second that it costs $${usd} and $${Number(price)}. Say one: they are one account.`,
      );
    endpoints[model] = deployment;
    usd = Number(price);
  }
  if (!host || usd === null) return [];
  const name = `${host.name}_own`;
  return [{ ...host, name, endpoints, models: Object.keys(endpoints), secondMicroUsd: usd * 1_000_000 }];
}

/** own/flux-dev@A40=abc123, or with the price of an hour behind it: own/flux-dev@H100=abc123:2.99. */
export const ENDPOINT = /^(own\/[\w.-]{1,60})@(\w{1,20})=([\w-]{1,60})(?::(\d{1,4}(?:\.\d{1,6})?))?$/;

/** Endpoints on one kind of GPU are an account of their own: they have one price, and models that no other account has. */
function ownEndpoints(env: Names, plain: readonly AccountPlan[], problems: string[]): AccountPlan[] {
  const host = plain.find(({ api }) => api === "runpod");
  const given = env.RUNPOD_ENDPOINTS ?? [];
  if (given.length > 0 && !host)
    problems.push("RUNPOD_API_KEY is missing: RUNPOD_ENDPOINTS names endpoints. Make a key in RunPod's console.");
  const known = ownModels("runpod");
  const byGpu = new Map<string, { endpoints: Record<string, string>; usd: number; told: number | null }>();
  for (const each of given) {
    const [, model = "", name = "", id = "", price] = ENDPOINT.exec(each) ?? [];
    const gpu = name.toUpperCase();
    const before = byGpu.get(gpu);
    const told = price === undefined ? (before?.told ?? null) : Number(price);
    const usd = told ?? GPU_HOUR_USD[gpu];
    const twin = before?.endpoints[model];
    if (twin !== undefined)
      problems.push(
        `RUNPOD_ENDPOINTS names ${model} on ${gpu} twice: ${twin} and ${id}. Leave one out: RunPod spreads the load of an endpoint itself.`,
      );
    if (typeof before?.told === "number" && before.told !== told)
      problems.push(`RUNPOD_ENDPOINTS says of an hour on ${gpu} that it costs $${before.told} and $${told}. Say one.`);
    if (!known.includes(model))
      problems.push(
        `RUNPOD_ENDPOINTS names ${model}, which no model of the catalogue has: one of ${known.join(", ")}.`,
      );
    if (usd === undefined)
      problems.push(`RUNPOD_ENDPOINTS does not say what an hour on ${gpu} costs: write ${each}:2.99 for $2.99.`);
    else byGpu.set(gpu, { endpoints: { ...before?.endpoints, [model]: id }, usd, told });
  }
  if (!host) return [];
  return [...byGpu].map(([gpu, { endpoints, usd }]) => ({
    ...host,
    name: `${host.name}_${gpu.toLowerCase()}`,
    endpoints,
    models: Object.keys(endpoints),
    secondMicroUsd: (usd * 1_000_000) / 3_600,
  }));
}

const serves = (account: AccountPlan, kind: KindName) =>
  modelsOf(kind).some((model) => routesOn(account, model).length > 0);

/** Whoever is named must be there, and be able to do what he is named for. */
function namesProblems(named: readonly Named[], accounts: readonly AccountPlan[]): string[] {
  return named.flatMap(({ by, name }) => {
    const meant = accounts.filter((account) => isMeant(accountName(name), account));
    if (meant.length === 0) return [missing(by, name)];
    const kinds = by === "IMAGE_PROVIDER" || by === "VIDEO_PROVIDER" ? KINDS_OF[by] : KINDS;
    if (kinds.some((kind) => meant.some((account) => serves(account, kind)))) return [];
    const able = CATALOGUE.filter((model) => model.kinds.some((kind) => kinds.includes(kind)));
    const apis = [...new Set(able.flatMap(({ routes }) => routes.map(({ api }) => api)))];
    return [
      `${by} is ${name}, and ${name} has no route to any model of ${kinds.join(", ")}. These have: ${apis.join(", ")}.`,
    ];
  });
}

function missing(by: Named["by"], name: string): string {
  const variable = variableOf(name);
  if (variable === "REPLICATE_DEPLOYMENTS")
    return `${by} is ${name}, and there is no such account: replicate_own is there when REPLICATE_DEPLOYMENTS names a deployment.`;
  if (variable === "RUNPOD_ENDPOINTS")
    return `${by} is ${name}, and there is no such account: RUNPOD_ENDPOINTS names no endpoint on ${name.slice(name.indexOf("_") + 1).toUpperCase()}.`;
  return `${variable} is missing: ${by} is ${name}. Set it, or name a provider whose key is there.`;
}

/** Where an account comes from, by its name. */
export function variableOf(name: string): string {
  const vendor = VENDORS.find(({ api }) => name === api || name.startsWith(`${api}_`));
  const suffix = vendor ? name.slice(vendor.api.length) : "";
  if (vendor && /^(_[2-9])?$/.test(suffix)) return `${vendor.key}${suffix}`;
  return vendor?.api === "replicate" ? "REPLICATE_DEPLOYMENTS" : "RUNPOD_ENDPOINTS";
}

function preferences(env: Names, accounts: readonly AccountPlan[]): Record<KindName, Routing> {
  const general = [...(env.AI_PROVIDER ?? []), ...(env.AI_SECONDARY_PROVIDER ?? [])];
  const of = (kind: KindName): Routing => {
    const special = (["IMAGE_PROVIDER", "VIDEO_PROVIDER"] as const).filter((by) => KINDS_OF[by].includes(kind));
    const names = [...new Set([...special.flatMap((by) => env[by] ?? []), ...general].map(accountName))];
    const able = names.filter((name) => accounts.some((account) => isMeant(name, account) && serves(account, kind)));
    const [first, ...rest] = able;
    return first === undefined ? { by: "cost" } : { by: "order", order: [first, ...rest] };
  };
  return {
    training: of("training"),
    generation: of("generation"),
    staging: of("staging"),
    edit: of("edit"),
    video: of("video"),
  };
}

/** A key that is not there, with what it is missed for. */
function notesOn(accounts: readonly AccountPlan[]): string[] {
  const count = (model: (typeof CATALOGUE)[number]) =>
    accounts.filter((each) => routesOn(each, model).length > 0).length;
  const unserved = CATALOGUE.filter((model) => count(model) === 0);
  return VENDORS.filter(({ api }) => accounts.every((each) => each.api !== api)).flatMap(({ api, key }) => {
    const its = CATALOGUE.filter(({ routes }) => routes.some((route) => route.api === api));
    if (its.length === 0) return [];
    const lost = its.filter((model) => unserved.includes(model)).map(({ alias }) => alias);
    const single = its.filter((model) => count(model) === 1).map(({ alias }) => alias);
    const without =
      lost.length > 0 ? `without it nobody serves ${lost.join(", ")}` : "all its models are served without it";
    const alone = single.length > 0 ? `; one account alone serves ${single.join(", ")}` : "";
    return [`${key} is not set: ${without}${alone}${stillServed(its, accounts)}`];
  });
}

/** Who serves the kinds of models that lack one of their providers. */
function stillServed(models: typeof CATALOGUE, accounts: readonly AccountPlan[]): string {
  const byWhom = new Map<string, KindName[]>();
  for (const kind of KINDS.filter((each) => models.some(({ kinds }) => kinds.includes(each)))) {
    const able = [...new Set(accounts.filter((each) => serves(each, kind)).map(({ api }) => api))].join(", ");
    if (able !== "") byWhom.set(able, [...(byWhom.get(able) ?? []), kind]);
  }
  const said = [...byWhom].map(([whom, kinds]) => `${kinds.join(", ")} by ${whom}`);
  return said.length > 0 ? `; still served: ${said.join("; ")}` : "";
}
