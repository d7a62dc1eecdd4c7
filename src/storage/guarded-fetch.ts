import { lookup as resolveName } from "node:dns/promises";
import { setMaxListeners } from "node:events";
import { isIP } from "node:net";
import pRetry from "p-retry";
import { Agent, type Dispatcher, errors } from "undici";
import { makeAddressGuard } from "./address.ts";
import { type Address, connectorTo } from "./connector.ts";
import { type FetchRefusal, FetchRefused, privateAddress } from "./fetch-refused.ts";

export { type FetchRefusal, FetchRefused } from "./fetch-refused.ts";

/** Reads a file from a URL that somebody else wrote: a user, or a provider. Throws FetchRefused, or the signal's reason. */
export type FetchFile = (url: string, limits: FetchLimits) => Promise<FetchedFile>;

export interface FetchLimits {
  readonly maxBytes: number;
  /** For everything: names, redirects, headers and the last byte. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export interface FetchedFile {
  readonly bytes: Buffer;
  /** What the sender says; never trust it, sniff. */
  readonly contentType: string | null;
  /** After redirects. */
  readonly finalUrl: string;
}

export interface GuardOptions {
  /** Origins that may be anywhere, speak http and use any port, such as the sandbox's: "http://127.0.0.1:4010". */
  readonly allowedOrigins?: readonly string[];
  /** Ports of all other origins, which must speak https; 443. */
  readonly ports?: readonly number[];
  readonly maxRedirects?: number;
  /** Public ranges that are nevertheless ours, in CIDR: never fetched from. */
  readonly deniedRanges?: readonly string[];
  /** Instead of the system's resolver. */
  readonly resolve?: (hostname: string) => Promise<readonly Address[]>;
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MAX_URL_LENGTH = 8_192;
const HEADERS_MS = 20_000;
/** The longest pause between two pieces of a body. */
const IDLE_MS = 10_000;

/**
 * A fetch that cannot be turned against our own network: every name is resolved once, every address must be public, and
 * the socket gets exactly the addresses that were judged, so a second, different DNS answer changes nothing. No proxies,
 * cookies, kept-alive connections or decompression; redirects pass the whole check again.
 */
export function makeGuardedFetch(options: GuardOptions = {}): FetchFile {
  const { ports = [443], maxRedirects = 3, resolve = (name) => resolveName(name, { all: true }) } = options;
  const isPublic = makeAddressGuard(options.deniedRanges);
  const allowedOrigins = new Set((options.allowedOrigins ?? []).map(originOf));
  const isAllowed = (url: URL) => allowedOrigins.has(url.origin);

  function parse(text: string, base?: URL): URL {
    if (text.length > MAX_URL_LENGTH) throw refused("invalid_url", `A URL has at most ${MAX_URL_LENGTH} characters.`);
    if (!URL.canParse(text, base?.href)) {
      throw refused("invalid_url", "This is not a URL. Give a full one, starting with https://.");
    }
    const url = new URL(text, base?.href);
    if (url.username || url.password) throw refused("invalid_url", "The URL must not carry a user name or password.");
    if (isAllowed(url)) {
      if (base?.protocol === "https:" && url.protocol !== "https:") throw refused("invalid_url", DOWNGRADE);
      return url;
    }
    if (url.protocol !== "https:") throw refused("invalid_url", base ? DOWNGRADE : "Only https:// URLs are fetched.");
    if (!ports.includes(Number(url.port || 443))) {
      throw refused("invalid_url", `Only port ${ports.join(" or ")} is fetched from. Serve the file there.`);
    }
    return url;
  }

  async function addressesOf(url: URL): Promise<readonly Address[]> {
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const family = isIP(host);
    const addresses = family
      ? [{ address: host, family }]
      : await resolve(host).catch((cause: unknown) => {
          throw refused("unreachable", "The host of the URL cannot be found. Check its spelling.", cause);
        });
    if (addresses.length === 0) throw refused("unreachable", "The host of the URL cannot be found.");
    if (!isAllowed(url) && !addresses.every(({ address }) => isPublic(address))) throw privateAddress();
    return addresses;
  }

  /** One request. Either the file, or where to go on. */
  async function hop(url: URL, limits: FetchLimits, stop: AbortSignal): Promise<FetchedFile | URL> {
    const addresses = await orStop(addressesOf(url), stop);
    const agent = new Agent({
      connect: connectorTo(addresses, (address) => isAllowed(url) || isPublic(address), stop),
      pipelining: 0,
    });
    let answer: Dispatcher.ResponseData | undefined;
    try {
      answer = await agent.request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: "GET",
        headers: { "user-agent": "Darkroom/1", accept: "*/*", "accept-encoding": "identity" },
        headersTimeout: Math.min(HEADERS_MS, limits.timeoutMs),
        bodyTimeout: Math.min(IDLE_MS, limits.timeoutMs),
        signal: stop,
      });
      // A body that is left unread is cut off below, which it reports as an error that means nothing.
      answer.body.on("error", () => {});
      const location = textOf(answer.headers["location"]);
      if (REDIRECTS.has(answer.statusCode) && location !== null) return parse(location, url);
      return await read(answer, url, limits.maxBytes);
    } catch (error) {
      throw stop.aborted ? error : classified(error, answer !== undefined);
    } finally {
      // Nothing waits for the socket to close: the far end could draw that out.
      void agent.destroy();
    }
  }

  async function follow(text: string, limits: FetchLimits, stop: AbortSignal): Promise<FetchedFile> {
    let url = parse(text);
    for (let redirects = 0; redirects <= maxRedirects; redirects++) {
      const result = await hop(url, limits, stop);
      if (!(result instanceof URL)) return result;
      url = result;
    }
    throw refused("too_many_redirects", `The URL redirects more than ${maxRedirects} times. Give the final one.`);
  }

  return async (url, limits) => {
    limits.signal?.throwIfAborted();
    const stop = new AbortController();
    // A few per redirect; all go with this fetch.
    setMaxListeners(0, stop.signal);
    const abort = () => stop.abort();
    const timer = setTimeout(abort, limits.timeoutMs);
    // Not AbortSignal.any: a worker's signal lives as long as the worker, and would remember every fetch.
    limits.signal?.addEventListener("abort", abort);
    try {
      return await follow(url, limits, stop.signal);
    } catch (error) {
      limits.signal?.throwIfAborted();
      if (error instanceof FetchRefused) throw error;
      if (!stop.signal.aborted) throw error;
      throw refused("timeout", `The file did not arrive within ${limits.timeoutMs / 1000} s. ${SMALLER}`, error);
    } finally {
      clearTimeout(timer);
      limits.signal?.removeEventListener("abort", abort);
    }
  };
}

