export type FetchRefusal =
  | "invalid_url"
  | "private_address"
  | "too_large"
  | "timeout"
  | "http_status"
  | "unreachable"
  | "bad_encoding"
  | "too_many_redirects"
  | "truncated";

/** The message is for whoever gave us the URL and tells nothing about the other side; the cause is for our log only. */
export class FetchRefused extends Error {
  override readonly name = "FetchRefused";
  readonly code: FetchRefusal;
  /** What the server answered, where that was the trouble. */
  readonly status: number | null;
  /** Whether the same URL may well work a moment later. */
  readonly retryable: boolean;

  constructor(code: FetchRefusal, message: string, options: { status?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.code = code;
    this.status = options.status ?? null;
    this.retryable = TRANSIENT.has(code) || isTransient(this.status);
  }
}

const TRANSIENT: ReadonlySet<FetchRefusal> = new Set(["timeout", "unreachable", "truncated"]);

function isTransient(status: number | null): boolean {
  return status !== null && (status >= 500 || status === 408 || status === 425 || status === 429);
}

export function privateAddress(): FetchRefused {
  return new FetchRefused(
    "private_address",
    "The URL leads to an address that is not public. Put the file on a public host.",
  );
}
