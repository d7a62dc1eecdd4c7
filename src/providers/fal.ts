import { z } from "zod";
import type { FailureCode } from "../domain/failure.ts";
import {
  type Answer,
  type Delivery,
  declined,
  type Look,
  type OfferedFile,
  OfferRefused,
  type Order,
  type Provider,
  ProviderUnreachable,
  postponed,
  type RunRef,
  WebhookRefused,
} from "../domain/provider.ts";
import { type Adapter, type AdapterOptions, codeOfForbidden, isLoopback } from "./adapter.ts";
import { isVerdict, modelFailure, type Problem, problemIn, verdictOf, wordsOf } from "./fal-result.ts";
import { checkFalWebhook, makeFalKeys } from "./fal-webhook.ts";
import { ask, type Call, parseJson, printJson, type Reply, retryAfterMs, sendOnce } from "./http.ts";
import { progressOf } from "./tqdm.ts";

const BASE_URL = "https://queue.fal.run";
const REST_URL = "https://rest.fal.ai";
const TOTAL_MS = 15_000;
/** A file of some tens of MB over a home uplink; only a laptop without a public store uploads at all. */
const UPLOAD_MS = 60_000;
/** More has to be uploaded in parts. */
const MOST_UPLOAD_BYTES = 90_000_000;
const UNAVAILABLE_RETRY_MS = 2_000;
/** The provider insists on more than one second. */
const MIN_START_SECONDS = 2;

const Id = z.string().min(1).max(200);
const Accepted = z.object({ request_id: Id });
const Status = z.object({
  status: z.string(),
  logs: z.array(z.object({ message: z.string().catch("") })).catch([]),
  metrics: z.object({ inference_time: z.number().nullable().catch(null) }).catch({ inference_time: null }),
  error_type: z.string().nullable().catch(null),
});
const Absent = z.object({ status: z.literal("NOT_FOUND") });
const Upload = z.object({ upload_url: z.url(), file_url: z.url() });
const Delivered = z.object({ request_id: Id, status: z.string() });

