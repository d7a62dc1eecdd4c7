import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import { Problem } from "../problem.ts";
import { parse } from "../request.ts";
import { isOver, isRemoved, type Run } from "../run.ts";
import { spoils } from "../wire.ts";

const path = z.object({ owner: z.string(), alias: z.string(), id: z.string() });
const ORIGIN = "https://queue.fal.run"; // where fal says that its runs are, whoever passes them on

/** fal's queue behind the router: what becomes of a run is asked for below owner/alias, without what follows it. */
export function queueRoutes({ runs, faults, clock, options }: Cloud) {
  return async (api: FastifyInstance) => {
    api.get("/fal-ai/:owner/:alias/requests/:id/status", async (request, reply) => {
      const { run, at } = find(request.params);
      if (spoils(faults, run, reply)) return reply;
      if (faults.strike("get_missing", run)) throw missing();
      const { completedAt, startedAt } = run;
      const waits = startedAt === null ? "IN_QUEUE" : "IN_PROGRESS";
      if (completedAt === null) return reply.code(202).send(ticket(run, at, waits));
      const metrics = startedAt === null ? {} : { inference_time: (completedAt - startedAt) / 1_000 };
      const error = run.status === "succeeded" ? null : failed(run);
      return {
        ...ticket(run, at, "COMPLETED"),
        logs: null,
        metrics,
        ...(error && { error: error.message, error_type: error.body["error_type"] ?? null }),
      };
    });

    api.get("/fal-ai/:owner/:alias/requests/:id", async (request) => {
      const { run } = find(request.params);
      if (!isOver(run)) throw new Problem(400, { detail: "Request is still in progress" });
      if (isRemoved(run, clock.now(), options.outputTtlMs)) throw new Problem(404, { detail: "Request has expired" });
      if (run.status !== "succeeded") throw failed(run);
      return resultOf(run);
    });
  };

  function find(params: unknown): { readonly run: Run; readonly at: string } {
    const { owner, alias, id } = parse(path, params);
    const run = runs.get(id);
    if (run?.face !== "huggingface") throw missing();
    return { run, at: `${owner}/${alias}` };
  }
}

/** What a create and each question about it are answered with. `at`: owner/alias. */
export function ticket(run: Run, at: string, status: "IN_QUEUE" | "IN_PROGRESS" | "COMPLETED") {
  const url = `${ORIGIN}/${at}/requests/${run.id}`;
  const place = status === "IN_QUEUE" ? { queue_position: 0 } : {};
  return {
    status,
    request_id: run.id,
    response_url: url,
    status_url: `${url}/status`,
    cancel_url: `${url}/cancel`,
    ...place,
  };
}

const missing = () => new Problem(404, { detail: "Request not found" });

function resultOf(run: Run) {
  const urls = Array.isArray(run.output) ? run.output : [];
  if (run.reel) return { video: { url: urls[0], content_type: "video/webm" }, seed: run.seed };
  const type = run.values["output_format"] === "png" ? "image/png" : "image/jpeg";
  return {
    images: urls.map((url) => ({ url, content_type: type })),
    timings: {},
    seed: run.seed,
    has_nsfw_concepts: urls.map(() => false),
    prompt: run.text,
  };
}

/** The result of a run that failed is the error itself. */
function failed({ status, error }: Run): Problem {
  if (status === "aborted") return platform(504, "startup_timeout", "Runner did not start in time");
  const text = error ?? "The run was stopped";
  if (/interrupted/.test(text)) return platform(503, "runner_disconnected", "Runner disconnected");
  // The model's own errors are a list.
  const ofModel = (status: number, type: string) =>
    new Problem(status, { detail: [{ loc: ["body", "prompt"], msg: text, type }] });
  return /NSFW/.test(text) ? ofModel(422, "content_policy_violation") : ofModel(500, "internal_server_error");
}

function platform(status: number, error_type: string, detail: string): Problem {
  return new Problem(status, { detail, error_type }, { "x-fal-error-type": error_type });
}
