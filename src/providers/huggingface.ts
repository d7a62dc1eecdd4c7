import { z } from "zod";
import { type FailureCode, failure } from "../domain/failure.ts";
import {
  type Answer,
  type Declined,
  declined,
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
import { isVerdict, verdictOf } from "./fal-result.ts";
import { ask, type Call, parseJson, printJson, type Reply, retryAfterMs, sendOnce } from "./http.ts";
import { failureOf, Problem, pathOfRun, picturesIn, QueueStatus, wordsIn } from "./huggingface-reply.ts";

const TOTAL_MS = 15_000;
/** Of a call that is the whole run: a picture takes seconds, and a model that must be loaded first about a minute. */
const SUBMIT_MS = 120_000;
/** Of an answer that holds the picture. */
const MOST_ANSWER_BYTES = 64 * 1024 * 1024;
/** Of a file that is put into the input itself, and with it into our records. */
const MOST_INLINE_BYTES = 8 * 1024 * 1024;
const MODEL_FRESH_MS = 60 * 60_000;
const MAX_MODELS = 1_000;
const UNAVAILABLE_RETRY_MS = 2_000;
const MAX_LOADING_MS = 10 * 60_000;

const HUB = "https://huggingface.co";

/** Upstream providers whose form of a call is written here. "whole": the call is the run; "queue": it takes the order. */
const UPSTREAMS: Readonly<Record<string, Upstream>> = {
  "hf-inference": { way: "whole", path: (id) => `/hf-inference/models/${id}`, body: (input) => input },
  together: {
    way: "whole",
    path: () => "/together/v1/images/generations",
    body: (input, model) => ({ ...input, model }),
  },
  "fal-ai": { way: "queue", path: (id) => `/fal-ai/${id}?_subdomain=queue`, body: (input) => input },
};

interface Upstream {
  readonly way: "whole" | "queue";
  /** Below the router, for the upstream's own name of the model. */
  path(id: string): string;
  body(input: Order["input"], id: string): unknown;
}

/** Where a run is kept, below its upstream: it goes into a path as it is. */
const RUN = /^\w[\w.-]*(\/\w[\w.-]*)+\/requests\/[\w-]+$/;

const Hub = z.object({
  inferenceProviderMapping: z
    .union([z.array(z.looseObject({ provider: z.string() })), z.record(z.string(), z.unknown())])
    .default({}),
});
const Mapped = z.object({ providerId: z.string().regex(/^\w[\w.-]*(\/\w[\w.-]*)*$/), status: z.string() });
const Queued = z.object({ request_id: z.string().regex(/^[\w-]{1,100}$/), response_url: z.string().catch("") });

/**
 * Hugging Face's router, and those behind it that are written here. A model's name is `upstream/owner/name`, as
 * "hf-inference/black-forest-labs/FLUX.1-schnell"; its version is what the upstream calls it.
 */
function make(options: AdapterOptions): Provider {
  const { name, token, onCall, onStrange = () => {} } = options;
  const base = options.baseUrl.replace(/\/+$/, "");
  const isLocal = isLoopback(base);
  const hub = isLocal ? `${base}/hub` : HUB;
  const totalMs = options.totalMs ?? TOTAL_MS;
  const clock = options.clock ?? (() => new Date());
  const models = new Map<string, { readonly version: string; readonly readAt: number }>();

  const words = (body: string) => wordsIn(body).replaceAll(token, "[hidden]").slice(0, 2_000);

  function call(method: "GET" | "POST", url: string, body?: string): Call {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    return { method, url, totalMs, onCall, headers, ...(body !== undefined && { body }) };
  }

  async function resolve(model: string, { fresh } = { fresh: false }): Promise<Resolved | Declined | Postponed> {
    const at = splitModel(model);
    if (at === null) return declined("model_not_found", unnamed(model));
    const known = models.get(model);
    if (known && !fresh && clock().getTime() - known.readAt < MODEL_FRESH_MS)
      return { outcome: "resolved", version: known.version };

    try {
      const reply = await ask(call("GET", `${hub}/api/models/${at.id}?expand[]=inferenceProviderMapping`));
      const isRefusal = Problem.safeParse(parseJson(reply.body)).success;
      // 403: the token lacks the permission, or the model is gated.
      if ((reply.status === 401 || reply.status === 403) && isRefusal)
        return declined(
          reply.status === 401 ? "provider_auth" : codeOfForbidden(wordsIn(reply.body)),
          words(reply.body),
        );
      if (reply.status === 404 && isRefusal) {
        models.delete(model);
        return declined("model_not_found", `${at.id}: ${words(reply.body)}`);
      }
      const found = Hub.safeParse(parseJson(reply.body));
      if (reply.status >= 300 || !found.success)
        throw new ProviderUnreachable(`model ${at.id}: no usable answer (${reply.status}): ${words(reply.body)}`);
      const mapping = found.data.inferenceProviderMapping;
      const entry = Array.isArray(mapping)
        ? mapping.find(({ provider }) => provider === at.upstream)
        : mapping[at.upstream];
      const mapped = Mapped.safeParse(entry).data;
      if (mapped?.status !== "live") {
        models.delete(model);
        const state = mapped ? `is ${mapped.status} at` : "is not served by";
        return declined("model_not_found", `${at.id} ${state} ${at.upstream}`);
      }
      remember(model, mapped.providerId);
      return { outcome: "resolved", version: mapped.providerId };
    } catch (error) {
      return postponedBy(error, UNAVAILABLE_RETRY_MS);
    }
  }

  function remember(model: string, version: string): void {
    models.delete(model);
    models.set(model, { version, readAt: clock().getTime() });
    const oldest = models.keys().next().value;
    if (models.size > MAX_MODELS && oldest !== undefined) models.delete(oldest);
  }

  async function offer(file: OfferedFile): Promise<string> {
    if (isLocal || file.url.startsWith("https:")) return file.url;
    if (file.bytes > MOST_INLINE_BYTES)
      throw new OfferRefused(
        "input_too_large",
        `${file.filename} has ${file.bytes} bytes, and only ${MOST_INLINE_BYTES} fit into an input: use a store that the provider can reach (STORAGE_PROVIDER=s3)`,
      );
    return dataUrl(file.contentType, await file.read());
  }

  async function submit(order: Order): Promise<Answer> {
    const at = splitModel(order.model);
    if (at === null) return declined("model_not_found", unnamed(order.model));
    if (order.destination !== null) return declined("input_refused", "nothing is trained here");
    // hf-inference alone calls a model what the hub calls it.
    const id = order.version ?? (at.upstream === "hf-inference" ? at.id : null);
    if (id === null) return declined("model_not_found", `${at.id} has no name at ${at.upstream}`);
    const body = printJson(at.calls.body(order.input, id));
    if (body === null) return declined("input_refused", "the input cannot be written as JSON");

    const isWhole = at.calls.way === "whole";
    const boundMs = Math.min(isWhole ? SUBMIT_MS : totalMs, order.cancelAfterSeconds * 1_000);
    const create = call("POST", base + at.calls.path(id), body);
    const sent = await sendOnce(
      { ...create, totalMs: boundMs, ...(isWhole && { maxBytes: MOST_ANSWER_BYTES }) },
      { sendBefore: order.sendBefore, clock },
    );
    if (sent.sent === "no") return postponed("provider_unavailable", sent.detail, UNAVAILABLE_RETRY_MS);
    if (sent.sent === "unknown") return { outcome: "lost", detail: sent.detail };

    const answer = isWhole ? wholeOf(sent, order) : queuedOf(sent, id);
    if (answer.outcome === "declined" && answer.failure.code === "model_not_found") models.delete(order.model);
    if (answer.outcome === "lost") onStrange(`${at.upstream} answered ${sent.status} to a create`);
    return answer;
  }

  /** What a call came to whose answer is the output. */
  function wholeOf(reply: Reply, order: Order): Answer {
    const providerRunId = requestId(reply) ?? order.runId;
    const outputs = reply.status === 200 ? picturesIn(reply) : [];
    if (outputs.length > 0) {
      const end = { status: "succeeded", outputs, seconds: null, costMicroUsd: null, trainedVersion: null } as const;
      return { outcome: "completed", providerRunId, end };
    }
    const refusal = refusalOf(reply);
    // What the safety checker holds back was made, and may have cost us; so was what broke while it was made.
    if (refusal?.code === "content_refused" || (refusal && reply.status === 500)) {
      const end = { status: "failed", failure: failure(refusal.code, words(reply.body)), seconds: null } as const;
      return { outcome: "completed", providerRunId, end: { ...end, costMicroUsd: null } };
    }
    return refusedOf(reply, refusal?.code ?? null);
  }

  function queuedOf(reply: Reply, id: string): Answer {
    if (reply.status >= 200 && reply.status < 300) {
      const queued = Queued.safeParse(parseJson(reply.body)).data;
      if (queued) return { outcome: "submitted", providerRunId: pathOfRun(queued, id) };
    }
    return refusedOf(reply, refusalOf(reply)?.code ?? null);
  }

  /** Whatever is not known to mean that nothing was accepted is lost, never sent again. `code` null: not their word. */
  function refusedOf(reply: Reply, code: FailureCode | null): Answer {
    const { status, body } = reply;
    if (status === 429) return postponed("rate_limited", words(body), retryAfterMs(reply));
    const loading = Problem.safeParse(parseJson(body)).data?.estimated_time;
    if (status === 503 && loading !== undefined)
      return postponed("provider_busy", words(body), Math.min(MAX_LOADING_MS, Math.max(500, loading * 1_000)));
    if (code === null || status < 400 || status >= 500 || status === 408)
      return { outcome: "lost", detail: `answered ${status}: ${words(body)}`.slice(0, 2_000) };
    return declined(code, words(body));
  }

  /** A call that was the whole run left nothing to be looked at. */
  async function look(ref: RunRef): Promise<Look> {
    const at = splitModel(ref.model);
    if (at?.calls.way !== "queue" || !RUN.test(ref.providerRunId)) return { status: "gone" };
    const url = `${base}/${at.upstream}/${ref.providerRunId}`;
    const reply = await ask(call("GET", `${url}/status?_subdomain=queue`));
    // A 404 of some proxy in between is not the provider's word that it knows no such run.
    if (reply.status === 404 && Problem.safeParse(parseJson(reply.body)).success) return { status: "gone" };
    const told = QueueStatus.safeParse(parseJson(reply.body));
    if (reply.status >= 300 || !told.success)
      throw new ProviderUnreachable(`status: no usable answer (${reply.status}): ${words(reply.body)}`);
    const { status, metrics, error_type } = told.data;
    if (status !== "COMPLETED") {
      if (status !== "IN_QUEUE" && status !== "IN_PROGRESS") onStrange(`fal-ai has the unknown status "${status}"`);
      return { status: "running", progress: null };
    }
    // Not `ask`: of a run that failed, the result is the error itself, and its number may be 500 for ever.
    const result = await sendOnce(
      { ...call("GET", `${url}?_subdomain=queue`), maxBytes: MOST_ANSWER_BYTES },
      { sendBefore: new Date(clock().getTime() + totalMs), clock },
    );
    if (result.sent !== "answered") throw new ProviderUnreachable(result.detail);
    // It is fal's queue, in fal's words; what the router says for itself is no word about the run.
    const isItsOwn = result.status < 500 || isVerdict(result, error_type);
    const end = isItsOwn ? verdictOf(result, metrics.inference_time, onStrange) : null;
    if (end === null)
      throw new ProviderUnreachable(`result: no usable answer (${result.status}): ${words(result.body)}`);
    return end;
  }

  return {
    name,
    api: "huggingface",
    submitMs: SUBMIT_MS,
    signsWebhooks: false,
    resolve,
    offer,
    submit,
    look,
    destination: async () => declined("model_not_found", "Hugging Face's inference providers train nothing"),
    /** Nothing can be stopped here: a call is waited for, and the router passes no cancel on. */
    cancel: async () => {},
    find: async () => ({ outcome: "unlistable" }),
    verifyWebhook: async () => {
      throw new WebhookRefused("Hugging Face's inference providers send no webhooks");
    },
  };
}

export const huggingFace: Adapter = {
  api: "huggingface",
  baseUrl: "https://router.huggingface.co",
  statusPage: "https://status.huggingface.co",
  sample: { model: "hf-inference/black-forest-labs/FLUX.1-schnell", input: (prompt) => ({ inputs: prompt }) },
  otherSamples: [{ model: "fal-ai/black-forest-labs/FLUX.1-schnell", input: (prompt) => ({ prompt }) }],
  make,
};

interface Named {
  readonly upstream: string;
  readonly calls: Upstream;
  /** The hub's name: owner/name. */
  readonly id: string;
}

/** "hf-inference/owner/name"; null for anything else, and for upstreams that are not written here. */
function splitModel(model: string): Named | null {
  const match = /^([\w-]+)\/(\w[\w.-]*\/\w[\w.-]*)$/.exec(model);
  const [, upstream = "", id = ""] = match ?? [];
  const calls = Object.hasOwn(UPSTREAMS, upstream) ? UPSTREAMS[upstream] : undefined;
  return calls ? { upstream, calls, id } : null;
}

const unnamed = (model: string) =>
  `"${model}" is not upstream/owner/name with one of ${Object.keys(UPSTREAMS).join(", ")}`;

/** Null: the answer is not in the words of Hugging Face or of those behind it. */
function refusalOf({ status, body }: Reply): { readonly code: FailureCode } | null {
  if (!Problem.safeParse(parseJson(body)).success) return null;
  const text = wordsIn(body);
  const said = failureOf(text);
  if (said === "content_refused" || status >= 500) return { code: said };
  if (status === 401) return { code: "provider_auth" };
  if (status === 403) return { code: codeOfForbidden(text) };
  if (status === 402) return { code: "provider_no_credit" };
  if (status === 404 || /not supported by provider/i.test(text)) return { code: "model_not_found" };
  if (status === 413) return { code: "input_too_large" };
  return { code: "input_refused" };
}

/** The router's word for the call, where it has the form of one. */
function requestId({ headers }: Reply): string | null {
  return /^[\w=;.:-]{8,200}$/.exec(headers["x-request-id"] ?? "")?.[0] ?? null;
}

function dataUrl(type: string, bytes: Buffer): string {
  return `data:${type};base64,${bytes.toString("base64")}`;
}
