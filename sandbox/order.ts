import type { Clock } from "./clock.ts";
import type { FaceName } from "./face.ts";
import { parseDirectives } from "./fault.ts";
import type { Faults, OwnFault } from "./faults.ts";
import { filled, type Input, violations } from "./field.ts";
import { randomId, sha256 } from "./id.ts";
import type { Chosen } from "./models.ts";
import { invalidInput, Problem } from "./problem.ts";
import type { Run, WebhookEvent } from "./run.ts";

/** A request that was understood, and is not yet accepted. */
export interface Order {
  readonly face: FaceName;
  readonly kind: Run["kind"];
  readonly chosen: Chosen;
  readonly input: Input;
  readonly inputBytes: number;
  readonly destination: string | null;
  /** The name of the deployment that runs it, where one does. */
  readonly deployment?: string;
  readonly webhook: string | null;
  readonly events: readonly WebhookEvent[] | null;
  readonly cancelAfterMs: number | null;
  readonly origin: string;
  readonly token: string;
  /** What faults look at. */
  readonly model: string;
  readonly text: string;
  readonly own: OwnFault[];
}

/** Checks the input against the model and reads the directives in it; throws the 422 that the caller gets. */
export function makeOrder(wanted: Omit<Order, "model" | "text" | "own">): Order {
  const { kind, chosen, input } = wanted;
  const fields = kind === "training" ? (chosen.program.training?.input ?? {}) : chosen.program.input;
  const found = violations(fields, input);
  const text = wordsOf(input);
  const { faults, mistakes } = parseDirectives(text);
  for (const mistake of mistakes) found.push({ type: "directive", field: "input.prompt", description: mistake });
  if (found.length > 0) throw invalidInput(found);
  const own = faults.map((fault) => ({ fault, left: fault.times }));
  return { ...wanted, text, own, model: `${chosen.model.owner}/${chosen.model.name}` };
}

function wordsOf(input: Input): string {
  const words = Object.values(input).filter((value) => typeof value === "string" && !value.startsWith("data:"));
  return words.join("\n");
}

/** Turns an order into a run. From here on it exists, is billed, and nobody can say that it was not accepted. */
export function makeRun(
  order: Order,
  parts: {
    readonly clock: Clock;
    readonly faults: Faults;
    readonly speed: number;
    readonly number: number;
    /** Where ids look otherwise than Replicate's. */
    readonly id?: string;
  },
): Run {
  const { kind, chosen, input } = order;
  const { program, model } = chosen;
  const training = kind === "training" ? program.training : undefined;
  const values = filled(training?.input ?? program.input, input);
  const id = parts.id ?? randomId();
  const createdAt = parts.clock.now();
  const slow = parts.faults.strike("slow", order);
  const lag = parts.faults.strike("list_lag", order);
  model.runCount += 1;
  return {
    face: order.face,
    id,
    kind,
    number: parts.number,
    model: order.model,
    version: kind === "training" && chosen.version === "hidden" ? (model.versions[0]?.id ?? "hidden") : chosen.version,
    program,
    price: training?.price ?? program.price,
    outputCount: whole(values["num_outputs"], 1),
    reel: kind === "prediction" ? (program.reel?.(values) ?? null) : null,
    totalSteps: Math.max(1, whole(values["num_inference_steps"] ?? values["steps"] ?? values["max_train_steps"], 28)),
    seed: whole(values["seed"], Number.parseInt(sha256(id).slice(0, 8), 16)),
    text: order.text,
    input,
    inputBytes: order.inputBytes,
    values,
    destination: order.destination,
    deployment: order.deployment ?? null,
    webhook: order.webhook,
    events: order.events,
    origin: order.origin,
    createdBy: order.token.slice(-4),
    own: order.own,
    folder: randomId(32),
    createdAt,
    deadline: order.cancelAfterMs === null ? null : createdAt + order.cancelAfterMs,
    listedAt: createdAt + (lag?.amount ?? 0),
    // "slow" means seconds of the wall, whatever the speed: whoever asks for it wants to see it.
    runMs: slow ? slow.amount * 1_000 : (training?.runMs ?? program.runMs) / parts.speed,
    status: "starting",
    lora: null,
    startedAt: null,
    completedAt: null,
    output: null,
    error: null,
  };
}

function whole(value: unknown, otherwise: number): number {
  return typeof value === "number" ? Math.max(0, Math.floor(value)) : otherwise;
}

const MIN_CANCEL_AFTER_MS = 5_000;
const MAX_CANCEL_AFTER_MS = 24 * 3_600_000;

/** "90s", "5m", "1h30m45s", or a bare number of seconds. */
export function parseCancelAfter(header: string | undefined): number | null {
  if (header === undefined) return null;
  const text = header.trim();
  const bare = /^\d+(\.\d+)?$/.test(text) ? Number(text) : null;
  const parts = /^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$/.exec(text);
  const [, hours, minutes, seconds] = parts ?? [];
  const spelled =
    parts && text !== "" ? Number(hours ?? 0) * 3_600 + Number(minutes ?? 0) * 60 + Number(seconds ?? 0) : null;
  const ms = (bare ?? spelled ?? Number.NaN) * 1_000;
  if (!(ms >= MIN_CANCEL_AFTER_MS && ms <= MAX_CANCEL_AFTER_MS)) {
    const detail = `Cancel-After must be a duration of at least 5 seconds, such as 90s or 1h30m; got "${text.slice(0, 50)}"`;
    throw new Problem(422, { title: "Invalid Cancel-After header", detail, status: 422 });
  }
  return ms;
}

const MAX_WAIT_SECONDS = 60;

/** `Prefer: wait` or `Prefer: wait=n`; a preference that is not understood is ignored, as RFC 7240 says. */
export function parseWaitMs(prefer: string | undefined): number | null {
  const found = /(?:^|,)\s*wait(?:=(\d{1,3}))?\s*(?:,|$)/.exec(prefer ?? "");
  if (!found) return null;
  return Math.min(MAX_WAIT_SECONDS, Math.max(1, Number(found[1] ?? MAX_WAIT_SECONDS))) * 1_000;
}
