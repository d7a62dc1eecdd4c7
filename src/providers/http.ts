import { AsyncResource } from "node:async_hooks";
import pRetry from "p-retry";
import { Agent, type FormData } from "undici";
import { ProviderUnreachable } from "../domain/provider.ts";

/**
 * The one way to speak HTTP with a provider. `ask` is for what may be repeated, `sendOnce` for what costs money.
 * Neither follows a redirect: a redirected create is a second create, and a token goes to its own provider only.
 */

const CONNECT_MS = 3_000;
/** One call, its repetitions included, from first step to destroyed socket. */
const TOTAL_MS = 15_000;
const MAX_BODY_BYTES = 4 * 1024 * 1024;
const TRIES = 3;
const BACKOFF_MS = 200;
/** The longest wish for patience that is granted on the spot; longer ones are the caller's to schedule. */
const PATIENCE_MS = 2_000;
const DEFAULT_RETRY_AFTER_MS = 5_000;
const MIN_RETRY_AFTER_MS = 500;
const MAX_RETRY_AFTER_MS = 10 * 60_000;

// HTTP/1.1 on purpose: one request on one socket, so that destroying the socket ends exactly one request.
const readers = new Agent({
  connect: { timeout: CONNECT_MS },
  allowH2: false,
  connections: 64,
  keepAliveTimeout: 60_000,
  keepAliveMaxTimeout: 60_000,
});

// A socket that the other side has quietly closed turns a create into a lost one; a young socket rarely is.
const senders = new Agent({
  connect: { timeout: CONNECT_MS },
  allowH2: false,
  connections: 64,
  keepAliveTimeout: 4_000,
  keepAliveMaxTimeout: 4_000,
});

export interface Call {
  readonly method: "GET" | "POST" | "DELETE" | "PUT";
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | FormData | Buffer;
  /** Default 15 s. */
  readonly totalMs?: number;
  /** Of the answer; default 4 MiB. More only where outputs come inside of it. */
  readonly maxBytes?: number;
  /** Of an answer of 500 and above: whether it is what was asked for, and no trouble on the way. Only heeded by `ask`. */
  readonly isAnswer?: (reply: Reply) => boolean;
  /** Hears of every exchange when it is over; must not throw. */
  readonly onCall?: OnCall | undefined;
}

/** What went over the wire, for the log of the last calls: the secrets in it are masked by whoever keeps it. */
export interface CallRecord {
  readonly method: string;
  readonly url: string;
  /** Null: no answer. */
  readonly status: number | null;
  readonly ms: number;
  readonly sent: Sent["sent"];
  /** Why there is no answer; null otherwise. */
  readonly detail: string | null;
  /** The first 2,000 characters; null where there is none, or where it is no text. */
  readonly request: string | null;
  readonly response: string | null;
}
export type OnCall = (record: CallRecord) => void;

export interface Reply {
  readonly status: number;
  /** Names in lower case; repeated ones joined with a comma. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  /** As text; of bytes that are none, only `bytes` is to be read. */
  readonly body: string;
  readonly bytes: Buffer;
}

export type Sent =
  | ({ readonly sent: "answered" } & Reply)
  /** No byte of the request was written. */
  | { readonly sent: "no"; readonly detail: string }
  /** Something may have been written, and no complete answer came back. */
  | { readonly sent: "unknown"; readonly detail: string };

interface SendLimits {
  /** No byte is written after this instant. */
  readonly sendBefore: Date;
  readonly clock?: () => Date;
}

/**
 * For a call that may be repeated. Returns every answer below 500 except 429, and of the others what the call takes for
 * an answer; the rest, and no answer, are tried up to three times within the total and then thrown as ProviderUnreachable.
 */
