/** What a plain request from here to some address comes to; for the doctor. */
export interface Probe {
  readonly status: number;
  /** The first 2,000 characters. */
  readonly body: string;
  /** Of a redirect, where it leads. */
  readonly location: string | null;
  /** By how much the clock there is ahead of ours, in ms, right to a second; null: it does not say. */
  readonly aheadMs: number | null;
}

const TOTAL_MS = 10_000;
const MOST_CHARACTERS = 2_000;

/** Follows no redirect. Throws when there is no answer within 10 s; the message says why. */
export async function probe(url: string, init: Pick<RequestInit, "method" | "headers" | "body"> = {}): Promise<Probe> {
  const began = Date.now();
  try {
    const response = await fetch(url, { ...init, redirect: "manual", signal: AbortSignal.timeout(TOTAL_MS) });
    const date = Date.parse(response.headers.get("date") ?? "");
    const middle = (began + Date.now()) / 2;
    const body = (await response.text()).slice(0, MOST_CHARACTERS);
    // The header has whole seconds: on average it is half of one behind.
    const aheadMs = Number.isNaN(date) ? null : Math.round(date + 500 - middle);
    return { status: response.status, body, location: response.headers.get("location"), aheadMs };
  } catch (error) {
    throw new Error(reasonOf(error), { cause: error });
  }
}

/** "fetch failed" says nothing: the cause does. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError") return `no answer within ${TOTAL_MS / 1_000} s`;
  return error.cause instanceof Error ? error.cause.message || reasonOf(error.cause) || error.message : error.message;
}
