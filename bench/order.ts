import { randomUUID } from "node:crypto";
import { v7 as uuidv7 } from "uuid";
import { demo } from "../apps/demo.ts";
import { toRequest } from "../src/api/ordering.ts";
import { type Submission, submissionSchema } from "../src/api/submission.ts";
import type { AcceptRequest } from "../src/db/accept.ts";
import { type Fitted, fitWish } from "../src/domain/request.ts";

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
  return { ...REQUEST, id: uuidv7(), userId, idempotencyKey };
}

const SUBMISSION: Submission = submissionSchema.parse(JSON.parse(bodyOf("anybody")));
const REQUEST = toRequest({ jobDeadlineSeconds: 3_600 }, demo, "any", SUBMISSION, fitted(SUBMISSION), {});

function fitted(submission: Submission): Fitted {
  const fitting = fitWish(demo, null, submission);
  if (!fitting.ok) throw new Error(`the bench's own order is refused: ${JSON.stringify(fitting.problems)}`);
  return fitting.fitted;
}
