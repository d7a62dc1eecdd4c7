import { z } from "zod";
import { type FailureCode, failure } from "../domain/failure.ts";
import {
  type Answer,
  type Declined,
  declined,
  type OfferedFile,
  OfferRefused,
  type Order,
  type Postponed,
  type Provider,
  ProviderUnreachable,
  postponed,
  postponedBy,
  type Resolved,
  WebhookRefused,
} from "../domain/provider.ts";
import { type Adapter, type AdapterOptions, codeOfForbidden, isLoopback } from "./adapter.ts";
import { ask, type Call, parseJson, printJson, type Reply, retryAfterMs, sendOnce } from "./http.ts";

const TOTAL_MS = 15_000;
/** Of a call that is the whole run: Poe advises 10 min or more for films, and what is not heard is spent all the same. */
const SUBMIT_MS = 600_000;
/** Of the list of bots, which names hundreds of them and describes each. */
const MOST_LIST_BYTES = 32 * 1024 * 1024;
/** Of a file that is put into the message itself, and with it into our records. */
const MOST_INLINE_BYTES = 8 * 1024 * 1024;
const BOTS_FRESH_MS = 60 * 60_000;
const UNAVAILABLE_RETRY_MS = 2_000;
/** More bots at once than it has room for: its own number for it. */
const OVERLOADED = 529;

const Bots = z.object({ data: z.array(z.object({ id: z.string() })) });
const Completion = z.object({
  id: z.string().min(1).max(200).optional().catch(undefined),
  choices: z
    .array(
      z.object({
        message: z.object({ content: z.string().nullable().catch(null) }),
        finish_reason: z.string().nullable().catch(null),
      }),
    )
    .min(1),
});
const Problem = z.object({
  error: z.object({
    message: z.string().catch(""),
    type: z.string().nullable().catch(null),
    code: z.union([z.string(), z.number()]).nullable().catch(null),
  }),
});
type Problem = z.infer<typeof Problem>["error"];

/**
 * Poe's OpenAI-compatible API: one message to a bot, held open until it has answered. Pictures and films come as links
 * in the text of the answer. It has no ids to ask for, no list, no cancel and no webhook; what it cost is told in points.
 */
function make(options: AdapterOptions): Provider {
  const { name, token, onCall, onStrange = () => {} } = options;
  const base = options.baseUrl.replace(/\/+$/, "");
  const isLocal = isLoopback(base);
  const totalMs = options.totalMs ?? TOTAL_MS;
  const clock = options.clock ?? (() => new Date());
  let bots: { readonly names: ReadonlySet<string>; readonly readAt: number } | null = null;

  function words(body: string): string {
    const { message, code } = problemIn(body) ?? {};
    const text = message === undefined ? body.slice(0, 500) : message || String(code);
    return text.replaceAll(token, "[hidden]").slice(0, 2_000);
  }

  function call(method: "GET" | "POST", path: string, body?: string): Call {
    const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
    return { method, url: base + path, totalMs, onCall, headers, ...(body !== undefined && { body }) };
  }

  /** A bot is called by its name; that it is there is looked up in the list of all. */
  async function resolve(model: string, { fresh } = { fresh: false }): Promise<Resolved | Declined | Postponed> {
    try {
      if (bots === null || fresh || clock().getTime() - bots.readAt >= BOTS_FRESH_MS) {
        const reply = await ask({ ...call("GET", "/models"), maxBytes: MOST_LIST_BYTES });
        if (reply.status === 401 && problemIn(reply.body)) return declined("provider_auth", words(reply.body));
        const list = Bots.safeParse(parseJson(reply.body)).data;
        if (reply.status >= 300 || !list)
          throw new ProviderUnreachable(`bots: no usable answer (${reply.status}): ${words(reply.body)}`);
        bots = { names: new Set(list.data.map(({ id }) => id.toLowerCase())), readAt: clock().getTime() };
      }
      if (bots.names.has(model.toLowerCase())) return { outcome: "resolved", version: null };
      return declined("model_not_found", `Poe lists no bot "${model}"`);
    } catch (error) {
      return postponedBy(error, UNAVAILABLE_RETRY_MS);
    }
  }

  async function offer(file: OfferedFile): Promise<string> {
    if (isLocal || file.url.startsWith("https:")) return file.url;
    if (file.bytes > MOST_INLINE_BYTES)
      throw new OfferRefused(
        "input_too_large",
        `${file.filename} has ${file.bytes} bytes, and only ${MOST_INLINE_BYTES} fit into a message: use a store that the provider can reach (STORAGE_PROVIDER=s3)`,
      );
    return `data:${file.contentType};base64,${(await file.read()).toString("base64")}`;
  }

  async function submit(order: Order): Promise<Answer> {
    if (order.destination !== null) return declined("input_refused", "nothing is trained here");
    const body = printJson({ ...order.input, model: order.model, stream: false });
    if (body === null) return declined("input_refused", "the input cannot be written as JSON");
    const sent = await sendOnce(
      {
        ...call("POST", "/chat/completions", body),
        totalMs: Math.min(SUBMIT_MS, order.cancelAfterSeconds * 1_000),
      },
      { sendBefore: order.sendBefore, clock },
    );
    if (sent.sent === "no") return postponed("provider_unavailable", sent.detail, UNAVAILABLE_RETRY_MS);
    if (sent.sent === "unknown") return { outcome: "lost", detail: sent.detail };
    const answer = answerOf(sent, order);
    if (answer.outcome === "declined" && answer.failure.code === "model_not_found") bots = null;
    if (answer.outcome === "lost") onStrange(`Poe answered ${sent.status} to a message`);
    return answer;
  }

  function answerOf(reply: Reply, order: Order): Answer {
    const { status, body } = reply;
    if (status === 200) {
      const completion = Completion.safeParse(parseJson(body)).data;
      const [choice] = completion?.choices ?? [];
      if (choice) return said(choice.message.content ?? "", choice.finish_reason, completion?.id ?? order.runId);
    }
    if (status === 429) return postponed("rate_limited", words(body), waitMs(reply));
    const problem = problemIn(body);
    if (problem && status === OVERLOADED) return postponed("provider_busy", words(body), retryAfterMs(reply));
    const code = problem && codeOf(problem, status);
    // What was held back or broke was worked on, and may have cost us.
    if (code === "content_refused" || (code && status === 500)) return failed(code, words(body), order.runId);
    // A page of some proxy in between proves nothing, and a time that ran out somewhere does not say where.
    if (!code || status < 400 || status >= 500 || status === 408)
      return { outcome: "lost", detail: `answered ${status}: ${words(body)}`.slice(0, 2_000) };
    return declined(code, words(body));
  }

  /** A bot that refuses does so in words, with the status 200: a text without a link is no success. */
  function said(content: string, finish: string | null, providerRunId: string): Answer {
    const output = linksIn(content, isLocal).at(-1);
    if (output !== undefined) {
      const outputs = [output];
      const end = { status: "succeeded", outputs, seconds: null, costMicroUsd: null, trainedVersion: null } as const;
      return { outcome: "completed", providerRunId, end };
    }
    const text = content.replaceAll(token, "[hidden]");
    const isRefusal = finish === "content_filter" || REFUSAL.test(text);
    return failed(
      isRefusal ? "content_refused" : failureOf(text),
      text.trim() === "" ? `an empty answer (${finish ?? "no reason"})` : `no link in the answer: ${text}`,
      providerRunId,
    );
  }

  return {
    name,
    api: "poe",
    submitMs: SUBMIT_MS,
    signsWebhooks: false,
    resolve,
    offer,
    submit,
    /** A call was the whole run: nothing is left to be looked at. */
    look: async () => ({ status: "gone" }),
    cancel: async () => {},
    destination: async () => declined("model_not_found", "Poe trains nothing"),
    find: async () => ({ outcome: "unlistable" }),
    verifyWebhook: async () => {
      throw new WebhookRefused("Poe sends no webhooks");
    },
  };
}

