import { z } from "zod";
import { isOwn } from "../domain/catalogue.ts";
import type { FailureCode } from "../domain/failure.ts";
import {
  type Answer,
  type Declined,
  type Delivery,
  declined,
  type Load,
  type Look,
  type OfferedFile,
  OfferRefused,
  type Order,
  type Postponed,
  type Provider,
  ProviderUnreachable,
  postponed,
  postponedBy,
  type Resolved,
  type RunRef,
  WebhookRefused,
} from "../domain/provider.ts";
import { type Adapter, type AdapterOptions, codeOfForbidden, isLoopback } from "./adapter.ts";
import { ask, type Call, parseJson, printJson, type Reply, retryAfterMs, sendOnce } from "./http.ts";
import { ENDED, failureOf, Job, lookOf } from "./runpod-job.ts";

const TOTAL_MS = 15_000;
/** Outputs come inside the answer, as base64. */
const MOST_JOB_BYTES = 64 * 1024 * 1024;
/** The provider's own limit for /run. */
const MOST_ORDER_BYTES = 10_000_000;
const MODEL_FRESH_MS = 60 * 60_000;
const MAX_MODELS = 1_000;
const UNAVAILABLE_RETRY_MS = 2_000;

/** What the provider takes, in ms. */
const EXECUTION_MS = { min: 5_000, max: 7 * 24 * 3_600_000 } as const;
const TTL_MS = { min: 10_000, max: 7 * 24 * 3_600_000 } as const;

const Created = z.object({ id: z.string().min(1).max(200) });
const Delivered = z.object({ id: z.string().min(1).max(200), status: z.string().max(100) });
const Problem = z.object({
  error: z.unknown().optional(),
  message: z.unknown().optional(),
  detail: z.unknown().optional(),
});
const count = z.number().int().nonnegative().catch(0);
const Health = z.object({
  jobs: z.object({ inQueue: count, inProgress: count }),
  workers: z.object({ idle: count, running: count, throttled: count, initializing: count }),
});

/**
 * RunPod serverless: its public endpoints by their ids, and endpoints of ours by names that begin with "own/". A model
 * is an endpoint, and a run is known below its endpoint only.
 */
