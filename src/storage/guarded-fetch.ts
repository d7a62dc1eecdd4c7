import { createHash } from "node:crypto";
import { lookup as resolveName } from "node:dns/promises";
import { setMaxListeners } from "node:events";
import { createWriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import { isIP } from "node:net";
import { pipeline } from "node:stream/promises";
import pRetry from "p-retry";
import { Agent, type Dispatcher, errors } from "undici";
import { makeAddressGuard } from "./address.ts";
import { type Address, connectorTo } from "./connector.ts";
import { type FetchRefusal, FetchRefused, privateAddress } from "./fetch-refused.ts";

export { type FetchRefusal, FetchRefused } from "./fetch-refused.ts";

/** Reads a file from a URL that somebody else wrote: a user, or a provider. Throws FetchRefused, or the signal's reason. */
export type FetchFile = (url: string, limits: FetchLimits) => Promise<FetchedFile>;

/**
 * The same, into a file at `path`, over what is there, on the disk when it returns; memory holds pieces. Throws what the
 * disk throws too. Where it throws there is no file at `path`.
 */
export type FetchToFile = (url: string, path: string, limits: FetchLimits) => Promise<DownloadedFile>;

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

export interface DownloadedFile {
  readonly bytes: number;
  /** What the sender says; never trust it, sniff. */
  readonly contentType: string | null;
  /** Of what is in the file, in hex. */
  readonly sha256: string;
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
 * How far a sender may be ahead of us before it is held up. undici 7 ends the process when a connection is closed while
 * its body is held up (https://github.com/nodejs/undici/issues/5360): what is kept in memory anyway is never held up, and
 * for what goes to the disk connector.ts keeps the process.
 */
const MOST_AHEAD_BYTES = 8_000_000;

/**
 * A fetch that cannot be turned against our own network: every name is resolved once, every address must be public, and
 * the socket gets exactly the addresses that were judged, so a second, different DNS answer changes nothing. No proxies,
 * cookies, kept-alive connections or decompression; redirects pass the whole check again.
 */
export function makeGuardedFetch(options: GuardOptions = {}): FetchFile {
  const get = makeGuardedGet(options);
  return (url, limits) => get(url, limits, collect, limits.maxBytes + 1);
}

/** The same guards for what is too large to hold: archives, models, videos. */
export function makeGuardedDownload(options: GuardOptions = {}): FetchToFile {
  const get = makeGuardedGet(options);
  return async (url, path, limits) => {
    try {
      return await get(url, limits, (answer) => writeTo(path, answer), MOST_AHEAD_BYTES);
    } catch (error) {
      await rm(path, { force: true });
      throw error;
    }
  };
}

/** What `take` makes of an answer's body; it must read all of it, or throw. */
interface Answer {
  readonly contentType: string | null;
  readonly finalUrl: string;
  /** At most `maxBytes`, and as many as the sender declared. Throws FetchRefused. */
  readonly pieces: AsyncIterable<Buffer>;
}
type Take<T> = (answer: Answer) => Promise<T>;

type GuardedGet = <T>(url: string, limits: FetchLimits, take: Take<T>, aheadBytes: number) => Promise<T>;

function makeGuardedGet(options: GuardOptions): GuardedGet {
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

  /** One request. Either what was taken, or where to go on. */
  async function hop<T>(
    url: URL,
    limits: FetchLimits & { readonly aheadBytes: number },
    take: Take<T>,
    stop: AbortSignal,
  ): Promise<{ taken: T } | URL> {
    const addresses = await orStop(addressesOf(url), stop);
    const agent = new Agent({
      connect: connectorTo(addresses, (address) => isAllowed(url) || isPublic(address), stop),
      pipelining: 0,
    });
    try {
      const request = agent.request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: "GET",
        headers: { "user-agent": "Darkroom/1", accept: "*/*", "accept-encoding": "identity" },
        headersTimeout: Math.min(HEADERS_MS, limits.timeoutMs),
        bodyTimeout: Math.min(IDLE_MS, limits.timeoutMs),
        highWaterMark: limits.aheadBytes,
        signal: stop,
      });
      const answer = await request.catch((error: unknown) => {
        throw stop.aborted ? error : classified(error, false);
      });
      // A body that is left unread is cut off below, which it reports as an error that means nothing.
      answer.body.on("error", () => {});
      const location = textOf(answer.headers["location"]);
      if (REDIRECTS.has(answer.statusCode) && location !== null) return parse(location, url);
      const contentType = textOf(answer.headers["content-type"]);
      const pieces = piecesOf(answer, limits.maxBytes, stop);
      return { taken: await take({ contentType, finalUrl: url.href, pieces }) };
    } finally {
      // Nothing waits for the socket to close: the far end could draw that out.
      void agent.destroy();
    }
  }

  async function follow<T>(
    text: string,
    limits: FetchLimits & { readonly aheadBytes: number },
    take: Take<T>,
    stop: AbortSignal,
  ): Promise<T> {
    let url = parse(text);
    for (let redirects = 0; redirects <= maxRedirects; redirects++) {
      const result = await hop(url, limits, take, stop);
      if (!(result instanceof URL)) return result.taken;
      url = result;
    }
    throw refused("too_many_redirects", `The URL redirects more than ${maxRedirects} times. Give the final one.`);
  }

  return async (url, limits, take, aheadBytes) => {
    limits.signal?.throwIfAborted();
    const stop = new AbortController();
    // A few per redirect; all go with this fetch.
    setMaxListeners(0, stop.signal);
    const abort = () => stop.abort();
    const timer = setTimeout(abort, limits.timeoutMs);
    // Not AbortSignal.any: a worker's signal lives as long as the worker, and would remember every fetch.
    limits.signal?.addEventListener("abort", abort);
    try {
      return await follow(url, { ...limits, aheadBytes }, take, stop.signal);
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
  limits: LooseLimits,
  options: RetryOptions = {},
): Promise<FetchedFile> {
  return withRetry(() => fetchFile(url, { timeoutMs: 30_000, ...limits }), limits.signal, options);
}

/** The same for files that are larger: 10 minutes for each of three attempts, each of which begins anew. */
export function downloadWithRetry(
  fetchToFile: FetchToFile,
  url: string,
  path: string,
  limits: LooseLimits,
  options: RetryOptions = {},
): Promise<DownloadedFile> {
  return withRetry(() => fetchToFile(url, path, { timeoutMs: 600_000, ...limits }), limits.signal, options);
}

type LooseLimits = Omit<FetchLimits, "timeoutMs"> & { readonly timeoutMs?: number };

function withRetry<T>(
  work: () => Promise<T>,
  signal: AbortSignal | undefined,
  { attempts = 3, firstDelayMs = 1_000 }: RetryOptions,
): Promise<T> {
  return pRetry(work, {
    retries: attempts - 1,
    factor: 2,
    minTimeout: firstDelayMs,
    signal,
    shouldRetry: ({ error }) => error instanceof FetchRefused && error.retryable,
  });
}

async function collect({ pieces, contentType, finalUrl }: Answer): Promise<FetchedFile> {
  const chunks: Buffer[] = [];
  for await (const piece of pieces) chunks.push(piece);
  return { bytes: Buffer.concat(chunks), contentType, finalUrl };
}

async function writeTo(path: string, { pieces, contentType, finalUrl }: Answer): Promise<DownloadedFile> {
  const hash = createHash("sha256");
  let bytes = 0;
  const meter = async function* () {
    for await (const piece of pieces) {
      hash.update(piece);
      bytes += piece.length;
      yield piece;
    }
  };
  await pipeline(meter, createWriteStream(path, { flush: true }));
  return { bytes, contentType, sha256: hash.digest("hex"), finalUrl };
}

/** What goes wrong here is the sender's doing; what goes wrong where the pieces go is not, and passes by. */
async function* piecesOf(
  { statusCode: status, headers, body }: Dispatcher.ResponseData,
  maxBytes: number,
  stop: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
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

  let received = 0;
  const source = (body as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  for (;;) {
    const next = await source.next().catch((error: unknown) => {
      throw stop.aborted ? error : classified(error, true);
    });
    if (next.done) break;
    received += next.value.length;
    if (received > maxBytes) throw tooLarge();
    yield next.value;
  }
  if (length !== null && received !== Number(length)) throw refusedTruncated();
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