export const poe: Adapter = {
  api: "poe",
  baseUrl: "https://api.poe.com/v1",
  statusPage: "https://status.poe.com",
  sample: { model: "FLUX-schnell", input: (prompt) => ({ messages: [{ role: "user", content: prompt }] }) },
  make,
};

const HELD_BACK = /nsfw|content[_ ]polic|moderat/i;
/** How bots say that they will not. */
const REFUSAL =
  /nsfw|content[_ ]polic|moderat|\bsafety\b|\bsensitive\b|inappropriate|violat|\b(can't|can’t|cannot|won't|won’t|unable to|not able to)\s+(\w+\s+){0,3}(creat|generat|mak|help|assist|fulfil|produc|edit)/i;

/** Every link to Poe's own file host, once, in order: a picture is shown as Markdown, and its link repeated below. */
function linksIn(content: string, isLocal: boolean): string[] {
  const found = [...content.matchAll(/https?:\/\/[^\s()<>[\]"'`]+/g)].map(([url]) => url.replace(/[.,;:!?*_]+$/, ""));
  return [...new Set(found)].filter((url) => {
    if (!URL.canParse(url)) return false;
    const { protocol, hostname } = new URL(url);
    return (protocol === "https:" && hostname.endsWith(".poecdn.net")) || (isLocal && isLoopback(url));
  });
}

function problemIn(body: string): Problem | null {
  return Problem.safeParse(parseJson(body)).data?.error ?? null;
}

function codeOf({ message, type, code }: Problem, status: number): FailureCode {
  if (type === "moderation_refusal" || HELD_BACK.test(`${code} ${message}`)) return "content_refused";
  if (status >= 500) return failureOf(message);
  if (code === "model_not_found" || status === 404) return "model_not_found";
  if (status === 401) return "provider_auth";
  if (status === 403) return codeOfForbidden(message);
  if (status === 402) return "provider_no_credit";
  if (status === 413) return "input_too_large";
  return "input_refused";
}

function failureOf(text: string): FailureCode {
  return /interrupted; please retry/i.test(text) ? "interrupted" : "provider_failed";
}

function failed(code: FailureCode, detail: string, providerRunId: string): Answer {
  const end = { status: "failed", failure: failure(code, detail), seconds: null, costMicroUsd: null } as const;
  return { outcome: "completed", providerRunId, end };
}

/** The body's and the usual header's word, and otherwise the seconds until the minute's allowance is new. */
function waitMs(reply: Reply): number {
  const seconds = Number(reply.headers["x-ratelimit-reset-requests"] ?? "");
  const isTold = reply.headers["retry-after"] !== undefined || !(seconds > 0 && seconds <= 600);
  return isTold ? retryAfterMs(reply) : Math.max(500, seconds * 1_000);
}
