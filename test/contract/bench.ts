import assert from "node:assert/strict";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { ALL_FACES } from "../../sandbox/faces.ts";
import { type Sandbox, startSandbox } from "../../sandbox/sandbox.ts";
import type { Answer, Look, Order, Provider, RunRef } from "../../src/domain/provider.ts";
import type { Adapter, AdapterOptions, Sample } from "../../src/providers/adapter.ts";
import type { CallRecord } from "../../src/providers/http.ts";
import { type Hook, type Letter, startHook } from "./hook.ts";
import { type Seen, startWire, type Wire } from "./wire.ts";

/** Looks like Replicate's, as its sandbox insists, and can be told from every other word. */
const TOKEN = "r8_the-token-of-the-contract";
const SPEED = 20;
/** Of one call of the adapter under test, in ms. */
const TOTAL_MS = 5_000;
/** Within it every run of the sandbox is over and every webhook delivered, however busy the machine is. */
const PATIENCE_MS = 12_000;
const PAUSE_MS = 20;
/** So long it is waited for a webhook from somebody who may send none. */
const WEBHOOK_MS = 1_500;

/** What the provider is by its nature: which sentences of the contract are asked of its adapter. */
export interface Traits {
  /** Whether the create only takes the order, or is the whole run. */
  readonly ends: "later" | "in the call";
  readonly webhooks: "signed" | "unsigned" | "none";
  /** Whether a lost order can be looked for. */
  readonly lists: boolean;
  /** Whether a run that is out can be stopped. */
  readonly stops: boolean;
  /** Whether it tells how busy a model is. */
  readonly tellsLoad: boolean;
}

export interface OrderOptions extends Partial<Order> {
  /** What goes wrong with it, in the words of the sandbox: "cut", "slow=30, oom". */
  readonly fault?: string;
  /** Default: words that no other order has. */
  readonly words?: string;
}

/** Everything that one adapter's cases need. */
export interface Bench {
  /** What is ordered. */
  readonly sample: Sample;
  readonly token: string;
  readonly traits: Traits;
  readonly sandbox: Sandbox;
  readonly wire: Wire;
  /** The adapter as it is used: through the wire, with the sandbox's webhook secret. */
  readonly provider: Provider;
  /** What it reported of its exchanges since `calm`. */
  readonly calls: readonly CallRecord[];
  /** What it did not know since `calm`. */
  readonly strange: readonly string[];
  /** Answers and errors that held the token, and submits that sent more than one POST: what must never be. */
  readonly breaches: readonly string[];
  /** Another account of it; an "unconfigured" one was not given the webhook secret. */
  make(options?: Partial<AdapterOptions>, secret?: "unconfigured"): Provider;
  /** The base URL behind an origin. */
  at(origin: string): string;
  /** A name in the provider's form, of nobody. */
  readonly unknownModel: string;
  /** Where nobody listens. */
  readonly nobodyUrl: string;
  /** An order for the adapter's sample. */
  order(options?: OrderOptions): Order;
  ref(order: Order, providerRunId: string): RunRef;
  /** Orders it, and returns the run's id; fails on every other answer. */
  submitted(order: Order, provider?: Provider): Promise<string>;
  /** Orders it and waits for its end, by whichever way it comes. */
  end(order: Order, provider?: Provider): Promise<Look>;
  /** Waits for the end of a run that is out. */
  over(ref: RunRef, provider?: Provider): Promise<Look>;
  /** The deliveries for an order, as soon as they are `enough`. */
  letters(order: Order, enough: (letters: readonly Letter[]) => boolean): Promise<readonly Letter[]>;
  /** How many runs the provider believes it sold, since `calm`. */
  bought(): number;
  /** The requests that buy: what `submit` sent since `calm`. */
  posts(): readonly Seen[];
  /** What the provider says when it refuses, with another status and in other words. */
  refusal(status: number, words: string): string;
  /** Forgets what happened and repairs everything. */
  calm(): void;
  close(): Promise<void>;
}

export async function startBench(adapter: Adapter, sample: Sample): Promise<Bench> {
  const face = ALL_FACES.find(({ name }) => name === adapter.api);
  if (!face)
    throw new Error(
      `the sandbox does not speak "${adapter.api}"; it speaks ${ALL_FACES.map(({ name }) => name).join(", ")}. ` +
        `Give it a face: sandbox/${adapter.api}/face.ts, and a line in sandbox/faces.ts`,
    );
  const hook = await startHook();
  const sandbox = await startSandbox({ speed: SPEED, webhookRelay: hook.url, tokens: [TOKEN] });
  const wire = await startWire(sandbox.url);
  const close = async () => {
    await wire.close();
    await Promise.all([sandbox.close(), hook.close()]);
  };
  try {
    return await furnish(adapter, { sample, prefix: face.prefix, hook, sandbox, wire, close });
  } catch (error) {
    await close();
    throw error;
  }
}

