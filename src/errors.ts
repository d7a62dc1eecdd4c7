import type { FieldProblem } from "./domain/kinds/kind.ts";

/**
 * What a request can be refused with. The code is stable and may be programmed against; a `retryable` one may be sent
 * again as it is, with the same Idempotency-Key.
 */
export const ERRORS = {
  malformed_request: { status: 400, title: "The request cannot be read", retryable: false },
  idempotency_key_missing: { status: 400, title: "Idempotency-Key is missing", retryable: false },
  unauthenticated: { status: 401, title: "No valid API key", retryable: false },
  insufficient_credits: { status: 402, title: "Not enough credits", retryable: false },
  forbidden: { status: 403, title: "Not allowed", retryable: false },
  too_many_models: { status: 403, title: "The plan keeps no more trained models", retryable: false },
  not_found: { status: 404, title: "Not found", retryable: false },
  still_training: { status: 409, title: "The model is still being trained", retryable: false },
  canceled: { status: 409, title: "Canceled", retryable: false },
  already_ended: { status: 409, title: "The job has already ended", retryable: false },
  quote_expired: { status: 409, title: "The quote does not hold any more", retryable: false },
  payload_too_large: { status: 413, title: "The body is too large", retryable: false },
  unsupported_media_type: { status: 415, title: "The content type is not accepted", retryable: false },
  invalid_input: { status: 422, title: "The request is not valid", retryable: false },
  file_refused: { status: 422, title: "The file cannot be used", retryable: false },
  idempotency_key_reused: { status: 422, title: "Idempotency-Key was used for another request", retryable: false },
  webhook_refused: { status: 401, title: "The webhook is not genuine", retryable: false },
  rate_limited: { status: 429, title: "Too many requests", retryable: true },
  model_gone: { status: 503, title: "The model is not available", retryable: false },
  provider_paused: { status: 503, title: "The provider takes no orders from us", retryable: true },
  app_disabled: { status: 503, title: "Switched off", retryable: true },
  too_many_waiting: { status: 503, title: "Too many requests are waiting", retryable: true },
  unavailable: { status: 503, title: "Temporarily unavailable", retryable: true },
  internal: { status: 500, title: "Something went wrong on our side", retryable: true },
} as const satisfies Record<string, { status: number; title: string; retryable: boolean }>;

export type ErrorCode = keyof typeof ERRORS;

/** A refusal that the caller can act on: `message` says what to do, and is sent to the caller as it is. */
export class ServiceError extends Error {
  override readonly name = "ServiceError";
  readonly code: ErrorCode;
  readonly fields: readonly FieldProblem[];
  /** Further members of the problem document: {"required": 40, "available": 3}. */
  readonly facts: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { fields?: readonly FieldProblem[]; facts?: Record<string, unknown>; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.code = code;
    this.fields = options.fields ?? [];
    this.facts = options.facts ?? {};
  }
}
