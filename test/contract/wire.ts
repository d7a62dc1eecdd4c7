import { createServer, request as forward, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const KEPT_BYTES = 256 * 1024; // of an answer, for whoever wants to read it

/** One request that the adapter sent. */
export interface Seen {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** Null: the provider sent none, or it was not asked. */
  status: number | null;
  answer: string;
}

/** Answers in the provider's place; true when it did, or when it leaves the caller without an answer on purpose. */
export type Stand = (seen: Seen, response: ServerResponse) => boolean;
/** What becomes of an answer's bytes on their way. */
export type Change = (bytes: Buffer, seen: Seen) => Buffer;

/** Between the adapter and the sandbox: writes everything down, and does what the sandbox cannot do. */
export interface Wire {
  /** Origin. */
  readonly url: string;
  /** The same place by an address that is not loopback, as the real service is not. */
  readonly strangerUrl: string;
  /** Since the last `clear`. */
  readonly seen: readonly Seen[];
  clear(): void;
  stand(stand: Stand): void;
  change(change: Change): void;
  /** Forwards everything as it is again. */
  calm(): void;
  close(): Promise<void>;
}

export async function startWire(sandboxUrl: string): Promise<Wire> {
  const { hostname, port } = new URL(sandboxUrl);
  let seen: Seen[] = [];
  let stand: Stand | null = null;
  let change: Change | null = null;

  const server = createServer((incoming, response) => {
    const chunks: Buffer[] = [];
    incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
    incoming.on("error", () => response.destroy());
    incoming.on("end", () => {
      const bytes = Buffer.concat(chunks);
      const { method = "GET", url: path = "/", headers } = incoming;
      const one: Seen = { method, path, headers, body: bytes.toString("utf8"), status: null, answer: "" };
      seen.push(one);
      if (stand?.(one, response)) return;

      const onward = forward({ host: hostname, port, method, path, headers: { ...headers, connection: "close" } });
      onward.on("error", () => response.destroy());
      onward.on("response", (answer) => {
        const status = answer.statusCode ?? 502;
        one.status = status;
        const kept: Buffer[] = [];
        let length = 0;
        answer.on("data", (chunk: Buffer) => {
          length += chunk.length;
          if (length <= KEPT_BYTES || change) kept.push(chunk);
        });
        answer.on("error", () => response.destroy());
        answer.on("end", () => {
          one.answer = Buffer.concat(kept).toString("utf8");
        });
        const { connection: _connection, ...own } = answer.headers;
        if (!change) {
          response.writeHead(status, own);
          answer.pipe(response);
          return;
        }
        const by = change;
        answer.on("end", () => {
          const { "content-length": _length, "transfer-encoding": _encoding, ...rest } = own;
          const whole = Buffer.concat(kept);
          const changed = by(whole, one);
          // Bytes that were changed are no picture any more.
          const type = changed === whole || isJson(own["content-type"]) ? {} : { "content-type": "application/json" };
          response.writeHead(status, { ...rest, ...type, "content-length": changed.length }).end(changed);
        });
      });
      // Who hangs up on us hangs up on the provider.
      response.on("close", () => onward.destroy());
      onward.end(bytes);
    });
  });
  server.keepAliveTimeout = 30_000;
  await new Promise<void>((resolve) => server.listen(0, "0.0.0.0", resolve));
  const own = (server.address() as AddressInfo).port;

  return {
    url: `http://127.0.0.1:${own}`,
    strangerUrl: `http://0.0.0.0:${own}`,
    get seen() {
      return seen;
    },
    clear() {
      seen = [];
    },
    stand(next) {
      stand = next;
    },
    change(next) {
      change = next;
    },
    calm() {
      stand = null;
      change = null;
    },
    close() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}

const isJson = (type: string | undefined): boolean => type?.includes("json") ?? false;

export const isCreate = (seen: Seen): boolean => seen.method === "POST";

/** Takes what `which` picks, and lets all else pass. */
export function only(which: (seen: Seen) => boolean, stand: Stand): Stand {
  return (seen, response) => which(seen) && stand(seen, response);
}

/** Takes the request and never says a word. */
export const silence: Stand = () => true;

export function answer(status: number, body: string, headers: Readonly<Record<string, string>> = {}): Stand {
  return (_seen, response) => {
    const type = body.trimStart().startsWith("<") ? "text/html" : "application/json";
    response.writeHead(status, { "content-type": type, ...headers }).end(body);
    return true;
  };
}

export const PAGE =
  "<!DOCTYPE html><html><head><title>Oops</title></head><body><h1>Something in between</h1></body></html>";

/** Begins an answer and goes on, a byte at a time, as long as anybody listens. */
export const trickle: Stand = (_seen, response) => {
  response.writeHead(200, { "content-type": "application/json", "content-length": 1_000_000 });
  const timer = setInterval(() => response.write(" "), 50);
  response.on("close", () => clearInterval(timer));
  return true;
};

/** JSON without an end: `sent` counts its bytes, which stop at `most`. */
export function flood(most: number): { readonly stand: Stand; sent(): number } {
  const block = Buffer.alloc(1024 * 1024, " ");
  let sent = 0;
  return {
    sent: () => sent,
    stand(_seen, response) {
      response.writeHead(200, { "content-type": "application/json" });
      const pour = () => {
        while (!response.destroyed) {
          if (sent >= most) return void response.end("{}");
          sent += block.length;
          if (!response.write(block)) return void response.once("drain", pour);
        }
      };
      pour();
      return true;
    },
  };
}
