import type { AcceptAnswer, AcceptRequest } from "./db/accept.ts";
import { ServiceError } from "./errors.ts";

/** What an answer of accept_jobs that is no acceptance means to the caller; null: it is one. */
export function refusalOf(
  answer: AcceptAnswer,
  request: { readonly appId: string; readonly credits: number; readonly maxModels: number | null },
): ServiceError | null {
  const { outcome, available } = answer;
  switch (outcome) {
    case "accepted":
    case "replayed":
    case "reused":
      return null;
    case "insufficient_credits":
      return new ServiceError(
        "insufficient_credits",
        `This costs ${request.credits} credits and the user has ${available}. Grant credits with POST /api/credits/{user}/grants, or ask for less. Nothing was charged.`,
        { facts: { required: request.credits, available } },
      );
    case "key_reused":
      return keyReused(answer.jobId);
    case "rate_limited":
      return new ServiceError(
        "rate_limited",
        `Too many requests (${answer.detail}). Try again in ${answer.retryAfter} s, with the same Idempotency-Key. Nothing was charged.`,
        { facts: { limit: answer.detail, retryAfter: answer.retryAfter } },
      );
    case "too_many_models":
      return new ServiceError(
        "too_many_models",
        `The user's plan keeps ${request.maxModels ?? 0} trained models, and all are taken. Delete one (DELETE /api/trained-models/{id}) or change the plan. Nothing was charged.`,
        { facts: { maxModels: request.maxModels ?? 0 } },
      );
    case "disabled":
      return new ServiceError(
        "app_disabled",
        `The app ${request.appId} is switched off by its operator: nothing is accepted at the moment. What was accepted goes on.`,
      );
  }
}

/** As refusalOf takes it. */
export function chargeOf({ appId, credits, trained }: Pick<AcceptRequest, "appId" | "credits" | "trained">) {
  return { appId, credits, maxModels: trained?.maxModels ?? null };
}

export function keyReused(jobId: string | null): ServiceError {
  return new ServiceError(
    "idempotency_key_reused",
    "This Idempotency-Key already stands for a request with another body. Use a new key for a new request. Nothing was charged.",
    { facts: { jobId } },
  );
}
