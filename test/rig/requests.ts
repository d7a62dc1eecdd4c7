import { v7 as uuidv7 } from "uuid";
import type { AcceptRequest } from "../../src/db/accept.ts";

/** A whole request of its own key, as accept_jobs takes it: one image for one credit, unless something else is said. */
export function makeRequest(over: Partial<AcceptRequest> & Pick<AcceptRequest, "appId" | "userId">): AcceptRequest {
  const id = over.id ?? uuidv7();
  const credits = over.credits ?? 1;
  return {
    id,
    kind: "generation",
    model: "flux-schnell",
    input: { prompt: "x" },
    files: {},
    metadata: {},
    variants: 1,
    minSuccess: 1,
    maxAttempts: 1,
    maxRebuys: 1,
    credits,
    priceLines: [{ label: "x", credits }],
    idempotencyKey: id,
    fingerprint: "ab".repeat(32),
    deadlineSeconds: 3_600,
    plan: "default",
    priceBook: "1",
    clamps: [],
    quoteId: null,
    batchId: null,
    pipelineId: null,
    experiment: null,
    arm: null,
    reuse: null,
    callbackUrl: null,
    rates: [],
    trained: null,
    ...over,
  };
}
