import { z } from "zod";
import type { FailureCode } from "../domain/failure.ts";
import {
  type Answer,
  type Declined,
  type Delivery,
  type Destination,
  declined,
  type Found,
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
import { checkStandardWebhook } from "./standard-webhook.ts";
import { failureOf, isEnded, ListedPrediction, likeness, lookOf, Prediction } from "./wavespeed-prediction.ts";
import { WAVESPEED_V3, waveSpeedKeyOf } from "./wavespeed-webhook.ts";
import { makeWebhookSecret } from "./webhook-secret.ts";

const TOTAL_MS = 15_000;
/** A file of some tens of MB over a home uplink; only a laptop without a public store uploads at all. */
const UPLOAD_MS = 60_000;
/** It names no limit; more than this is not for one request. */
const MOST_UPLOAD_BYTES = 100_000_000;
const MODELS_FRESH_MS = 60 * 60_000;
/** A model that the list does not have may be newer than our copy of it. */
const MODELS_RETRY_MS = 60_000;
/** More than a thousand models, each with its whole schema. */
const MODELS_BYTES = 32 * 1024 * 1024;
const UNAVAILABLE_RETRY_MS = 2_000;
/** By how much the provider's clock may be behind ours. */
const CLOCK_SKEW_MS = 60_000;
const PAGE_SIZE = 100;
const MAX_PAGES = 20;
/** What is older is deleted there, and says nothing by not being listed. */
const KEPT_MS = 7 * 24 * 60 * 60_000;

/** Around every answer, errors too. `code` is 200 when all is well, whatever the status of HTTP says. */
const Envelope = z.object({ code: z.number(), message: z.string().catch(""), data: z.unknown().optional() });
type Envelope = z.infer<typeof Envelope>;
const Created = z.object({ id: z.string().min(1).max(200) });
const Model = z.object({ model_id: z.string() });
const Page = z.object({ items: z.array(ListedPrediction).nullable() });
const Secret = z.object({ secret: z.string() });
const Balance = z.object({ balance: z.number() }); // US dollars
const Ticket = z.object({
  download_url: z.url(),
  upload: z.object({
    url: z.url(),
    method: z.string().regex(/^put$/i),
    headers: z.record(z.string(), z.string()).catch({}),
  }),
});
const Delivered = z.object({ id: z.string().min(1).max(200), status: z.string().min(1).max(100) });

/** WaveSpeedAI's HTTP API, and everything that speaks it. It is told no time to stop a run: that is left to us. */
function makeWaveSpeed(options: AdapterOptions): Provider {
  const { name, token, onCall, onStrange = () => {} } = options;
  const base = options.baseUrl.replace(/\/+$/, "");
  const isLocal = isLoopback(base);
  const totalMs = options.totalMs ?? TOTAL_MS;
  const clock = options.clock ?? (() => new Date());
  let models: { readonly ids: ReadonlySet<string>; readonly readAt: number } | null = null;
  let reading: Promise<Declined | null> | null = null;
  const secret = makeWebhookSecret({
    given: [options.webhookSecret ?? []].flat(),
    fetch: async () => read(Secret, await ask(call("GET", "/webhook/secret")), "webhook secret").secret,
    clock,
    onStrange,
    check: waveSpeedKeyOf,
  });

  /** The provider's own words, without the things that must not reach our records. */
  function words(reply: Pick<Reply, "body">, ...hidden: readonly string[]): string {
    const envelope = envelopeIn(reply.body);
    const text = envelope && envelope.message !== "" ? envelope.message : reply.body.slice(0, 500);
    return [token, ...hidden].reduce((rest, it) => (it ? rest.replaceAll(it, "[hidden]") : rest), text);
  }

  function call(method: Call["method"], path: string, rest: Pick<Call, "body" | "totalMs" | "maxBytes"> = {}): Call {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    return { method, url: `${base}/api/v3${path}`, totalMs, onCall, ...rest, headers };
  }

  /** For everything but submit: the fields we read, or ProviderUnreachable. */
  function read<T>(schema: z.ZodType<T>, reply: Reply, what: string): T {
    const envelope = envelopeIn(reply.body);
    const parsed = schema.safeParse(envelope?.data);
    if (reply.status < 300 && envelope?.code === 200 && parsed.success) return parsed.data;
    const retry = envelope?.code === 429 ? { throttled: true, retryAfterMs: retryAfterMs(reply) } : {};
    throw new ProviderUnreachable(`${what}: no usable answer (${verdictOf(reply)}): ${words(reply)}`, retry);
  }

  async function resolve(model: string, { fresh } = { fresh: false }): Promise<Resolved | Declined | Postponed> {
    if (!isModel(model)) return declined("model_not_found", `"${model}" is not vendor/model or vendor/model/variant`);
    try {
      const age = models === null ? Number.POSITIVE_INFINITY : clock().getTime() - models.readAt;
      const isKnown = models?.ids.has(model) ?? false;
      if (fresh || age >= (isKnown ? MODELS_FRESH_MS : MODELS_RETRY_MS)) {
        // Whoever comes meanwhile waits for the same reading: the list is long.
        reading ??= readModels().finally(() => {
          reading = null;
        });
        const refusal = await reading;
        if (refusal) return refusal;
      }
      if (models?.ids.has(model)) return { outcome: "resolved", version: null };
      return declined("model_not_found", `${model} is not in the provider's list of models`);
    } catch (error) {
      return postponedBy(error, UNAVAILABLE_RETRY_MS);
    }
  }

  /** Null: `models` is fresh. */
  async function readModels(): Promise<Declined | null> {
    const reply = await ask(call("GET", "/models", { maxBytes: MODELS_BYTES }));
    if (envelopeIn(reply.body) && [401, 403].includes(verdictOf(reply))) return declined("provider_auth", words(reply));
    const list = read(z.array(Model), reply, "models");
    models = { ids: new Set(list.map(({ model_id }) => model_id)), readAt: clock().getTime() };
    return null;
  }

  async function offer(file: OfferedFile): Promise<string> {
    if (isLocal || file.url.startsWith("https:")) return file.url;
    if (file.bytes > MOST_UPLOAD_BYTES)
      throw new OfferRefused(
        "input_too_large",
        `${file.filename} has ${file.bytes} bytes, and at most ${MOST_UPLOAD_BYTES} are uploaded: use a store that the provider can reach (STORAGE_PROVIDER=s3)`,
      );
    const body = JSON.stringify({ filename: file.filename, size: file.bytes, content_type: file.contentType });
    const what = `upload of ${file.filename}`;
    const { upload, download_url } = read(Ticket, await ask(call("POST", "/media/uploads", { body })), what);
    const { url, headers } = upload;
    if (!url.startsWith("https:") && new URL(url).origin !== new URL(base).origin)
      throw new ProviderUnreachable(`${what}: told to send it unencrypted, to ${new URL(url).host}`);
    // A link of its storage, which carries its own permission: our token is not for it.
    const uploadMs = Math.max(totalMs, UPLOAD_MS);
    const put = await ask({ method: "PUT", url, headers, body: await file.read(), totalMs: uploadMs, onCall });
    if (put.status >= 300) throw new ProviderUnreachable(`${what}: its storage answered ${put.status}`);
    return download_url;
  }

  async function submit(order: Order): Promise<Answer> {
    if (!isModel(order.model)) return declined("model_not_found", `"${order.model}" is not vendor/model`);
    if (order.destination !== null) return declined("model_not_found", NO_TRAININGS);
    const { webhookUrl } = order;
    if (webhookUrl !== null && !webhookUrl.startsWith("https://"))
      return declined("input_refused", "the webhook URL is not https");
    const body = printJson(order.input);
    if (body === null) return declined("input_refused", "the input cannot be written as JSON");

    const encoded = encodeURIComponent(webhookUrl ?? "");
    const create = call("POST", `/${order.model}${webhookUrl === null ? "" : `?webhook=${encoded}`}`, { body });
    const sent = await sendOnce(create, { sendBefore: order.sendBefore, clock });
    if (sent.sent === "no") return postponed("provider_unavailable", sent.detail, UNAVAILABLE_RETRY_MS);
    if (sent.sent === "unknown") return { outcome: "lost", detail: sent.detail };
    return answerOf(sent, words(sent, webhookUrl ?? "", encoded));
  }

  async function look(ref: RunRef): Promise<Look> {
    const reply = await ask(call("GET", `${pathOf(ref)}/result`));
    // A 404 of some proxy in between is not the provider's word that it knows no such run.
    if (verdictOf(reply) === 404 && envelopeIn(reply.body)) return { status: "gone" };
    return lookOf(read(Prediction, reply, pathOf(ref)), onStrange);
  }

  /** It has one word for stopping a run and for deleting what it made: said only of what still runs. */
  async function cancel(ref: RunRef): Promise<void> {
    const deadline = performance.now() + totalMs;
    if ((await look(ref)).status !== "running") return;
    const left = Math.max(1, deadline - performance.now());
    const reply = await ask(call("DELETE", pathOf(ref), { totalMs: left }));
    const verdict = verdictOf(reply);
    // Unknown there, or over already: nothing is left to be stopped. `look` has the verdict.
    if (verdict < 300 || [400, 404, 409, 410, 422].includes(verdict)) return;
    throw new ProviderUnreachable(`cancel answered ${verdict}: ${words(reply)}`);
  }

  async function find(
    order: Order,
    sentAt: Date,
    isTaken: (providerRunId: string) => Promise<boolean>,
  ): Promise<Found> {
    const since = sentAt.getTime() - CLOCK_SKEW_MS;
    const now = clock().getTime();
    if (now - since > KEPT_MS) return { outcome: "unread" };
    const deadline = performance.now() + totalMs;
    // Not by model or status: a filter that is understood otherwise would show an empty list.
    const query = {
      page_size: PAGE_SIZE,
      created_after: new Date(since).toISOString(),
      created_before: new Date(now + CLOCK_SKEW_MS).toISOString(),
      include_inputs: true,
    };
    let doubtful = false;
    try {
      for (let page = 1; page <= MAX_PAGES; page++) {
        const left = deadline - performance.now();
        if (left <= 0) return { outcome: "unread" };
        const body = JSON.stringify({ page, ...query });
        const { items } = read(Page, await ask(call("POST", "/predictions", { body, totalMs: left })), "list");
        const ofTheTime = (items ?? []).filter((listed) => !(Date.parse(listed.created_at) < since));
        for (const listed of ofTheTime) {
          const like = likeness(listed, order);
          if (like === "other" || (await isTaken(listed.id))) continue;
          if (like === "same") return { outcome: "found", providerRunId: listed.id };
          doubtful = true;
        }
        // Newest first. A short page may be followed by another: only one without anything of that time is the end.
        if (ofTheTime.length === 0) return { outcome: doubtful ? "unread" : "absent" };
      }
      return { outcome: "unread" };
    } catch (error) {
      if (error instanceof ProviderUnreachable) return { outcome: "unread" };
      throw error;
    }
  }

  async function verifyWebhook(
    headers: Readonly<Record<string, string | undefined>>,
    rawBody: string,
  ): Promise<Delivery> {
    const check = () => checkStandardWebhook(headers, rawBody, secret.known(), clock(), WAVESPEED_V3);
    let verdict = check();
    if (verdict.verdict === "forged" && (await secret.renew())) verdict = check();
    if (verdict.verdict === "forged" && secret.known().length === 0)
      throw new WebhookRefused("unverifiable: the provider did not tell the account's webhook secret. Configure it.");
    if (verdict.verdict !== "genuine") throw new WebhookRefused(`${verdict.verdict}: ${verdict.reason}`);

    const delivered = Delivered.safeParse(parseJson(rawBody));
    if (!delivered.success)
      throw new WebhookRefused("malformed: signed by the provider, but the body has no id and status");
    const { id: providerRunId, status } = delivered.data;
    // Whether a repetition keeps its webhook-id is not documented. A run ends once, so this is equal for certain.
    return { deliveryId: `${providerRunId}.${status}`, providerRunId, status, ended: isEnded(status) };
  }

  return {
    name,
    api: "wavespeed",
    submitMs: totalMs,
    signsWebhooks: true,
    resolve,
    offer,
    destination: async (): Promise<Destination | Declined> => declined("model_not_found", NO_TRAININGS),
    submit,
    look,
    cancel,
    find,
    verifyWebhook,
    balance: async () => read(Balance, await ask(call("GET", "/balance")), "balance").balance * 1_000_000,
  };
}

export const waveSpeed: Adapter = {
  api: "wavespeed",
  baseUrl: "https://api.wavespeed.ai",
  sample: { model: "wavespeed-ai/flux-schnell", input: (prompt) => ({ prompt }) },
  make: makeWaveSpeed,
};

const NO_TRAININGS = "trainings are not bought at WaveSpeed: give the model a route to another provider";

const pathOf = ({ providerRunId }: Pick<RunRef, "providerRunId">) =>
  `/predictions/${encodeURIComponent(providerRunId)}`;

/** What a create came to, once there is an answer. Whatever is not on this list is lost, never sent again. */
function answerOf(reply: Reply, words: string): Answer {
  const envelope = envelopeIn(reply.body);
  if (reply.status === 429 || envelope?.code === 429) return postponed("rate_limited", words, retryAfterMs(reply));
  // With an id it exists, whatever else is said: 5004 only means that nobody waits for it any more.
  const created = Created.safeParse(envelope?.data);
  if (reply.status < 500 && created.success) return { outcome: "submitted", providerRunId: created.data.id };

  const verdict = verdictOf(reply);
  const isRefusal = (verdict >= 400 && verdict < 500) || (verdict >= 1_000 && verdict < 2_000);
  // A page of some proxy in between proves nothing about the provider, and neither does a 408, whoever says it.
  if (reply.status >= 500 || !envelope || !isRefusal || verdict === 408)
    return { outcome: "lost", detail: `answered ${verdict}: ${words}`.slice(0, 2_000) };
  return declined(refusalOf(verdict, words), words);
}

const BLAMES_BALANCE =
  /insufficient (account )?(credits?|balance|funds)|\b(credits?|balance)\b.*\b(insufficient|not enough|too low)|top[- ]?up/i;

function refusalOf(verdict: number, words: string): FailureCode {
  if (verdict === 402 || ([400, 403].includes(verdict) && BLAMES_BALANCE.test(words))) return "provider_no_credit";
  if (verdict === 401) return "provider_auth";
  if (verdict === 403) return codeOfForbidden(words);
  if (verdict === 404) return "model_not_found";
  if (verdict === 413) return "input_too_large";
  return failureOf(verdict, words) === "content_refused" ? "content_refused" : "input_refused";
}

/** The status of HTTP, or the envelope's code where HTTP says that all is well. */
function verdictOf(reply: Pick<Reply, "status" | "body">): number {
  return reply.status < 300 ? (envelopeIn(reply.body)?.code ?? reply.status) : reply.status;
}

/** Null when the body is somebody else's. */
function envelopeIn(body: string): Envelope | null {
  return Envelope.safeParse(parseJson(body)).data ?? null;
}

/** Two to four names: a path that leads nowhere else. */
function isModel(model: string): boolean {
  return /^[a-z0-9][\w.-]*(\/[a-z0-9][\w.-]*){1,3}$/i.test(model) && !/^(predictions|media|webhook)\//i.test(model);
}
