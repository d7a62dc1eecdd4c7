import { randomUUID } from "node:crypto";
import { apps } from "../apps/all.ts";
import { type AccountPlan, readAccounts } from "./accounts.ts";
import { webhookPath } from "./api/webhooks.ts";
import { makeLogger, makeParts } from "./compose.ts";
import type { Config } from "./config.ts";
import { CATALOGUE } from "./domain/catalogue.ts";
import { FAILURES } from "./domain/failure.ts";
import { WebhookRefused } from "./domain/provider.ts";
import { type Account, routesOn } from "./domain/routing.ts";
import { check, checkReadiness } from "./health.ts";
import { inLanes } from "./lanes.ts";
import { probe } from "./probes.ts";
import { ADAPTERS } from "./providers/adapters.ts";
import { readRoutingNotes } from "./routing-notes.ts";
import { VARIABLES } from "./variables.ts";

export interface Finding {
  readonly name: string;
  /** Null: nothing is broken, but it is worth knowing. */
  readonly ok: boolean | null;
  readonly detail: string;
  readonly remedy: string | null;
}

/** Tries everything that a deployment needs, and says of each what is wrong and what to do. Buys nothing. */
export async function examine(config: Config): Promise<Finding[]> {
  const parts = makeParts(config, makeLogger({ LOG_LEVEL: "silent" }, "doctor"), "doctor");
  const { accounts: plans } = readAccounts(config);
  try {
    const readiness = await checkReadiness(parts.db, parts.queues);
    const storage = await check(`storage (${parts.storage.name})`, () => parts.storage.check());
    const accounts = await inLanes(4, parts.providers, (account) =>
      accountFindings(
        account,
        plans.find(({ name }) => name === account.name),
      ),
    );
    return [
      ...configFindings(config, plans),
      ...parts.notes.map((note) => worthKnowing("provider", note)),
      ...routingFindings(plans),
      ...[...readiness, storage].map(({ name, ok, detail }) =>
        ok ? well(name, DONE[name] ?? "a file was written, read back and deleted") : broken(name, detail, REMEDY[name]),
      ),
      ...accounts.flat(),
      ...(await addressFindings(config, parts.providers)),
    ];
  } finally {
    await parts.close();
  }
}

/** One line each: a sign, what it is, how it is; and what to do, where something is to be done. */
export function doctorReport(findings: readonly Finding[]): string {
  const width = Math.max(...findings.map(({ name }) => name.length));
  const lines = findings.map(({ name, ok, detail, remedy }) => {
    const sign = ok === null ? "–" : ok ? "✔" : "✖";
    return `${sign} ${name.padEnd(width)}  ${brief(detail, 500)}${remedy === null ? "" : ` → ${remedy}`}`;
  });
  const count = findings.filter(({ ok }) => ok === false).length;
  return [...lines, count === 0 ? "nothing is broken" : `${count} of ${findings.length} are broken`].join("\n");
}

const well = (name: string, detail: string): Finding => ({ name, ok: true, detail, remedy: null });
const worthKnowing = (name: string, detail: string): Finding => ({ name, ok: null, detail, remedy: null });
const broken = (name: string, detail: string, remedy?: string): Finding => ({
  name,
  ok: false,
  detail,
  remedy: remedy ?? null,
});
const messageOf = (error: unknown) => (error instanceof Error ? error.message || error.name : String(error));

const DONE: Readonly<Record<string, string>> = {
  database: "answers",
  migrations: "all are applied",
  queue: "answers",
};
const REMEDY: Readonly<Record<string, string>> = {
  database: "Start Postgres, or correct DATABASE_URL.",
  queue: "Start Redis, or correct REDIS_URL; without it the queue is kept in Postgres, by `npm run migrate`.",
};

function configFindings(config: Config, plans: readonly AccountPlan[]): Finding[] {
  const names = plans.map(({ name }) => name).join(", ");
  const isExample = config.SIGNING_SECRET === VARIABLES.SIGNING_SECRET.example;
  return [
    well("configuration", `${config.NODE_ENV}; ${plans.length === 1 ? "the account" : "the accounts"} ${names}`),
    isExample
      ? broken("signing secret", "SIGNING_SECRET is that of .env.example", "Make your own: openssl rand -hex 32")
      : well("signing secret", "signs file addresses, webhook addresses and callbacks"),
    ...(config.ADMIN_PASSWORD
      ? []
      : [worthKnowing("operator", "ADMIN_PASSWORD is not set: there is no /queues, and /api/health tells no money")]),
  ];
}