export interface RetryOptions {
  readonly attempts?: number;
  /** Doubled after each attempt: 1 s, 2 s, and 4 s where a fourth attempt is asked for. */
  readonly firstDelayMs?: number;
}

/** Three attempts of 30 s each, as S5 asks; only what may work a moment later is tried again. */
export function fetchWithRetry(
  fetchFile: FetchFile,
  url: string,
  limits: Omit<FetchLimits, "timeoutMs"> & { readonly timeoutMs?: number },
  { attempts = 3, firstDelayMs = 1_000 }: RetryOptions = {},
): Promise<FetchedFile> {
  return pRetry(() => fetchFile(url, { timeoutMs: 30_000, ...limits }), {
    retries: attempts - 1,
    factor: 2,
    minTimeout: firstDelayMs,
    signal: limits.signal,
    shouldRetry: ({ error }) => error instanceof FetchRefused && error.retryable,
  });
}

async function read(answer: Dispatcher.ResponseData, url: URL, maxBytes: number): Promise<FetchedFile> {
  const { statusCode: status, headers, body } = answer;
  if (status !== 200) {
    throw new FetchRefused("http_status", `The server answered ${status} instead of the file. ${OPEN}`, { status });
  }
  const encodings = [headers["content-encoding"], headers["transfer-encoding"]].map((value) => textOf(value) ?? "");
  if (!encodings.every((value) => /^\s*(identity|chunked)?\s*$/i.test(value))) {
    throw refused(
      "bad_encoding",
      "The server sends the file compressed although it was asked not to. Serve it as it is.",
    );
  }
  const tooLarge = () => refused("too_large", `The file is larger than ${maxBytes} bytes. Give a smaller one.`);
  const length = textOf(headers["content-length"]);
  if (length !== null && Number(length) > maxBytes) throw tooLarge();

  const chunks: Buffer[] = [];
  let received = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    received += chunk.length;
    if (received > maxBytes) throw tooLarge();
    chunks.push(chunk);
  }
  if (length !== null && received !== Number(length)) throw refusedTruncated();
  return { bytes: Buffer.concat(chunks, received), contentType: textOf(headers["content-type"]), finalUrl: url.href };
}

function classified(error: unknown, answered: boolean): unknown {
  if (error instanceof FetchRefused) return error;
  const slow =
    error instanceof errors.ConnectTimeoutError ||
    error instanceof errors.HeadersTimeoutError ||
    error instanceof errors.BodyTimeoutError;
  if (slow) return refused("timeout", `The server stopped answering. ${SMALLER}`, error);
  if (answered) return refusedTruncated(error);
  return refused("unreachable", `No usable answer came from the URL. ${OPEN}`, error);
}

const SMALLER = "Serve it faster, or make it smaller.";
const OPEN = "Check that it opens over https in a browser that is not signed in.";
const DOWNGRADE = "The URL redirects away from https. Give one that stays on https.";

function refused(code: FetchRefusal, message: string, cause?: unknown): FetchRefused {
  return new FetchRefused(code, message, { cause });
}

function refusedTruncated(cause?: unknown): FetchRefused {
  return refused("truncated", "The connection ended before the file was complete. Try again.", cause);
}

function textOf(header: string | string[] | undefined): string | null {
  return (Array.isArray(header) ? header[0] : header) ?? null;
}

function originOf(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url && /^https?:$/.test(url.protocol) && url.href === `${url.origin}/`) return url.origin;
  throw new Error(`"${text}" is not an origin. Write it like "http://127.0.0.1:4010".`);
}

/** A name server that never answers must not outlast the limit. */
function orStop<T>(work: Promise<T>, stop: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    stop.addEventListener("abort", () => reject(stop.reason), { once: true });
    work.then(resolve, reject);
  });
}