export async function ask(call: Call): Promise<Reply> {
  const deadline = performance.now() + (call.totalMs ?? TOTAL_MS);
  const left = () => deadline - performance.now();
  let pauseMs = 0;

  return pRetry(
    async () => {
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
      const leftMs = Math.max(0, left());
      const sent = await exchange(readers, call, leftMs, leftMs, () => true);
      if (sent.sent !== "answered") throw new ProviderUnreachable(sent.detail);
      if ((sent.status !== 429 && sent.status < 500) || call.isAnswer?.(sent)) return sent;

      const wish = wishedRetryAfterMs(sent);
      pauseMs = wish ?? 0;
      const throttled = sent.status === 429;
      const retryAfterMs = wish ?? (throttled ? DEFAULT_RETRY_AFTER_MS : undefined);
      throw new ProviderUnreachable(
        `${call.method} ${new URL(call.url).pathname} answered ${sent.status}: ${quote(sent.body, call)}`,
        { throttled, ...(retryAfterMs !== undefined && { retryAfterMs }) },
      );
    },
    {
      retries: TRIES - 1,
      minTimeout: BACKOFF_MS,
      randomize: true,
      // A try in what little is left would end in a timeout of ours, and hide what went wrong before.
      shouldRetry: () => pauseMs <= PATIENCE_MS && left() > pauseMs + 1_000,
    },
  );
}

/** For a call that buys. Sends at most once, whatever happens, and never throws. */
export async function sendOnce(call: Call, limits: SendLimits): Promise<Sent> {
  const clock = limits.clock ?? (() => new Date());
  const windowMs = limits.sendBefore.getTime() - clock().getTime();
  // Both clocks must agree that it is early enough: the wall clock may be set back, the other stops in a suspend.
  const closesAt = performance.now() + windowMs;
  const mayWrite = () => clock().getTime() < limits.sendBefore.getTime() && performance.now() < closesAt;

  if (!mayWrite()) return { sent: "no", detail: LATE };
  return exchange(senders, call, call.totalMs ?? TOTAL_MS, windowMs, mayWrite);
}

const LATE = "not written: the time to send it had passed";

/**
 * One request, at most one write. undici calls `onRequestStart` in the same turn in which it writes the first byte,
 * and not at all before it has a usable connection; so a request that never started was never written, whatever the
 * error was called. undici may start a request again that it believes unwritten: a second start is refused.
 */
function exchange(agent: Agent, call: Call, totalMs: number, windowMs: number, mayWrite: () => boolean): Promise<Sent> {
  const maxBytes = call.maxBytes ?? MAX_BODY_BYTES;
  const began = performance.now();
  // An answer comes in the context of its socket: who hears of it is to know what was asked.
  const onCall = call.onCall && AsyncResource.bind(call.onCall);
  return new Promise((resolve) => {
    let started = false;
    let over = false;
    let destroy: (reason: Error) => void = () => {};
    let status = 0;
    let headers: Reply["headers"] = {};
    let bytes = 0;
    const chunks: Buffer[] = [];

    const end = (sent: Sent) => {
      if (over) return;
      over = true;
      clearTimeout(total);
      clearTimeout(window);
      onCall?.(recordOf(call, sent, performance.now() - began));
      resolve(sent);
    };
    const fail = (reason: unknown) => end({ sent: started ? "unknown" : "no", detail: describe(reason) });
    const total = setTimeout(() => {
      const reason = new Error(`no complete answer within ${Math.round(totalMs)} ms`);
      fail(reason);
      destroy(reason);
    }, totalMs);
    const window = setTimeout(() => started || fail(LATE), Math.max(0, Math.min(windowMs, totalMs)));

    try {
      const { origin, pathname, search } = new URL(call.url);
      agent.dispatch(
        {
          origin,
          path: pathname + search,
          method: call.method,
          headers: { "user-agent": "darkroom", ...call.headers },
          body: call.body ?? null,
          // The total is the bound: undici's own of 300 s would end a call that is a whole film.
          headersTimeout: 0,
          bodyTimeout: 0,
        },
        {
          onRequestStart(controller) {
            if (started || over || !mayWrite()) return controller.abort(new Error(LATE));
            started = true;
            destroy = (reason) => controller.abort(reason);
          },
          onResponseStart(_controller, code, fields) {
            if (code < 200) return;
            status = code;
            headers = flatten(fields);
          },
          onResponseData(controller, chunk) {
            bytes += chunk.length;
            if (bytes > maxBytes) return controller.abort(new Error(`answer exceeds ${maxBytes} bytes`));
            chunks.push(chunk);
          },
          onResponseEnd() {
            const whole = Buffer.concat(chunks);
            end({ sent: "answered", status, headers, body: whole.toString("utf8"), bytes: whole });
          },
          onResponseError(_controller, error) {
            fail(error);
          },
        },
      );
    } catch (error) {
      fail(error);
    }
  });
}