function makeRunpod(options: AdapterOptions): Provider {
  const { name, token, onCall, endpoints = {}, onStrange = () => {} } = options;
  const base = options.baseUrl.replace(/\/+$/, "");
  const isLocal = isLoopback(base);
  const totalMs = options.totalMs ?? TOTAL_MS;
  const clock = options.clock ?? (() => new Date());
  const seenAt = new Map<string, number>();

  function endpointOf(model: string): string | null {
    if (isOwn(model)) return Object.hasOwn(endpoints, model) ? (endpoints[model] ?? null) : null;
    return /^[A-Za-z0-9][\w-]{0,199}$/.test(model) ? model : null;
  }

  function unknownModel(model: string): string {
    if (!isOwn(model)) return `"${model}" is no id of an endpoint`;
    return `no endpoint is configured for "${model}" in the account "${name}": deploy the handler in examples/runpod-handler and name its endpoint in RUNPOD_ENDPOINTS`;
  }

  /** The provider's own words, without the things that must not reach our records. */
  function words(body: string, ...hidden: readonly (string | null)[]): string {
    const hide = (text: string) =>
      [token, ...hidden].reduce<string>((rest, it) => (it ? rest.replaceAll(it, "[hidden]") : rest), text);
    const { error, message, detail } = problemIn(body) ?? {};
    const told = [error, message, detail].find((each) => typeof each === "string" && each !== "");
    return hide(typeof told === "string" ? told : body).slice(0, 500);
  }

  function call(
    method: Call["method"],
    endpoint: string,
    path: string,
    rest: Pick<Call, "body" | "maxBytes"> = {},
  ): Call {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    return { method, url: `${base}/${encodeURIComponent(endpoint)}/${path}`, totalMs, onCall, ...rest, headers };
  }

  /** For everything but submit: the fields we read, or ProviderUnreachable. */
  function read<T>(schema: z.ZodType<T>, reply: Reply, what: string): T {
    const parsed = schema.safeParse(parseJson(reply.body));
    if (reply.status < 300 && parsed.success) return parsed.data;
    throw new ProviderUnreachable(`${what}: no usable answer (${reply.status}): ${words(reply.body)}`);
  }

  async function resolve(model: string, { fresh } = { fresh: false }): Promise<Resolved | Declined | Postponed> {
    const endpoint = endpointOf(model);
    if (endpoint === null) return declined("model_not_found", unknownModel(model));
    const readAt = seenAt.get(model);
    if (readAt !== undefined && !fresh && clock().getTime() - readAt < MODEL_FRESH_MS) return RESOLVED;

    try {
      const reply = await ask(call("GET", endpoint, "health"));
      if (reply.status === 401 || reply.status === 403) return declined("provider_auth", words(reply.body));
      if (reply.status === 404 && !isPage(reply.body)) {
        seenAt.delete(model);
        return declined("model_not_found", `there is no endpoint ${endpoint} for ${model}: ${words(reply.body)}`);
      }
      read(z.looseObject({}), reply, `endpoint ${endpoint}`);
      remember(model);
      return RESOLVED;
    } catch (error) {
      return postponedBy(error, UNAVAILABLE_RETRY_MS);
    }
  }

  function remember(model: string): void {
    seenAt.delete(model);
    seenAt.set(model, clock().getTime());
    const oldest = seenAt.keys().next().value;
    if (seenAt.size > MAX_MODELS && oldest !== undefined) seenAt.delete(oldest);
  }

  async function load(model: string): Promise<Load> {
    const endpoint = knownEndpoint(model);
    const { jobs, workers } = read(Health, await ask(call("GET", endpoint, "health")), `load of ${model}`);
    return { queued: jobs.inQueue, running: jobs.inProgress, workers };
  }

  async function offer(file: OfferedFile): Promise<string> {
    if (isLocal || file.url.startsWith("https:")) return file.url;
    throw new OfferRefused(
      "input_unreachable",
      `RunPod takes no uploads and cannot read ${file.filename} where it lies: use a store that it can reach (STORAGE_PROVIDER=s3)`,
    );
  }

  async function submit(order: Order): Promise<Answer> {
    const endpoint = endpointOf(order.model);
    if (endpoint === null) return declined("model_not_found", unknownModel(order.model));
    if (order.destination !== null) return declined("model_not_found", TRAINS_NOTHING);

    const afterMs = Math.ceil(order.cancelAfterSeconds * 1_000);
    const body = printJson({
      input: isOwn(order.model) ? { ...order.input, intent: intentOf(order, afterMs) } : order.input,
      ...(order.webhookUrl !== null && { webhook: order.webhookUrl }),
      policy: { executionTimeout: within(EXECUTION_MS, afterMs), ttl: within(TTL_MS, afterMs) },
    });
    if (body === null) return declined("input_refused", "the input cannot be written as JSON");
    const bytes = Buffer.byteLength(body);
    if (bytes > MOST_ORDER_BYTES)
      return declined("input_too_large", `the order has ${bytes} bytes, and the provider takes ${MOST_ORDER_BYTES}`);

    const sent = await sendOnce(call("POST", endpoint, "run", { body }), { sendBefore: order.sendBefore, clock });
    if (sent.sent === "no") return postponed("provider_unavailable", sent.detail, UNAVAILABLE_RETRY_MS);
    if (sent.sent === "unknown") return { outcome: "lost", detail: sent.detail };
    const answer = answerOf(sent, (text) => words(text, order.webhookUrl));
    if (answer.outcome === "declined" && answer.failure.code === "model_not_found") seenAt.delete(order.model);
    return answer;
  }

  /**
   * For the handler, which lets each intent begin once, and not after the last instant at which the order could still be
   * waiting there: written in its window, accepted within the call, queued for as long as it may live.
   */
  function intentOf({ runId, sendBefore }: Order, afterMs: number) {
    return { id: runId, not_after: new Date(sendBefore.getTime() + totalMs + afterMs).toISOString() };
  }

  /** Of a run that is out: its endpoint must stay configured until it has ended. */
  function knownEndpoint(model: string): string {
    const endpoint = endpointOf(model);
    if (endpoint === null) throw new ProviderUnreachable(unknownModel(model));
    return endpoint;
  }

  async function look({ model, providerRunId }: RunRef): Promise<Look> {
    const path = `status/${encodeURIComponent(providerRunId)}`;
    const reply = await ask(call("GET", knownEndpoint(model), path, { maxBytes: MOST_JOB_BYTES }));
    // Results are kept for 30 minutes, and a job whose ttl is over is forgotten even while it runs. A page, though, is
    // from somebody in between.
    if (reply.status === 404 && !isPage(reply.body)) return { status: "gone" };
    return lookOf(read(Job, reply, `${model} ${path}`), onStrange);
  }

  async function cancel({ model, providerRunId }: RunRef): Promise<void> {
    const reply = await ask(call("POST", knownEndpoint(model), `cancel/${encodeURIComponent(providerRunId)}`));
    // Unknown there, or ended already and therefore refused: nothing is left to be stopped. `look` has the verdict.
    if (reply.status < 300 || [400, 404, 409, 410, 422].includes(reply.status)) return;
    throw new ProviderUnreachable(`cancel answered ${reply.status}: ${words(reply.body)}`);
  }

  /** Unsigned. What authenticates it is the secret in the address it was sent to, which has been checked before this. */
  async function verifyWebhook(_headers: unknown, rawBody: string): Promise<Delivery> {
    const delivered = Delivered.safeParse(parseJson(rawBody));
    if (!delivered.success) throw new WebhookRefused("malformed: the body has no id and status");
    const { id: providerRunId, status } = delivered.data;
    return { deliveryId: `${providerRunId} ${status}`, providerRunId, status, ended: ENDED.has(status) };
  }

  return {
    name,
    api: "runpod",
    submitMs: totalMs,
    signsWebhooks: false,
    resolve,
    load,
    offer,
    destination: async () => declined("model_not_found", TRAINS_NOTHING),
    submit,
    look,
    cancel,
    // GET /requests is named in the table of rate limits only: nobody has described what it lists.
    find: async () => ({ outcome: "unlistable" }),
    verifyWebhook,
  };
}

