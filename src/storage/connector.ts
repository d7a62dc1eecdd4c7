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

/**
 * undici 7 throws out of the socket's "end" when the far end closes while a body is held up, and nobody could catch it
 * (https://github.com/nodejs/undici/issues/5360): here it ends the request instead of the process.
 */
function contained<S extends Socket>(socket: S): S {
  const emit = socket.emit.bind(socket) as (event: string | symbol, ...args: unknown[]) => boolean;
  socket.emit = (event: string | symbol, ...args: unknown[]) => {
    if (event !== "end") return emit(event, ...args);
    try {
      return emit(event, ...args);
    } catch (error) {
      socket.destroy(error instanceof Error ? error : new Error(String(error)));
      return true;
    }
  };
  return socket;
}