const KEPT_CHARACTERS = 2_000;

function recordOf({ method, url, body }: Call, sent: Sent, ms: number): CallRecord {
  const answered = sent.sent === "answered";
  const isText = answered && /json|text|^$/.test(sent.headers["content-type"] ?? "");
  return {
    method,
    url,
    status: answered ? sent.status : null,
    ms: Math.round(ms),
    sent: sent.sent,
    detail: answered ? null : sent.detail,
    request: typeof body === "string" ? body.slice(0, KEPT_CHARACTERS) : null,
    response: isText ? sent.body.slice(0, KEPT_CHARACTERS) : null,
  };
}

/** How long to wait before asking again: the body's word, then the header's, then the text's, then the default. */
export function retryAfterMs(reply: Reply): number {
  return wishedRetryAfterMs(reply) ?? DEFAULT_RETRY_AFTER_MS;
}

function wishedRetryAfterMs(reply: Reply): number | null {
  const wish = fromBody(reply.body) ?? fromHeader(reply.headers["retry-after"]) ?? fromText(reply.body);
  return wish === null ? null : Math.min(Math.max(wish, MIN_RETRY_AFTER_MS), MAX_RETRY_AFTER_MS);
}

function fromBody(body: string): number | null {
  const parsed = parseJson(body);
  if (typeof parsed !== "object" || parsed === null || !("retry_after" in parsed)) return null;
  const seconds = typeof parsed.retry_after === "string" ? Number.parseFloat(parsed.retry_after) : parsed.retry_after;
  return typeof seconds === "number" && Number.isFinite(seconds) ? seconds * 1_000 : null;
}

function fromHeader(value: string | undefined): number | null {
  if (value === undefined) return null;
  if (/^\s*\d+(\.\d+)?\s*$/.test(value)) return Number.parseFloat(value) * 1_000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? null : date - Date.now();
}

/** "resets in ~5s", "available in 1 second", "in 2 minutes". */
function fromText(text: string): number | null {
  const match = /(?:~|\bin )\s*(\d+(?:\.\d+)?)\s*(m?s|sec(?:ond)?s?|m|min(?:ute)?s?)\b/i.exec(text.slice(0, 2_000));
  if (match?.[1] === undefined) return null;
  const word = match[2]?.toLowerCase() ?? "s";
  const unit = word === "ms" ? 1 : word.startsWith("m") ? 60_000 : 1_000;
  return Number.parseFloat(match[1]) * unit;
}

/** Undefined when the text is not JSON: with providers that is an HTML page more often than not. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Null for what cannot be written as JSON. */
export function printJson(value: unknown): string | null {
  try {
    return JSON.stringify(value) ?? null;
  } catch {
    return null;
  }
}

/** The beginning of an answer, for a message that ends in our records: should it repeat our credential, not that. */
function quote(body: string, call: Call): string {
  const credential = call.headers["authorization"]?.split(" ").at(-1);
  return (credential ? body.replaceAll(credential, "[hidden]") : body).slice(0, 500);
}

function flatten(fields: Readonly<Record<string, string | string[] | undefined>>): Reply["headers"] {
  return Object.fromEntries(
    Object.entries(fields).map(([name, value]) => [
      name.toLowerCase(),
      Array.isArray(value) ? value.join(", ") : value,
    ]),
  );
}

function describe(reason: unknown): string {
  if (!(reason instanceof Error)) return String(reason);
  const code = "code" in reason && typeof reason.code === "string" ? `${reason.code}: ` : "";
  // Several addresses were tried: the outer message is empty, the inner ones tell.
  if (reason instanceof AggregateError) return code + reason.errors.map(describe).join("; ");
  return code + reason.message;
}
