import type { LookupFunction, Socket } from "node:net";
import { buildConnector } from "undici";
import { privateAddress } from "./fetch-refused.ts";

export interface Address {
  readonly address: string;
  readonly family: number;
}

const CONNECT_MS = 10_000;

/** Connects to the judged addresses and no others; what it got is compared once more. */
export function connectorTo(
  addresses: readonly Address[],
  mayUse: (address: string) => boolean,
  stop: AbortSignal,
): buildConnector.connector {
  const lookup: LookupFunction = (_name, { all }, callback) => {
    const first = addresses[0] as Address;
    if (all) callback(null, [...addresses]);
    else callback(null, first.address, first.family);
  };
  // The signal ends a socket that is still connecting; undici's own stops the request only.
  const socketOptions = { lookup, timeout: CONNECT_MS, maxCachedSessions: 0, signal: stop };
  const connect = buildConnector(socketOptions);
  return (target, callback) =>
    connect(target, (...[error, socket]) => {
      if (error || !socket) return callback(error ?? new Error("no socket"), null);
      if (mayUse(socket.remoteAddress ?? "")) return callback(null, contained(socket));
      socket.destroy();
      callback(privateAddress(), null);
    });
}

/** In these undici finishes a parser that may be held up. */
const ENDINGS: ReadonlySet<string | symbol> = new Set(["end", "error", "close"]);

/**
 * undici 7 throws out of the socket's events when the far end closes while a body is held up, and nobody could catch it
 * (https://github.com/nodejs/undici/issues/5360): here it ends the connection instead of the process, and the request by
 * that or by its time limit.
 */
function contained<S extends Socket>(socket: S): S {
  const emit = socket.emit.bind(socket) as (event: string | symbol, ...args: unknown[]) => boolean;
  socket.emit = (event: string | symbol, ...args: unknown[]) => {
    if (!ENDINGS.has(event)) return emit(event, ...args);
    try {
      return emit(event, ...args);
    } catch (error) {
      socket.destroy(error instanceof Error ? error : new Error(String(error)));
      return true;
    }
  };
  return socket;
}