/** Accounts that the apps ask for, and that there are not. */
function routingFindings(plans: readonly AccountPlan[]): Finding[] {
  const { notes, problems } = readRoutingNotes(apps, plans);
  return [
    ...problems.map((problem) => broken("routing", problem)),
    ...notes.map(({ text }) => worthKnowing("routing", text)),
  ];
}

/** Models asked for at the same time; a provider's list is asked for once then. */
const LANES = 8;
/** Left on an account: below this it is time to think of it. */
const LOW_MICRO_USD = 5_000_000;

async function accountFindings(account: Account, plan: AccountPlan | undefined): Promise<Finding[]> {
  const { name } = account;
  const models = await modelFindings(account);
  const refused = models.find(({ code }) => code === "provider_auth");
  const balance = await balanceFindings(account);
  const token = await tokenFinding(
    account,
    refused?.detail ?? null,
    balance.some(({ ok }) => ok !== false),
  );
  return [
    token,
    ...(token.ok === false ? [] : balance),
    ...(token.ok === false && refused
      ? [worthKnowing(`${name}: models`, "were not asked for: the token is refused")]
      : models),
    ...(account.signsWebhooks ? [await secretFinding(account)] : []),
    ...(plan ? [await clockFinding(name, plan)] : []),
  ];
}

/** `isAsked`: something was asked for that is told to nobody else, and no refusal is known. */
async function tokenFinding(account: Account, refusal: string | null, isAsked: boolean): Promise<Finding> {
  const name = `${account.name}: token`;
  try {
    const holder = await account.account?.();
    if (holder?.outcome === "holder") return well(name, `valid, of ${holder.name}`);
    if (holder) return broken(name, holder.failure.detail, FAILURES[holder.failure.code].remedy);
  } catch (error) {
    return broken(name, `could not be tried: ${messageOf(error)}`, unreachableRemedy(account));
  }
  if (refusal !== null) return broken(name, refusal, FAILURES.provider_auth.remedy);
  const unnamed = "whose it is, the provider does not tell";
  return isAsked ? well(name, `valid; ${unnamed}`) : worthKnowing(name, `is not refused; ${unnamed}`);
}

const unreachableRemedy = ({ statusPage }: Account) =>
  `See whether this host reaches the provider${statusPage === undefined ? "" : `, and ${statusPage}`}.`;

async function balanceFindings(account: Account): Promise<Finding[]> {
  if (!account.balance) return [];
  const name = `${account.name}: balance`;
  try {
    const microUsd = await account.balance();
    const told = `$${(microUsd / 1_000_000).toFixed(2)} left`;
    if (microUsd <= 0) return [broken(name, told, FAILURES.provider_no_credit.remedy)];
    return [microUsd < LOW_MICRO_USD ? worthKnowing(name, `${told}: little`) : well(name, told)];
  } catch (error) {
    return [broken(name, `could not be asked: ${messageOf(error)}`, unreachableRemedy(account))];
  }
}

interface ModelFinding extends Finding {
  readonly code: string | null;
}

async function modelFindings(account: Account): Promise<ModelFinding[]> {
  const routes = CATALOGUE.flatMap((model) => routesOn(account, model).map((route) => ({ model, route })));
  return inLanes(LANES, routes, async ({ model, route }) => {
    const name = `${account.name}: ${model.alias}`;
    try {
      const resolved = await account.resolve(route.model, { fresh: true });
      if (resolved.outcome === "resolved") return { ...well(name, `${route.model} is there`), code: null };
      const { code, detail } = resolved.failure;
      return { ...broken(name, `${code}: ${detail}`, FAILURES[code].remedy), code };
    } catch (error) {
      return { ...broken(name, messageOf(error), unreachableRemedy(account)), code: null };
    }
  });
}

/** In the words of all who sign: recent, well-formed, and by nobody. */
function forgedHeaders(): Record<string, string> {
  const now = String(Math.floor(Date.now() / 1_000));
  return {
    "webhook-id": randomUUID(),
    "webhook-timestamp": now,
    "webhook-signature": `v1,${Buffer.alloc(32).toString("base64")} v3,${"0".repeat(64)}`,
    "x-fal-webhook-request-id": randomUUID(),
    "x-fal-webhook-user-id": "nobody",
    "x-fal-webhook-timestamp": now,
    "x-fal-webhook-signature": "0".repeat(128),
  };
}

