import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import { Problem, type ThrottleForm } from "../problem.ts";
import { originOf } from "../request.ts";
import { isOver, type Run } from "../run.ts";
import { MAX_RUNS } from "../runs.ts";
import { type Refusals, spoils, standsBefore, tellAccepted } from "../wire.ts";
import { type Endpoint, findEndpoint } from "./endpoints.ts";
import { isForgotten, jobOf, type Picture, statusOf } from "./job.ts";
import { keyOf } from "./key.ts";
import { type Claims, jobId, orderOf, refused, runOf, wantedJob } from "./order.ts";
import { loadWanted, type makeWorkers } from "./workers.ts";

const MOST_BYTES = { run: 10_000_000, runsync: 20_000_000 } as const;
const EARLY_LIMIT_MS = 30_000; // how long a create is held back for its own webhook
const USUAL_WAIT_MS = 90_000;

const path = z.object({ endpoint: z.string() });
const jobPath = path.extend({ id: z.string() });
const waitQuery = z.object({ wait: z.coerce.number().min(1_000).max(300_000).default(USUAL_WAIT_MS) });

/** Everything below one endpoint's id. */
export function jobRoutes(cloud: Cloud, workers: ReturnType<typeof makeWorkers>) {
  const { runs, course, faults, webhooks, bill, clock, gallery, options } = cloud;
  const claims: Claims = new Map();

  return async (api: FastifyInstance) => {
    for (const door of ["run", "runsync"] as const) {
      api.post(`/:endpoint/${door}`, { bodyLimit: MOST_BYTES[door] }, async (request, reply) => {
        const endpoint = endpointOf(request);
        const { wait } = read(waitQuery, request.query);
        const run = await accept(request, reply, endpoint, door);
        if (run === null) return reply;
        if (door === "run") return tellAccepted(faults, run, reply, 200, { id: run.id, status: "IN_QUEUE" });
        await course.over(run, wait);
        return tellAccepted(faults, run, reply, 200, await show(run));
      });
    }

    api.get("/:endpoint/status/:id", async (request, reply) => {
      const run = find(request);
      if (spoils(faults, run, reply)) return reply;
      if (faults.strike("get_missing", run)) throw missing("job not found");
      return show(run);
    });

    api.get("/:endpoint/status-sync/:id", async (request) => {
      const run = find(request);
      await course.over(run, read(waitQuery, request.query).wait);
      return show(run);
    });

    api.get("/:endpoint/stream/:id", async (request) => {
      const run = find(request);
      await course.over(run, 1_000);
      const { output, status } = await show(run);
      return { status, stream: isOver(run) && output !== undefined ? [{ output, metrics: {} }] : [] };
    });

    api.post("/:endpoint/cancel/:id", async (request) => {
      const run = find(request);
      if (isOver(run)) return { id: run.id, status: statusOf(run) };
      course.cancel(run);
      return { id: run.id, status: "CANCELLED" };
    });

    api.post("/:endpoint/purge-queue", async (request) => {
      const { id } = endpointOf(request);
      const queued = runs.out().filter((run) => run.model === id && run.face === "runpod" && run.status === "starting");
      for (const run of queued) course.cancel(run);
      return { removed: queued.length, status: "completed" };
    });

    api.get("/:endpoint/health", async (request) => workers.health(endpointOf(request).id));

    api.put("/_load/:endpoint", async (request) => {
      const { id } = endpointOf(request);
      workers.set(id, read(loadWanted, request.body));
      return workers.health(id);
    });
  };

  /** Null: nothing was accepted, and the connection is gone or answered. */
  async function accept(
    request: FastifyRequest,
    reply: FastifyReply,
    endpoint: Endpoint,
    door: "run" | "runsync",
  ): Promise<Run | null> {
    const wanted = read(wantedJob, request.body);
    const order = orderOf(endpoint, wanted, { origin: originOf(request), token: keyOf(request) ?? "" });
    if (!(await standsBefore(faults, order, reply, REFUSALS))) return null;
    if (!runs.hasRoom()) throw refused(`The sandbox has ${MAX_RUNS} runs out and takes no more.`, 503);
    const parts = { clock, faults, speed: options.speed, number: runs.nextNumber(), id: jobId(door) };
    const run = runOf(order, endpoint, parts, wanted.policy, claims);
    runs.add(run);
    bill.accept(run);
    const early = run.webhook !== null && faults.strike("webhook_early", run) !== null;
    const heard = early ? webhooks.firstDelivery(run, EARLY_LIMIT_MS) : Promise.resolve();
    course.launch(run);
    void workers.follow(run);
    await heard;
    return run;
  }

  async function show(run: Run) {
    return jobOf(run, clock.now(), await picturesOf(run));
  }

  /** Drawn when they are asked for, like the outputs that have a URL. */
  async function picturesOf(run: Run): Promise<Picture[]> {
    const { output, status } = run;
    if (status !== "succeeded" || output === null || typeof output === "string" || "weights" in output) return [];
    const format = String(run.values["output_format"] ?? "png");
    const drawn = output.map(async (_url, index): Promise<Picture> => {
      const bytes = await gallery.picture(run, index);
      if (bytes === null) throw missing("the output was dropped");
      const filename = `${run.folder.slice(0, 8)}_${String(index).padStart(5, "0")}_.${format}`;
      return { filename, type: "base64", data: bytes.toString("base64") };
    });
    return Promise.all(drawn);
  }

  function endpointOf(request: FastifyRequest): Endpoint {
    const { endpoint: id } = read(path, request.params);
    const endpoint = findEndpoint(id);
    const isGone = faults.strike("vanished", { face: "runpod", model: id, text: "", own: [] });
    if (!endpoint || isGone) throw missing("endpoint not found");
    return endpoint;
  }

  /** A job is known below its own endpoint only. */
  function find(request: FastifyRequest): Run {
    const { endpoint, id } = read(jobPath, request.params);
    const run = runs.get(id);
    if (run?.face !== "runpod" || run.model !== endpoint || isForgotten(run, clock.now(), options.outputTtlMs))
      throw missing("job not found");
    return run;
  }
}

const REFUSALS: Refusals = {
  unauthorized: () => new Problem(401, { error: "unauthorized" }),
  noCredit: () => new Problem(402, { error: "insufficient balance: add funds to your account" }),
  throttled: (form: ThrottleForm, seconds: number) =>
    new Problem(
      429,
      { error: "too many requests", ...(form === "body" && { retry_after: seconds }) },
      form === "header" ? { "retry-after": String(seconds) } : {},
    ),
};

const missing = (error: string) => new Problem(404, { error });

function read<Schema extends z.ZodType>(schema: Schema, value: unknown): z.output<Schema> {
  const found = schema.safeParse(value ?? {});
  if (found.success) return found.data;
  const [issue] = found.error.issues;
  throw refused(`Invalid parameter: ${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`);
}
