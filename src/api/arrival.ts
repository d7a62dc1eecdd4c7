import type { IncomingMessage } from "node:http";

/** In which the body of a request has to arrive. */
const USUAL_MS = 90_000;
/** The longest that a route may ask for, and the server's own bound of a whole request. */
export const MOST_ARRIVAL_MS = 1_800_000;

const bounds = new WeakMap<IncomingMessage, NodeJS.Timeout>();

/**
 * Cuts the connection when the body is not here in time: who sends a byte now and then would hold it for ever. Asked
 * again, the new time counts from then on. Node has one such bound for all requests, and a gigabyte from somebody who has
 * proven who he is needs longer than anything else may.
 */
export function expectBody(request: IncomingMessage, withinMs = USUAL_MS): void {
  const { "content-length": length, "transfer-encoding": encoding } = request.headers;
  if (encoding === undefined && (length === undefined || length === "0")) return;
  const known = bounds.get(request);
  clearTimeout(known);
  const late = setTimeout(() => {
    if (!request.complete) request.destroy();
  }, withinMs);
  late.unref();
  bounds.set(request, late);
  if (!known) request.once("close", () => clearTimeout(bounds.get(request)));
}
