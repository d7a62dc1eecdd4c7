import { z } from "zod";
import { filled, type Input, violations } from "../field.ts";
import { randomId } from "../id.ts";
import { makeOrder, makeRun, type Order } from "../order.ts";
import { Problem } from "../problem.ts";
import type { Run } from "../run.ts";
import { chosenOf, type Endpoint } from "./endpoints.ts";
import { failing, timingOut } from "./job.ts";

const DAYS_MS = 24 * 3_600_000;
const MOST_CLAIMS = 10_000;

export const wantedJob = z.object({
  input: z.record(z.string(), z.unknown()),
  webhook: z.string().max(4_096).optional(),
  policy: z
    .object({
      executionTimeout: z
        .number()
        .min(5_000)
        .max(7 * DAYS_MS)
        .default(600_000),
      ttl: z
        .number()
        .min(10_000)
        .max(7 * DAYS_MS)
        .default(DAYS_MS),
      lowPriority: z.boolean().optional(),
    })
    .prefault({}),
});
export type WantedJob = z.output<typeof wantedJob>;

const intended = z.object({ intent: z.object({ id: z.string(), not_after: z.string() }) });

/** Which job began with which intent: what a handler keeps in its bucket. */
export type Claims = Map<string, string>;

/** A refusal of the provider itself, in its own shape. */
export function refused(error: string, status = 400): Problem {
  return new Problem(status, { id: jobId("run"), status: "FAILED", error });
}

/** A UUID of the kind that ends in a region, as the provider's ids look. */
export function jobId(door: "run" | "runsync"): string {
  const parts = [8, 4, 4, 4, 12].map((length) => randomId(length)).join("-");
  return `${door === "runsync" ? "sync-" : ""}${parts}-u1`;
}

/** A public endpoint refuses an input that it does not take; what a handler of one's own makes of it is seen later. */
export function orderOf(
  endpoint: Endpoint,
  { input, webhook, policy }: WantedJob,
  from: { readonly origin: string; readonly token: string },
): Order {
  const isOwn = endpoint.answers === "images";
  const chosen = chosenOf(endpoint);
  if (!isOwn) checkSides(endpoint, input);
  try {
    const order = makeOrder({
      ...from,
      face: "runpod",
      kind: "prediction",
      // Only the directives of such an input are looked at here.
      chosen: isOwn ? { ...chosen, program: { ...chosen.program, input: {} } } : chosen,
      input,
      inputBytes: JSON.stringify(input).length,
      destination: null,
      webhook: webhook ?? null,
      events: null,
      cancelAfterMs: policy.ttl,
    });
    return { ...order, chosen, model: endpoint.id };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    throw refused(`Invalid parameter: ${wordsOf(error)}`);
  }
}

function checkSides({ isStrict }: Endpoint, input: Input): void {
  if (!isStrict) return;
  for (const name of ["width", "height"]) {
    const side = input[name];
    if (typeof side === "number" && side % 64 !== 0)
      throw refused(`Invalid parameter: ${name} must be divisible by 64`);
  }
}

const breaches = z.object({ invalid_fields: z.array(z.object({ field: z.string(), description: z.string() })) });

function wordsOf({ body, message }: Problem): string {
  const found = breaches.safeParse(body).data?.invalid_fields ?? [];
  const words = found.map(({ field, description }) => `${field.replace(/^input\./, "")}: ${description}`).join("; ");
  return words === "" ? message : words;
}

/** The run of an accepted order, with all that is decided of it by then. */
export function runOf(
  order: Order,
  endpoint: Endpoint,
  parts: Parameters<typeof makeRun>[1],
  { executionTimeout }: WantedJob["policy"],
  claims: Claims,
): Run {
  const run = makeRun(order, parts);
  const values = filled(endpoint.program.input, run.input);
  const given = values["image_format"] ?? values["format"] ?? "png";
  const shaped: Run = {
    ...run,
    values: { ...values, output_format: given === "jpeg" ? "jpg" : given, output_quality: values["quality"] },
    price: endpoint.price(values),
  };
  const refusal = endpoint.answers === "images" ? refusalOf(shaped, endpoint, claims) : null;
  // A handler sees at its first line what it will not do.
  if (refusal !== null) return { ...shaped, runMs: 0, own: [failing(refusal), ...shaped.own] };
  if (shaped.runMs <= executionTimeout) return shaped;
  return { ...shaped, runMs: executionTimeout, own: [timingOut(), ...shaped.own] };
}

function refusalOf(run: Run, { program }: Endpoint, claims: Claims): string | null {
  const found = violations(program.input, run.input)[0];
  if (found) return `Invalid input: ${found.field}: ${found.description}`;
  const intent = intended.safeParse(run.input).data?.intent;
  if (!intent) return null;
  if (Date.now() > Date.parse(intent.not_after))
    return `intent refused (late): it was not to begin after ${intent.not_after}`;
  const holder = claims.get(intent.id);
  if (holder !== undefined) return `intent refused (taken): job ${holder} began it, and has stored no answer`;
  claims.set(intent.id, run.id);
  const oldest = claims.keys().next().value;
  if (claims.size > MOST_CLAIMS && oldest !== undefined) claims.delete(oldest);
  return null;
}