interface Parts {
  readonly sample: Sample;
  readonly prefix: string;
  readonly hook: Hook;
  readonly sandbox: Sandbox;
  readonly wire: Wire;
  close(): Promise<void>;
}

async function furnish(adapter: Adapter, parts: Parts): Promise<Bench> {
  const { sample, prefix, hook, sandbox, wire, close } = parts;
  const calls: CallRecord[] = [];
  const strange: string[] = [];
  const breaches: string[] = [];
  let orders = 0;
  let version: string | null = null;
  const nobodyUrl = `http://127.0.0.1:${await freePort()}`;
  const at = (origin: string) => `${origin}${prefix}`;

  const make = (options: Partial<AdapterOptions> = {}, secret?: "unconfigured"): Provider =>
    watched(
      adapter.make({
        name: "contract",
        token: TOKEN,
        baseUrl: at(wire.url),
        ...(secret === undefined && { webhookSecret: sandbox.webhookSecret }),
        totalMs: TOTAL_MS,
        onCall: (record) => calls.push(record),
        onStrange: (what) => strange.push(what),
        ...(sample.endpoints && { endpoints: sample.endpoints }),
        ...options,
      }),
      wire,
      breaches,
    );
  const provider = make();

  function order({ fault, words, ...rest }: OrderOptions = {}): Order {
    orders += 1;
    const prompt = `${words ?? `a lighthouse, number ${orders}.`}${fault === undefined ? "" : ` [sandbox: ${fault}]`}`;
    return {
      runId: `01a1fd7e-dece-74ed-bed5-${String(orders).padStart(12, "0")}`,
      model: sample.model,
      version,
      input: sample.input(prompt),
      destination: null,
      webhookUrl: `https://app.example.test/hooks/contract/${orders}/token-${orders}`,
      sendBefore: new Date(Date.now() + 30_000),
      cancelAfterSeconds: 300,
      ...rest,
    };
  }
  const ref = ({ model, destination }: Order, providerRunId: string): RunRef => ({
    providerRunId,
    model,
    isTraining: destination !== null,
  });

  async function submitted(wanted: Order, by = provider): Promise<string> {
    const answer = await by.submit(wanted);
    assert.ok(answer.outcome === "submitted", `the order was not accepted: ${print(answer)}`);
    return answer.providerRunId;
  }
  async function over(run: RunRef, by = provider): Promise<Look> {
    return await until(`the end of the run ${run.providerRunId}`, async () => {
      const look = await by.look(run);
      return look.status === "running" ? null : look;
    });
  }
  async function end(wanted: Order, by = provider): Promise<Look> {
    const answer = await by.submit(wanted);
    if (answer.outcome === "completed") return answer.end;
    assert.ok(answer.outcome === "submitted", `the order was not accepted: ${print(answer)}`);
    return await over(ref(wanted, answer.providerRunId), by);
  }
  async function letters(wanted: Order, enough: (letters: readonly Letter[]) => boolean) {
    const url = wanted.webhookUrl;
    assert.ok(url !== null);
    return await until("the webhooks", async () => {
      const arrived = hook.letters(url);
      return enough(arrived) ? arrived : null;
    });
  }

  function calm(): void {
    wire.calm();
    wire.clear();
    sandbox.faults.clear();
    sandbox.resetBill();
    calls.length = 0;
    strange.length = 0;
  }
  const bought = () => sandbox.bill().lines.length;
  const posts = () => wire.seen.filter(({ method }) => method === "POST");

  const resolved = await provider.resolve(sample.model);
  assert.ok(resolved.outcome === "resolved", `the sample "${sample.model}" was not resolved: ${print(resolved)}`);
  version = resolved.version;

  // Its nature, from what the sandbox's face does and not from what the adapter says of it.
  const first = order();
  const answer = await provider.submit(first);
  assert.ok(
    answer.outcome === "submitted" || answer.outcome === "completed",
    `the sample cannot be bought: ${print(answer)}`,
  );
  const later = answer.outcome === "submitted";
  if (later) await over(ref(first, answer.providerRunId));
  const heard = await until("a webhook", async () => hook.letters(first.webhookUrl ?? "")[0] ?? null, WEBHOOK_MS).catch(
    () => null,
  );
  const isSigned = heard !== null && Object.keys(heard.headers).some((name) => name.includes("signature"));
  const sought = await provider.find(first, new Date(), async () => false);
  const stops = later && (await learnWhetherItStops());
  const refusal = await learnRefusal();
  calm();

  return {
    sample,
    token: TOKEN,
    traits: {
      ends: later ? "later" : "in the call",
      webhooks: heard === null ? "none" : isSigned ? "signed" : "unsigned",
      lists: sought.outcome !== "unlistable",
      stops,
      tellsLoad: provider.load !== undefined,
    },
    sandbox,
    wire,
    provider,
    calls,
    strange,
    breaches,
    make,
    at,
    unknownModel: sample.model
      .split("/")
      // Some look up what is behind the second name only when it runs.
      .map((name, index, all) => (index === Math.min(1, all.length - 1) ? `${name}-nobody` : name))
      .join("/"),
    nobodyUrl,
    order,
    ref,
    submitted,
    end,
    over,
    letters,
    bought,
    posts,
    refusal,
    calm,
    close,
  };

  /** Nobody is asked to stop where nobody can. */
  async function learnWhetherItStops(): Promise<boolean> {
    const running = order({ fault: "slow=2" });
    const run = ref(running, await submitted(running));
    wire.clear();
    await provider.cancel(run);
    return wire.seen.length > 0;
  }

  /** The face refuses an order once; what it says is then said with other words. */
  async function learnRefusal(): Promise<Bench["refusal"]> {
    wire.clear();
    await provider.submit(order({ fault: "no_credit" }));
    const said = posts().at(-1);
    const body: unknown = JSON.parse(said?.answer ?? "");
    return (status, words) =>
      JSON.stringify(body, (_key, value: unknown) => {
        if (value === said?.status) return status;
        // A sentence has spaces; a code has none.
        return typeof value === "string" && value.includes(" ") ? words : value;
      });
  }
}