export const runpod: Adapter = {
  api: "runpod",
  baseUrl: "https://api.runpod.ai/v2",
  statusPage: "https://uptime.runpod.io",
  sample: { model: "black-forest-labs-flux-1-schnell", input: (prompt) => ({ prompt }) },
  otherSamples: [{ model: "own/flux", input: (prompt) => ({ prompt }), endpoints: { "own/flux": "own-flux-a40" } }],
  make: makeRunpod,
};

const TRAINS_NOTHING = "RunPod trains nothing for us: no route of a training leads there";
const RESOLVED: Resolved = { outcome: "resolved", version: null };

/** What an order came to, once there is an answer. Whatever is not on this list is lost, never sent again. */
function answerOf(reply: Reply, words: (body: string) => string): Answer {
  const { status, body } = reply;
  if (status === 429) return postponed("rate_limited", words(body), retryAfterMs(reply));
  if (status >= 200 && status < 300) {
    const created = Created.safeParse(parseJson(body));
    if (created.success) return { outcome: "submitted", providerRunId: created.data.id };
  }
  const said = words(body);
  const code = refusalOf(status, body, said);
  if (code === null) return { outcome: "lost", detail: `answered ${status}: ${said}` };
  return declined(code, said === "" ? `answered ${status} without a word` : said);
}

/** Null where the answer is no refusal of the provider's, or may not be. */
function refusalOf(status: number, body: string, said: string): FailureCode | null {
  // Its 401 has no body to be relied on; whoever says it, the order went no further.
  if (status === 401) return "provider_auth";
  if (status === 404 && !isPage(body)) return "model_not_found";
  if (problemIn(body) === null) return null;
  if (status === 402) return "provider_no_credit";
  if (status === 403) return codeOfForbidden(said);
  if (status === 413) return "input_too_large";
  if (status !== 400 && status !== 422) return null;
  if (/insufficient (balance|credit|fund)/i.test(said)) return "provider_no_credit";
  return failureOf(said) === "content_refused" ? "content_refused" : "input_refused";
}

/** What the provider says when it refuses; null when the body is somebody else's. */
function problemIn(body: string): z.infer<typeof Problem> | null {
  const problem = Problem.safeParse(parseJson(body)).data;
  return problem && (problem.error ?? problem.message ?? problem.detail) !== undefined ? problem : null;
}

/** Of some proxy in between, which proves nothing about the provider. */
function isPage(body: string): boolean {
  return body.trimStart().startsWith("<");
}

function within({ min, max }: { readonly min: number; readonly max: number }, value: number): number {
  return Math.min(max, Math.max(min, value));
}