/** fal's queue. A run is known there by its request id, below the application that its model belongs to. */
function makeFal(options: AdapterOptions): Provider {
  const { name, token, onCall, onStrange = () => {} } = options;
  const base = options.baseUrl.replace(/\/+$/, "");
  const { queue, rest } = hostsOf(base);
  const totalMs = options.totalMs ?? TOTAL_MS;
  const clock = options.clock ?? (() => new Date());
  const keys = makeFalKeys({
    fetch: async () => {
      const reply = await ask({ method: "GET", url: `${rest}/.well-known/jwks.json`, headers: {}, totalMs, onCall });
      if (reply.status >= 300) throw new ProviderUnreachable(`webhook keys: answered ${reply.status}`);
      return parseJson(reply.body);
    },
    clock,
    onStrange,
  });

  /** The provider's own words, without the things that must not reach our records. */
  function words(body: string, ...hidden: readonly (string | null)[]): string {
    const problem = problemIn(body);
    const said = problem === null ? body : wordsOf(problem);
    const clean = [token, ...hidden].reduce<string>((text, it) => (it ? text.replaceAll(it, "[hidden]") : text), said);
    return problem === null ? clean.slice(0, 500) : clean;
  }

  function call(method: Call["method"], url: string, more: Partial<Call> = {}): Call {
    const type = more.body === undefined ? undefined : { "content-type": "application/json" };
    return {
      method,
      url,
      totalMs,
      onCall,
      ...more,
      headers: { authorization: `Key ${token}`, ...type, ...more.headers },
    };
  }

  async function offer(file: OfferedFile): Promise<string> {
    if (isLoopback(base) || file.url.startsWith("https:")) return file.url;
    if (file.bytes > MOST_UPLOAD_BYTES)
      throw new OfferRefused(
        "input_too_large",
        `${file.filename} has ${file.bytes} bytes, and the provider takes uploads of ${MOST_UPLOAD_BYTES} only: use a store that it can reach (STORAGE_PROVIDER=s3)`,
      );

    const body = JSON.stringify({ content_type: file.contentType, file_name: file.filename });
    const begun = await ask(call("POST", `${rest}/storage/upload/initiate?storage_type=fal-cdn-v3`, { body }));
    const place = Upload.safeParse(parseJson(begun.body)).data;
    if (begun.status >= 300 || !place)
      throw new ProviderUnreachable(`upload of ${file.filename}: answered ${begun.status}: ${words(begun.body)}`);
    // The address is the permission: our key goes to the provider's API only.
    const put = await ask({
      method: "PUT",
      url: place.upload_url,
      headers: { "content-type": file.contentType },
      body: await file.read(),
      totalMs: Math.max(totalMs, UPLOAD_MS),
      onCall,
    });
    if (put.status >= 300)
      throw new ProviderUnreachable(`upload of ${file.filename}: its store answered ${put.status}: ${words(put.body)}`);
    return place.file_url;
  }

  async function submit(order: Order): Promise<Answer> {
    const at = splitModel(order.model);
    if (at === null) return declined("model_not_found", notAName(order.model));
    if (order.destination !== null) return declined("model_not_found", TRAINS_NOTHING);
    if (order.webhookUrl !== null && !order.webhookUrl.startsWith("https://"))
      return declined("input_refused", "the webhook URL is not https");
    const body = printJson(order.input);
    if (body === null) return declined("input_refused", "the input cannot be written as JSON");

    const webhook = order.webhookUrl === null ? "" : `?fal_webhook=${encodeURIComponent(order.webhookUrl)}`;
    const seconds = Math.max(MIN_START_SECONDS, Math.ceil(order.cancelAfterSeconds));
    const headers = {
      // Whether it is tried again is for us to decide, as it may be paid for again.
      "x-fal-no-retry": "1",
      // Bounds the time until it starts only; what runs too long is stopped by us.
      "x-fal-request-timeout": String(seconds),
    };
    const create = call("POST", `${queue}/${at.path}${webhook}`, { body, headers });
    const sent = await sendOnce(create, { sendBefore: order.sendBefore, clock });
    if (sent.sent === "no") return postponed("provider_unavailable", sent.detail, UNAVAILABLE_RETRY_MS);
    if (sent.sent === "unknown") return { outcome: "lost", detail: sent.detail };
    // It is in the address, and pages of proxies like to show that.
    return answerOf(sent, (text) => words(text, order.webhookUrl, encodeURIComponent(order.webhookUrl ?? "")));
  }

  async function look(ref: RunRef): Promise<Look> {
    const url = urlOf(ref);
    const reply = await ask(call("GET", `${url}/status?logs=1`));
    // A 404 of some proxy in between is not the provider's word that it knows no such run.
    if (reply.status === 404 && isAbsent(reply.body)) return { status: "gone" };
    const { data: found } = Status.safeParse(parseJson(reply.body));
    if (reply.status >= 300 || !found)
      throw new ProviderUnreachable(`status: no usable answer (${reply.status}): ${words(reply.body)}`);
    switch (found.status) {
      case "IN_QUEUE":
        return { status: "running", progress: null };
      case "IN_PROGRESS":
        return { status: "running", progress: progressOf(found.logs.map(({ message }) => message).join("\n")) };
      case "COMPLETED":
        return verdict(url, found);
      default:
        // A new word is more likely a new way to be busy than a new way to end; the run's own deadline bounds the wait.
        onStrange(`request ${ref.providerRunId} has the unknown status "${found.status}"`);
        return { status: "running", progress: null };
    }
  }

  /** Failed and cancelled runs are "completed" too: only the result tells them apart, by its HTTP status. */
  async function verdict(url: string, found: z.infer<typeof Status>): Promise<Look> {
    const isAnswer = (reply: Reply) => isVerdict(reply, found.error_type);
    const result = await ask(call("GET", url, { isAnswer }));
    const look = verdictOf(result, found.metrics.inference_time, onStrange);
    if (look === null)
      throw new ProviderUnreachable(`result: no usable answer (${result.status}): ${words(result.body)}`);
    return look;
  }

  /** Meant for what has not started; what runs may end as if nobody had asked. */
  async function cancel(ref: RunRef): Promise<void> {
    const reply = await ask(call("PUT", `${urlOf(ref)}/cancel`));
    // Unknown there, or ended already and therefore refused: nothing is left to be stopped. `look` has the verdict.
    if (reply.status < 300 || [400, 404, 409, 410].includes(reply.status)) return;
    throw new ProviderUnreachable(`cancel answered ${reply.status}: ${words(reply.body)}`);
  }

  /** The submission's subpath is no part of it. */
  function urlOf({ model, providerRunId }: RunRef): string {
    const at = splitModel(model);
    if (at === null) throw new Error(notAName(model));
    return `${queue}/${at.app}/requests/${encodeURIComponent(providerRunId)}`;
  }

  async function verifyWebhook(
    headers: Readonly<Record<string, string | undefined>>,
    rawBody: string,
  ): Promise<Delivery> {
    const verdict = await checkFalWebhook(headers, rawBody, keys, clock());
    if (verdict.verdict !== "genuine") throw new WebhookRefused(`${verdict.verdict}: ${verdict.reason}`);
    const delivered = Delivered.safeParse(parseJson(rawBody));
    if (!delivered.success)
      throw new WebhookRefused("malformed: signed by the provider, but the body has no request_id and status");
    const { request_id: providerRunId, status } = delivered.data;
    // A run is told of once, when it is over, and the sender repeats nothing but that.
    return { deliveryId: providerRunId, providerRunId, status, ended: true };
  }

  return {
    name,
    api: "fal",
    submitMs: totalMs,
    signsWebhooks: true,
    /** fal documents no way to look a model up and has no versions: a name that it does not know is told at submission. */
    resolve: async (model) =>
      splitModel(model) === null
        ? declined("model_not_found", notAName(model))
        : { outcome: "resolved", version: null },
    offer,
    destination: async () => declined("model_not_found", TRAINS_NOTHING),
    submit,
    look,
    cancel,
    /** fal documents no list of requests: a run whose answer was lost is told by its webhook, or never. */
    find: async () => ({ outcome: "unlistable" }),
    verifyWebhook,
  };
}

