import type { WebhookEventType } from "replicate";
import { FormData } from "undici";
import { z } from "zod";
import type { FailureCode } from "../domain/failure.ts";
import {
  type Answer,
  type Declined,
  type Delivery,
  type Destination,
  declined,
  type Found,
  type Holder,
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
import { type Adapter, type AdapterOptions, isLoopback } from "./adapter.ts";
import { ask, type Call, parseJson, printJson, type Reply, retryAfterMs, sendOnce } from "./http.ts";
import { noPlace, placeOf } from "./replicate-place.ts";
import { ListedPrediction, likeness, lookOf, lookOfTraining, Prediction } from "./replicate-prediction.ts";
import { checkStandardWebhook } from "./standard-webhook.ts";
import { makeWebhookSecret } from "./webhook-secret.ts";

const TOTAL_MS = 15_000;
/** A file of some tens of MB over a home uplink; only a laptop without a public store uploads at all. */
const UPLOAD_MS = 60_000;
/** The provider's own limit. */
const MOST_UPLOAD_BYTES = 100_000_000;
const MODEL_FRESH_MS = 60 * 60_000;
const MAX_MODELS = 1_000;
const UNAVAILABLE_RETRY_MS = 2_000;
/** The provider refuses less. */
const MIN_CANCEL_AFTER_SECONDS = 5;
/** By how much the provider's clock may be behind ours. */
const CLOCK_SKEW_MS = 60_000;
/** Of 100 predictions each. */
const MAX_PAGES = 20;

/** All four: `start` tells us the id when our answer was lost, `output` and `logs` move the progress bar (S3.11). */
const EVENTS: readonly WebhookEventType[] = ["start", "output", "logs", "completed"];

const ENDED = new Set(["succeeded", "failed", "canceled", "aborted"]);

const Model = z.object({
  is_official: z.boolean().catch(false),
  latest_version: z.object({ id: z.string().min(1) }).nullish(),
});
const Version = z.object({ id: z.string().min(1) });
const Deployment = z.object({ name: z.string().min(1) });
const Account = z.object({ type: z.string().max(40).catch("account"), username: z.string().regex(/^[\w.-]{1,100}$/) });
const Created = z.object({ id: z.string().min(1).max(200) });
const UploadedFile = z.object({ urls: z.object({ get: z.url() }) });
const Page = z.object({ next: z.string().nullish(), results: z.array(ListedPrediction) });
const Secret = z.object({ key: z.string() });
const Delivered = z.object({ id: z.string().min(1).max(200), status: z.string() });
const Problem = z.object({ title: z.string().optional().catch(undefined), detail: z.unknown().optional() });

/** Replicate's HTTP API, and everything that speaks it. */
export function makeReplicate(options: AdapterOptions): Provider {
  const { name, token, onCall, endpoints = {}, onStrange = () => {} } = options;
  const base = options.baseUrl.replace(/\/+$/, "");
  const { origin } = new URL(base);
  const isLocal = isLoopback(base);
  const totalMs = options.totalMs ?? TOTAL_MS;
  const clock = options.clock ?? (() => new Date());
  let owner: string | null = null;
  const models = new Map<string, { readonly version: string | null; readonly readAt: number }>();
  const secret = makeWebhookSecret({
    given: [options.webhookSecret ?? []].flat(),
    fetch: async () => read(Secret, await ask(call("GET", "/webhooks/default/secret")), "webhook secret").key,
    clock,
    onStrange,
  });

  /** The provider's own words, without the things that must not reach our records. */
  function words(body: string, ...hidden: readonly (string | null)[]): string {
    const hide = (text: string) =>
      [token, ...hidden].reduce<string>((rest, it) => (it ? rest.replaceAll(it, "[hidden]") : rest), text);
    const { title, detail = title } = problemIn(body) ?? {};
    return typeof detail === "string" ? hide(detail) : hide(body).slice(0, 500);
  }

  function call(method: Call["method"], path: string, rest: Pick<Call, "body" | "totalMs"> = {}): Call {
    const url = path.startsWith("/") ? base + path : path;
    const type = rest.body instanceof FormData ? undefined : { "content-type": "application/json" };
    return { method, url, totalMs, onCall, ...rest, headers: { authorization: `Bearer ${token}`, ...type } };
  }

  /** For everything but submit: the fields we read, or ProviderUnreachable. */
  function read<T>(schema: z.ZodType<T>, reply: Reply, what: string): T {
    const parsed = schema.safeParse(parseJson(reply.body));
    if (reply.status < 300 && parsed.success) return parsed.data;
    throw new ProviderUnreachable(`${what}: no usable answer (${reply.status}): ${words(reply.body)}`);
  }

  async function resolve(model: string, { fresh } = { fresh: false }): Promise<Resolved | Declined | Postponed> {
    const at = placeOf(model, endpoints);
    if (at === null) return declined("model_not_found", noPlace(model, name));
    if (at.pin !== null && !fresh) return { outcome: "resolved", version: at.pin };
    const known = models.get(model);
    if (known && !fresh && clock().getTime() - known.readAt < MODEL_FRESH_MS)
      return { outcome: "resolved", version: known.version };

    try {
      const reply = await ask(call("GET", `/${at.door}/${at.path}${at.pin === null ? "" : `/versions/${at.pin}`}`));
      const isRefusal = problemIn(reply.body) !== null;
      if (reply.status === 401 && isRefusal) return declined("provider_auth", words(reply.body));
      if (reply.status === 404 && isRefusal) {
        models.delete(model);
        const called = at.door === "deployments" ? `${model}, the deployment ${at.path}` : model;
        return declined("model_not_found", `${called}: ${words(reply.body)}`);
      }
      if (at.door === "deployments") {
        read(Deployment, reply, `deployment ${at.path}`);
        remember(model, null);
        return { outcome: "resolved", version: null };
      }
      if (at.pin !== null) return { outcome: "resolved", version: read(Version, reply, `model ${model}`).id };
      const found = read(Model, reply, `model ${model}`);
      const version = found.is_official ? null : found.latest_version?.id;
      if (version === undefined) return declined("model_not_found", `${model} has no version that could be run`);
      remember(model, version);
      return { outcome: "resolved", version };
    } catch (error) {
      return postponedBy(error, UNAVAILABLE_RETRY_MS);
    }
  }

  function remember(model: string, version: string | null): void {
    models.delete(model);
    models.set(model, { version, readAt: clock().getTime() });
    const oldest = models.keys().next().value;
    if (models.size > MAX_MODELS && oldest !== undefined) models.delete(oldest);
  }

  /** Private, on the cheapest hardware: a trained version is run by what it was trained from. */
  async function destination(modelName: string): Promise<Destination | Declined | Postponed> {
    try {
      if (owner === null) {
        const reply = await ask(call("GET", "/account"));
        if (reply.status === 401 && problemIn(reply.body) !== null) return declined("provider_auth", words(reply.body));
        owner = read(Account, reply, "account").username;
      }
      const model = `${owner}/${modelName}`;
      if (await exists(model)) return { outcome: "destination", model };
      const body = JSON.stringify({ owner, name: modelName, visibility: "private", hardware: "cpu" });
      const reply = await ask(call("POST", "/models", { body }));
      // Somebody else may have made it meanwhile: a conflict, by whatever number, is no trouble then.
      if (reply.status < 300 || (await exists(model))) return { outcome: "destination", model };
      if (reply.status >= 500 || problemIn(reply.body) === null)
        throw new ProviderUnreachable(`model ${model} could not be made (${reply.status}): ${words(reply.body)}`);
      return declined(refusalOf(reply.status, ""), `the destination ${model} could not be made: ${words(reply.body)}`);
    } catch (error) {
      return postponedBy(error, UNAVAILABLE_RETRY_MS);
    }
  }

  async function account(): Promise<Holder | Declined> {
    const reply = await ask(call("GET", "/account"));
    if (reply.status === 401 && problemIn(reply.body) !== null) return declined("provider_auth", words(reply.body));
    const { type, username } = read(Account, reply, "account");
    return { outcome: "holder", name: `${type} ${username}` };
  }

  async function exists(model: string): Promise<boolean> {
    const reply = await ask(call("GET", `/models/${model}`));
    if (reply.status === 404 && problemIn(reply.body)) return false;
    read(Model, reply, `model ${model}`);
    return true;
  }

  async function offer(file: OfferedFile): Promise<string> {
    if (isLocal || file.url.startsWith("https:")) return file.url;
    if (file.bytes > MOST_UPLOAD_BYTES)
      throw new OfferRefused(
        "input_too_large",
        `${file.filename} has ${file.bytes} bytes, and the provider takes uploads of ${MOST_UPLOAD_BYTES} only: use a store that it can reach (STORAGE_PROVIDER=s3)`,
      );

    const form = new FormData();
    form.set("content", new Blob([await file.read()], { type: file.contentType }), file.filename);
    form.set("filename", file.filename);
    form.set("type", file.contentType);
    const reply = await ask(call("POST", "/files", { body: form, totalMs: Math.max(totalMs, UPLOAD_MS) }));
    const what = `upload of ${file.filename}`;
    if (reply.status === 413 && problemIn(reply.body))
      throw new OfferRefused("input_too_large", `${what}: refused (413): ${words(reply.body)}`);
    return read(UploadedFile, reply, what).urls.get;
  }

  async function submit(order: Order): Promise<Answer> {
    const at = placeOf(order.model, endpoints);
    if (at === null) return declined("model_not_found", noPlace(order.model, name));
    // Replicate refuses it too; this way nothing is sent for it.
    if (order.webhookUrl !== null && !order.webhookUrl.startsWith("https://"))
      return declined("input_refused", "the webhook URL is not https");

    const version = at.door === "deployments" ? null : (order.version ?? at.pin);
    const isTraining = order.destination !== null;
    if (isTraining && version === null) return declined("model_not_found", `${at.path} has no version to train`);
    const path = isTraining
      ? `/models/${at.path}/versions/${version}/trainings`
      : version === null
        ? `/${at.door}/${at.path}/predictions`
        : "/predictions";
    const body = printJson({
      ...(isTraining ? { destination: order.destination } : version !== null && { version }),
      input: order.input,
      ...(order.webhookUrl !== null && { webhook: order.webhookUrl, webhook_events_filter: EVENTS }),
    });
    if (body === null) return declined("input_refused", "the input cannot be written as JSON");
    const create = call("POST", path, { body });
    const seconds = Math.max(MIN_CANCEL_AFTER_SECONDS, Math.ceil(order.cancelAfterSeconds));
    // Trainings take no such header: they are stopped by us when their time is over.
    const headers = isTraining ? create.headers : { ...create.headers, "cancel-after": `${seconds}s` };

    const sent = await sendOnce({ ...create, headers }, { sendBefore: order.sendBefore, clock });
    if (sent.sent === "no") return postponed("provider_unavailable", sent.detail, UNAVAILABLE_RETRY_MS);
    if (sent.sent === "unknown") return { outcome: "lost", detail: sent.detail };

    const answer = answerOf(sent, (text) => words(text, order.webhookUrl));
    // The version that we remember has been deleted: the next job asks for the current one.
    if (answer.outcome === "declined" && answer.failure.code === "model_not_found") models.delete(order.model);
    return answer;
  }

  async function look(ref: RunRef): Promise<Look> {
    const reply = await ask(call("GET", pathOf(ref)));
    // A 404 of some proxy in between is not the provider's word that it knows no such run.
    if (reply.status === 404 && problemIn(reply.body)) return { status: "gone" };
    const found = read(Prediction, reply, pathOf(ref));
    return (ref.isTraining ? lookOfTraining : lookOf)(found, clock(), onStrange);
  }

  async function cancel(ref: RunRef): Promise<void> {
    const reply = await ask(call("POST", `${pathOf(ref)}/cancel`));
    // Unknown there, or ended already and therefore refused: nothing is left to be stopped. `look` has the verdict.
    if (reply.status < 300 || [400, 404, 409, 410, 422].includes(reply.status)) return;
    throw new ProviderUnreachable(`cancel answered ${reply.status}: ${words(reply.body)}`);
  }

  async function find(
    order: Order,
    sentAt: Date,
    isTaken: (providerRunId: string) => Promise<boolean>,
  ): Promise<Found> {
    const since = sentAt.getTime() - CLOCK_SKEW_MS;
    const deadline = performance.now() + totalMs;
    const place = placeOf(order.model, endpoints);
    let doubtful = false;
    // Trainings cannot be asked for by time; either list is newest first, and read as far back as the order.
    let url: string | null =
      order.destination !== null
        ? `${base}/trainings`
        : `${base}/predictions?created_after=${encodeURIComponent(new Date(since).toISOString())}`;
    try {
      for (let pages = 0; url !== null; pages++) {
        const left = deadline - performance.now();
        // `next` comes from outside and our token goes with it.
        const isOurs = URL.canParse(url) && new URL(url).origin === origin;
        if (pages === MAX_PAGES || left <= 0 || !isOurs) return { outcome: "unread" };
        const page: z.infer<typeof Page> = read(Page, await ask(call("GET", url, { totalMs: left })), "list");
        for (const listed of page.results) {
          if (Date.parse(listed.created_at) < since) return { outcome: doubtful ? "unread" : "absent" };
          const like = likeness(listed, order, place);
          if (like === "other" || (await isTaken(listed.id))) continue;
          if (like === "same") return { outcome: "found", providerRunId: listed.id };
          doubtful = true;
        }
        url = page.next ?? null;
      }
      return { outcome: doubtful ? "unread" : "absent" };
    } catch (error) {
      if (error instanceof ProviderUnreachable) return { outcome: "unread" };
      throw error;
    }
  }

  async function verifyWebhook(
    headers: Readonly<Record<string, string | undefined>>,
    rawBody: string,
  ): Promise<Delivery> {
    const check = () => checkStandardWebhook(headers, rawBody, secret.known(), clock());
    let verdict = check();
    if (verdict.verdict === "forged" && (await secret.renew())) verdict = check();
    if (verdict.verdict === "forged" && secret.known().length === 0)
      throw new WebhookRefused("unverifiable: the provider did not tell the account's webhook secret. Configure it.");
    if (verdict.verdict !== "genuine") throw new WebhookRefused(`${verdict.verdict}: ${verdict.reason}`);

    const delivered = Delivered.safeParse(parseJson(rawBody));
    if (!delivered.success)
      throw new WebhookRefused("malformed: signed by the provider, but the body has no id and status");
    const { id: providerRunId, status } = delivered.data;
    return { deliveryId: verdict.deliveryId, providerRunId, status, ended: ENDED.has(status) };
  }

  return {
    name,
    api: "replicate",
    submitMs: totalMs,
    signsWebhooks: true,
    resolve,
    destination,
    offer,
    submit,
    look,
    cancel,
    find,
    verifyWebhook,
    account,
  };
}

export const replicate: Adapter = {
  api: "replicate",
  baseUrl: "https://api.replicate.com/v1",
  statusPage: "https://status.replicate.com",
  sample: { model: "black-forest-labs/flux-schnell", input: (prompt) => ({ prompt }) },
  otherSamples: [
    { model: "own/flux-dev", input: (prompt) => ({ prompt }), endpoints: { "own/flux-dev": "acme/my-flux" } },
  ],
  make: makeReplicate,
};

const pathOf = ({ providerRunId, isTraining }: Pick<RunRef, "providerRunId" | "isTraining">) =>
  `/${isTraining ? "trainings" : "predictions"}/${encodeURIComponent(providerRunId)}`;

/** What a create came to, once there is an answer. Whatever is not on this list is lost, never sent again. */
function answerOf(reply: Reply, words: (body: string) => string): Answer {
  const { status, body } = reply;
  if (status === 429) return postponed("rate_limited", words(body), retryAfterMs(reply));
  if (status >= 200 && status < 300) {
    const created = Created.safeParse(parseJson(body));
    if (created.success) return { outcome: "submitted", providerRunId: created.data.id };
  }
  const problem = problemIn(body);
  // A page of some proxy in between proves nothing about the provider, and neither does a 408, whoever says it.
  if (status < 400 || status >= 500 || status === 408 || problem === null)
    return { outcome: "lost", detail: `answered ${status}: ${words(body)}`.slice(0, 2_000) };
  return declined(refusalOf(status, problem.title ?? ""), words(body));
}

function refusalOf(status: number, title: string): FailureCode {
  if (status === 401) return "provider_auth";
  if (status === 402) return "provider_no_credit";
  if (status === 404) return "model_not_found";
  if (status === 413) return "input_too_large";
  if (status === 422 && /invalid version/i.test(title)) return "model_not_found";
  return "input_refused";
}

/** What the provider says when it refuses; null when the body is somebody else's. */
function problemIn(body: string): z.infer<typeof Problem> | null {
  const problem = Problem.safeParse(parseJson(body)).data;
  return problem && (problem.detail ?? problem.title) !== undefined ? problem : null;
}
