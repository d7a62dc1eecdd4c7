import { lookup as resolveName } from "node:dns/promises";
import { isIP } from "node:net";
import { Agent } from "undici";
import { makeAddressGuard } from "./address.ts";
import { type Address, connectorTo } from "./connector.ts";

/** What is sent to an address that somebody else wrote. */
export interface Post {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** For everything: the name, the connection, and the answer. */
  readonly timeoutMs: number;
}

export interface PostAnswer {
  readonly status: number;
  /** The first kilobyte of an answer that is no 2xx; for people. */
  readonly excerpt: string;
}

/** Sends a POST. Redirects are not followed: they are answers like any other. Throws PostRefused, or what went wrong. */
export type GuardedPost = (url: string, post: Post) => Promise<PostAnswer>;

/** The address is none that is posted to. The message is for whoever gave it. */
export class PostRefused extends Error {
  override readonly name = "PostRefused";
}

export interface PostRules {
  /** Origins that may be anywhere, speak http and use any port: "http://backend:8080". */
  readonly allowedOrigins: readonly string[];
  /** Instead of the system's resolver. */
  readonly resolve?: (hostname: string) => Promise<readonly Address[]>;
}

const MOST_EXCERPT_BYTES = 1_024;
const isPublic = makeAddressGuard();
const INNER_NAME = /(^|\.)(localhost|local|internal|localdomain|lan|home\.arpa)\.?$/i;

/** Why nothing can be posted to this address, as far as it says so itself; null: it will be resolved and judged again. */
export function targetProblem(text: string, { allowedOrigins }: Pick<PostRules, "allowedOrigins">): string | null {
  if (!URL.canParse(text)) return "is no URL: give a full one, beginning with https://";
  const url = new URL(text);
  if (url.username || url.password) return "must not carry a user name or password: the signature tells who we are";
  if (allowedOrigins.includes(url.origin)) return null;
  if (url.protocol !== "https:")
    return "must begin with https://, or with an origin that the operator allows (CALLBACK_ORIGINS)";
  if (url.port !== "") return "must use port 443, or begin with an origin that the operator allows (CALLBACK_ORIGINS)";
  const host = hostOf(url);
  const isInner = isIP(host) ? !isPublic(host) : INNER_NAME.test(host) || !host.includes(".");
  return isInner ? PRIVATE : null;
}

const PRIVATE =
  "leads to an address that is not public: give one that is, or begin with an origin that the operator allows (CALLBACK_ORIGINS)";

const hostOf = (url: URL) => url.hostname.replace(/^\[|\]$/g, "");

/**
 * A POST that cannot be turned against our own network: the name is resolved once, every address must be public, and the
 * socket gets exactly the addresses that were judged. No redirects, proxies, cookies or kept-alive connections.
 */
export function makeGuardedPost(rules: PostRules): GuardedPost {
  const { allowedOrigins, resolve = (name) => resolveName(name, { all: true }) } = rules;

  async function addressesOf(url: URL): Promise<readonly Address[]> {
    const host = hostOf(url);
    const family = isIP(host);
    const addresses = family ? [{ address: host, family }] : await resolve(host);
    if (addresses.length === 0) throw new Error("the host of the URL cannot be found");
    if (!allowedOrigins.includes(url.origin) && !addresses.every(({ address }) => isPublic(address)))
      throw new PostRefused(PRIVATE);
    return addresses;
  }

  return async (text, { headers, body, timeoutMs }) => {
    const problem = targetProblem(text, rules);
    if (problem) throw new PostRefused(problem);
    const url = new URL(text);
    const stop = AbortSignal.timeout(timeoutMs);
    const addresses = await Promise.race([addressesOf(url), abortOf(stop, timeoutMs)]);
    const mayUse = (address: string) => allowedOrigins.includes(url.origin) || isPublic(address);
    const agent = new Agent({ connect: connectorTo(addresses, mayUse, stop), pipelining: 0 });
    try {
      const answer = await agent.request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: "POST",
        headers: { "user-agent": "Darkroom/1", ...headers },
        body,
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
        signal: stop,
      });
      // A body that is left unread is cut off below, which it reports as an error that means nothing.
      answer.body.on("error", () => {});
      const { statusCode: status } = answer;
      const isTaken = status >= 200 && status < 300;
      return { status, excerpt: isTaken ? "" : await firstKilobyte(answer.body) };
    } finally {
      // Nothing waits for the socket to close: the far end could draw that out.
      void agent.destroy();
    }
  };
}

/** What came of it before it ended, broke off or was stopped. */
async function firstKilobyte(body: AsyncIterable<Buffer>): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const piece of body) {
      pieces.push(piece);
      bytes += piece.length;
      if (bytes >= MOST_EXCERPT_BYTES) break;
    }
  } catch {
    // The status has been said.
  }
  return Buffer.concat(pieces).subarray(0, MOST_EXCERPT_BYTES).toString("utf8");
}

function abortOf(stop: AbortSignal, timeoutMs: number): Promise<never> {
  return new Promise((_, reject) => {
    const give = () => reject(new Error(`the name was not resolved within ${timeoutMs / 1_000} s`));
    stop.addEventListener("abort", give, { once: true });
  });
}