export const fal: Adapter = {
  api: "fal",
  baseUrl: BASE_URL,
  statusPage: "https://status.fal.ai",
  sample: { model: "fal-ai/flux/schnell", input: (prompt) => ({ prompt }) },
  make: makeFal,
};

/** fal keeps its queue and its storage on two hosts; everywhere else, as in the sandbox, both are below one address. */
function hostsOf(base: string): { readonly queue: string; readonly rest: string } {
  return base === BASE_URL ? { queue: BASE_URL, rest: REST_URL } : { queue: `${base}/queue`, rest: `${base}/rest` };
}

/**
 * What a submission came to, once there is an answer. Whatever is not on this list is lost, never sent again: of the
 * 5xx that fal documents none says that the queue did not take the order, and those about runners say that it did.
 */
function answerOf(reply: Reply, words: (body: string) => string): Answer {
  const { status, body } = reply;
  if (status === 429) return postponed("rate_limited", words(body), retryAfterMs(reply));
  if (status >= 200 && status < 300) {
    const accepted = Accepted.safeParse(parseJson(body));
    if (accepted.success) return { outcome: "submitted", providerRunId: accepted.data.request_id };
  }
  const problem = problemIn(body);
  // A page of some proxy in between proves nothing, and neither does a word about time or about a lost connection.
  if (status < 400 || status >= 500 || status === 408 || status === 499 || problem === null)
    return { outcome: "lost", detail: `answered ${status}: ${words(body)}`.slice(0, 2_000) };
  return declined(refusalOf(status, problem), words(body));
}

function refusalOf(status: number, { detail }: Problem): FailureCode {
  if (status === 402) return "provider_no_credit";
  if (status === 401 || status === 403) {
    // "User is locked. Reason: Exhausted balance. Top up your balance at …", and also "Reason: TOP_UP."
    const isAboutMoney = typeof detail === "string" && /balance|top.?up|credit|billing/i.test(detail);
    if (status === 403 && isAboutMoney) return "provider_no_credit";
    return status === 403 && typeof detail === "string" ? codeOfForbidden(detail) : "provider_auth";
  }
  if (status === 404) return "model_not_found";
  if (status === 413) return "input_too_large";
  return typeof detail === "string" ? "input_refused" : modelFailure(detail, status);
}

function isAbsent(body: string): boolean {
  return problemIn(body) !== null || Absent.safeParse(parseJson(body)).success;
}

/** "owner/alias", and a path within that application: of "fal-ai/flux/dev", runs are kept below "fal-ai/flux". */
function splitModel(model: string): { readonly path: string; readonly app: string } | null {
  const match = /^((?:workflows\/|comfy\/)?\w[\w.-]*\/\w[\w.-]*)((?:\/\w[\w.-]*)*)$/.exec(model);
  return match?.[1] === undefined ? null : { path: model, app: match[1] };
}

const notAName = (model: string) => `"${model}" is not owner/name or owner/name/path`;
const TRAINS_NOTHING = "fal trains nothing for us";
