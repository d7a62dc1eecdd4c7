import { randomUUID } from "node:crypto";
import { v7 as uuidv7 } from "uuid";
import { demo } from "../apps/demo.ts";
import type { AcceptRequest } from "../src/db/accept.ts";
import { generation, generationInput } from "../src/domain/kinds/generation.ts";
import { price } from "../src/domain/pricing.ts";

const INPUT = {
  prompt:
    "a lighthouse on a basalt cliff at dusk, long exposure, soft mist over the water, muted colours, shot on medium format film",
  size: "landscape",
  seed: 7,
} as const;
const METADATA = { campaign: "autumn", order: "A-10293" };

/** What a client of the API would send. */
export function bodyOf(user: string): string {
  return JSON.stringify({ kind: "generation", user, input: INPUT, metadata: METADATA });
}

/** What the API makes of that body: for the rows that have no HTTP. */
export function requestOf(userId: string, idempotencyKey: string = randomUUID()): AcceptRequest {
  const { count, minSuccess } = generation.variants(PARSED);
  const { credits, lines } = price(generation.price(PARSED, demo));
  return {
    id: uuidv7(),
    appId: demo.id,
    userId,
    kind: generation.name,
    model: generation.defaultModel,
    input: PARSED,
    files: {},
    metadata: METADATA,
    variants: count,
    minSuccess,
    maxAttempts: 3,
    maxRebuys: 1,
    credits,
    priceLines: lines,
    idempotencyKey,
    fingerprint: FINGERPRINT,
    deadlineSeconds: 3_600,
  };
}

const PARSED = generationInput.parse(INPUT);
const FINGERPRINT = "5d".repeat(32);