/** What nobody signed must be refused, and because it does not fit: not because there is nothing to compare it with. */
async function secretFinding(account: Account): Promise<Finding> {
  const name = `${account.name}: webhook secret`;
  try {
    await account.verifyWebhook(forgedHeaders(), "{}");
    return broken(name, "a forged webhook was believed", "Do not run this version: report it.");
  } catch (error) {
    if (error instanceof WebhookRefused && !error.message.startsWith("unverifiable"))
      return well(name, "is known: a forged webhook is refused");
    return broken(name, messageOf(error), "Give the token the right to read it, or configure it: see .env.example.");
  }
}

/** Signatures are refused when they are 300 s old; a fifth of that is too much already. */
const MOST_SKEW_MS = 60_000;

async function clockFinding(account: string, plan: AccountPlan): Promise<Finding> {
  const name = `${account}: clock`;
  const url = plan.baseUrl ?? ADAPTERS.find(({ api }) => api === plan.api)?.baseUrl ?? "";
  try {
    const { aheadMs } = await probe(url);
    if (aheadMs === null) return worthKnowing(name, "the provider does not tell its time");
    const seconds = `${(Math.abs(aheadMs) / 1_000).toFixed(1)} s`;
    if (Math.abs(aheadMs) <= MOST_SKEW_MS) return well(name, `agrees with ours to ${seconds}`);
    return broken(name, `ours is ${seconds} ${aheadMs > 0 ? "behind" : "ahead"}`, "Set this host's clock by NTP.");
  } catch (error) {
    return broken(name, `${url}: ${messageOf(error)}`, "See whether this host reaches the provider.");
  }
}

/** From here it is not quite the outside: an answer proves that the name, the certificate and the proxy are right. */
async function addressFindings(config: Config, [account]: readonly [Account, ...Account[]]): Promise<Finding[]> {
  const { PUBLIC_URL: address } = config;
  const isPublic = address.startsWith("https://");
  const findings: Finding[] = isPublic
    ? []
    : [worthKnowing("webhooks", "are not asked for, as PUBLIC_URL is not https: every run is looked at instead")];
  const wrong = (name: string, detail: string, remedy: string) =>
    // A laptop's API need not be running while the doctor is.
    isPublic ? broken(name, detail, remedy) : worthKnowing(name, `${detail} → ${remedy}`);
  const start = "Start the API, and have the proxy in front of PUBLIC_URL lead to it.";
  try {
    const { status, location, body } = await probe(`${address}/livez`);
    if (status >= 300 && status < 400)
      return [...findings, broken("public address", `redirects to ${location}`, "Set PUBLIC_URL to where it leads.")];
    if (status !== 200 || !body.includes('"ok"'))
      return [...findings, wrong("public address", `${address}/livez answered ${status}: ${brief(body)}`, start)];
  } catch (error) {
    return [...findings, wrong("public address", `${address} does not answer: ${messageOf(error)}`, start)];
  }
  return [...findings, well("public address", `${address} answers`), await webhookFinding(config, account)];
}

/** What nobody signed is sent to the address of a run that there is not: by how it is refused one sees by whom. */
async function webhookFinding({ PUBLIC_URL, SIGNING_SECRET }: Config, { name: account }: Account): Promise<Finding> {
  const name = "webhook address";
  const path = webhookPath(SIGNING_SECRET, account, randomUUID());
  const send = (to: string) =>
    probe(`${PUBLIC_URL}${to}`, {
      method: "POST",
      headers: { ...forgedHeaders(), "content-type": "application/json" },
      body: "{}",
    });
  try {
    const forged = await send(path.replace(/[^/]+$/, "forged"));
    if (forged.status !== 401 || !forged.body.includes("webhook_refused"))
      return broken(
        name,
        `a forged webhook got ${forged.status} ${brief(forged.body)} instead of our refusal`,
        "Have the proxy pass POST /api/webhooks/ on as it is: no login, no redirect, no other service.",
      );
    const own = await send(path);
    if (own.body.includes("does not belong to a run"))
      return broken(
        name,
        "the API there does not know this secret",
        "Give every process the same SIGNING_SECRET, or correct PUBLIC_URL: it may be another deployment.",
      );
    if (own.status >= 500)
      return broken(name, `the API there answered ${own.status} ${brief(own.body)}`, "Read its log.");
    return well(name, "a forged webhook is refused, by an API with the same secret");
  } catch (error) {
    return broken(name, messageOf(error), "See what the proxy in front of the API does with POST requests.");
  }
}

const brief = (text: string, most = 100) => text.replaceAll(/\s+/g, " ").slice(0, most);