/** Looks on at everything that comes out of an adapter. */
function watched(provider: Provider, wire: Wire, breaches: string[]): Provider {
  const hear = async <T>(what: string, asked: Promise<T>): Promise<T> => {
    try {
      const said = await asked;
      if (print(said).includes(TOKEN)) breaches.push(`the token is in what ${what} answered: ${print(said)}`);
      return said;
    } catch (error) {
      if (wordsOf(error).includes(TOKEN)) breaches.push(`the token is in an error of ${what}: ${wordsOf(error)}`);
      throw error;
    }
  };
  const { load } = provider;
  return {
    ...provider,
    ...(load && { load: (model: string) => hear("load", load(model)) }),
    resolve: (model, options) => hear("resolve", provider.resolve(model, options)),
    offer: (file) => hear("offer", provider.offer(file)),
    destination: (name) => hear("destination", provider.destination(name)),
    async submit(order): Promise<Answer> {
      const isOurs = (seen: Seen) => seen.method === "POST" && seen.body.includes(markOf(order));
      const before = wire.seen.filter(isOurs).length;
      const answer = await hear("submit", provider.submit(order));
      const sent = wire.seen.filter(isOurs).length - before;
      if (sent > 1) breaches.push(`one submit sent ${sent} POSTs; its answer was ${print(answer)}`);
      return answer;
    },
    look: (ref) => hear("look", provider.look(ref)),
    cancel: (ref) => hear("cancel", provider.cancel(ref)),
    find: (order, sentAt, isTaken) => hear("find", provider.find(order, sentAt, isTaken)),
    verifyWebhook: (headers, body) => hear("verifyWebhook", provider.verifyWebhook(headers, body)),
  };
}

/** What the body of this order has and no other: its number. */
function markOf(order: Order): string {
  return /number \d+\./.exec(wordsIn(order.input))?.[0] ?? "\n";
}

/** Some inputs are circles on purpose. */
function wordsIn(input: Order["input"]): string {
  try {
    return JSON.stringify(input);
  } catch {
    return "";
  }
}

function wordsOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return [error.message, error.stack, error.cause === undefined ? "" : wordsOf(error.cause)].join("\n");
}

export async function until<T>(what: string, ask: () => Promise<T | null>, limitMs = PATIENCE_MS): Promise<T> {
  const deadline = performance.now() + limitMs;
  while (performance.now() < deadline) {
    const got = await ask();
    if (got !== null) return got;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  throw new Error(`waited ${limitMs} ms in vain for ${what}`);
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** For a message. */
export function print(value: unknown): string {
  return (
    JSON.stringify(value, (_key, it: unknown) => (typeof it === "string" ? it.slice(0, 500) : it)) ?? "nothing"
  ).slice(0, 1_500);
}
