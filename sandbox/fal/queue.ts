import { randomUUID } from "node:crypto";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Program } from "../catalogue.ts";
import { timestamp } from "../clock.ts";
import type { Cloud } from "../cloud.ts";
import type { Model } from "../models.ts";
import { makeOrder, makeRun, type Order } from "../order.ts";
import { Problem } from "../problem.ts";
import { originOf, parse } from "../request.ts";
import { isOver, isRemoved, portrait, type Run } from "../run.ts";
import { MAX_RUNS } from "../runs.ts";
import { spoils, standsBefore, tellAccepted } from "../wire.ts";
import { tokenOf } from "./admission.ts";
import { readInput } from "./input.ts";
import { type FalModel, MODELS, PAINTED } from "./models.ts";
import { detail, noSuchApplication, noSuchPath, noSuchRequest, platform, REFUSALS, refused } from "./problems.ts";
import { resultOf, secondsOf } from "./result.ts";

const EARLY_LIMIT_MS = 30_000; // how long a create is held back for its own webhook

const modelPath = z.object({ "*": z.string() });
const requestPath = z.object({ owner: z.string(), alias: z.string(), id: z.string() });
const submission = z.object({ fal_webhook: z.string().max(4_096).optional() });
const statusQuery = z.object({ logs: z.string().optional() });
const body = z.record(z.string(), z.unknown());
const invalid = z.object({ invalid_fields: z.array(z.object({ description: z.string() })) });

export function queueRoutes({ runs, course, faults, webhooks, bill, clock, options }: Cloud) {
  const known = new Map(MODELS.map((model) => [model.name, makeModel(model, clock.now())]));

  return async (api: FastifyInstance) => {
    api.post("/*", async (request, reply) => {
      const model = modelAt(parse(modelPath, request.params)["*"]);
      const { fal_webhook: webhook = null } = parse(submission, request.query);
      if (webhook !== null && !(URL.canParse(webhook) && new URL(webhook).protocol === "https:"))
        throw platform(400, "bad_request", "fal_webhook must be a valid HTTPS URL");
      checkStartTimeout(request);
      const input = body.safeParse(request.body).data;
      if (!input) throw refused([detail("dict_type", "Input should be a valid dictionary", null)]);
      return accept(reply, orderOf(request, model, input, webhook), model, input);
    });

    // What was behind the application's name at submission is no part of these.
    api.get("/:owner/:alias/requests/:id/status", async (request, reply) => {
      const { run, model, app } = find(request);
      if (spoils(faults, run, reply)) return reply;
      if (faults.strike("get_missing", run)) throw noSuchRequest();
      const over = isOver(run);
      const logs = parse(statusQuery, request.query).logs === "1" ? { logs: logsOf(run) } : {};
      const error = over ? resultOf(run, model) : null;
      return reply
        .code(over ? 200 : 202)
        .header("x-fal-request-id", run.id)
        .send({
          status: over ? "COMPLETED" : run.status === "starting" ? "IN_QUEUE" : "IN_PROGRESS",
          ...addresses(run, app),
          ...(run.status === "starting" && { queue_position: 0 }),
          ...logs,
          ...(over && { metrics: { inference_time: secondsOf(run) } }),
          ...(error instanceof Problem && { error: error.message, error_type: error.body["error_type"] ?? null }),
        });
    });

    api.get("/:owner/:alias/requests/:id", async (request, reply) => {
      const { run, model } = find(request);
      if (spoils(faults, run, reply)) return reply;
      reply.header("x-fal-request-id", run.id);
      if (!isOver(run)) throw new Problem(400, { detail: "Request is still in progress" });
      if (isRemoved(run, clock.now(), options.outputTtlMs)) throw new Problem(404, { detail: "Request has expired" });
      const result = resultOf(run, model);
      if (result instanceof Problem) throw result;
      return result;
    });

    api.put("/:owner/:alias/requests/:id/cancel", async (request, reply) => {
      const run = runs.get(parse(requestPath, request.params).id);
      if (run?.face !== "fal") return reply.code(404).send({ status: "NOT_FOUND" });
      if (isOver(run)) return reply.code(400).send({ status: "ALREADY_COMPLETED" });
      const isQueued = run.status === "starting";
      course.cancel(run);
      return reply.code(isQueued ? 200 : 202).send({ status: "CANCELLATION_REQUESTED" });
    });
  };

  /** An application that is known takes the order for any path of it in reality; here it says so at once. */
  function modelAt(path: string): FalModel {
    const model = MODELS.find(({ name }) => name === path);
    const app = path.split("/").slice(0, 2).join("/");
    if (!model && MODELS.some(({ name }) => name.startsWith(`${app}/`))) throw noSuchPath(path.slice(app.length + 1));
    if (!model || faults.strike("vanished", { face: "fal", model: path, text: "", own: [] }))
      throw noSuchApplication(path);
    return model;
  }

  function orderOf(request: FastifyRequest, model: FalModel, input: z.output<typeof body>, webhook: string | null) {
    const { values, megapixels } = readInput(model, input);
    const program: Program = {
      input: PAINTED,
      output: model.makes === "video" ? "single" : "array",
      art: model.art,
      ...(model.photo === undefined ? {} : { photo: model.photo }),
      ...(model.reel === undefined ? {} : { reel: model.reel }),
      price: model.price(input, megapixels),
      runMs: model.runMs,
    };
    const chosen = { model: known.get(model.name) ?? makeModel(model, clock.now()), version: "hidden", program };
    try {
      return makeOrder({
        face: "fal",
        kind: "prediction",
        chosen,
        input: values,
        inputBytes: JSON.stringify(input).length,
        destination: null,
        webhook,
        events: null,
        // What is asked for is a bound on the time in the queue, and nobody waits there longer than it takes to boot.
        cancelAfterMs: null,
        origin: originOf(request),
        token: tokenOf(request) ?? "",
      });
    } catch (error) {
      // The values are ours; only a directive in the words can be wrong by now.
      const wrong = error instanceof Problem ? invalid.safeParse(error.body).data?.invalid_fields : undefined;
      if (!wrong) throw error;
      throw refused(wrong.map(({ description }) => detail("value_error", description, "prompt")));
    }
  }

  async function accept(reply: FastifyReply, order: Order, model: FalModel, input: z.output<typeof body>) {
    if (!(await standsBefore(faults, order, reply, REFUSALS))) return reply;
    if (!runs.hasRoom()) throw new Problem(429, { detail: `The sandbox has ${MAX_RUNS} runs out and takes no more.` });
    const run = makeRun(order, { clock, faults, speed: options.speed, number: runs.nextNumber(), id: randomUUID() });
    run.input = input; // the caller's own words
    runs.add(run);
    bill.accept(run);
    const early = run.webhook !== null && faults.strike("webhook_early", run) !== null;
    const heard = early ? webhooks.firstDelivery(run, EARLY_LIMIT_MS) : Promise.resolve();
    course.launch(run);
    await heard;
    reply.header("x-fal-request-id", run.id);
    const accepted = { status: "IN_QUEUE", ...addresses(run, appOf(model)), queue_position: 0 };
    return tellAccepted(faults, run, reply, 200, accepted);
  }

  function find(request: FastifyRequest): { readonly run: Run; readonly model: FalModel; readonly app: string } {
    const { owner, alias, id } = parse(requestPath, request.params);
    const run = runs.get(id);
    const model = run?.face === "fal" ? MODELS.find(({ name }) => name === run.model) : undefined;
    const app = `${owner}/${alias}`;
    if (!run || !model || appOf(model) !== app) throw noSuchRequest();
    return { run, model, app };
  }

  function addresses(run: Run, app: string) {
    const url = `${run.origin}/fal/queue/${app}/requests/${run.id}`;
    const urls = { response_url: url, status_url: `${url}/status`, cancel_url: `${url}/cancel` };
    return { request_id: run.id, gateway_request_id: run.id, ...urls };
  }

  function logsOf(run: Run) {
    const { logs } = portrait(run, clock, options.outputTtlMs, "predictions");
    return logs
      .split("\n")
      .filter((line) => line !== "")
      .map((message) => ({
        message,
        level: "STDERR",
        source: "USER",
        timestamp: timestamp(run.startedAt ?? run.createdAt),
      }));
  }
}

function appOf({ name }: FalModel): string {
  return name.split("/").slice(0, 2).join("/");
}

function makeModel({ name }: FalModel, createdAt: number): Model {
  const [owner = "", ...path] = name.split("/");
  return {
    owner,
    name: path.join("/"),
    description: "",
    visibility: "public",
    hardware: "gpu-h100",
    official: true,
    createdAt,
    versions: [],
    runCount: 0,
  };
}

function checkStartTimeout(request: FastifyRequest): void {
  const seconds = request.headers["x-fal-request-timeout"];
  if (seconds === undefined || Number(seconds) > 1) return;
  throw platform(400, "bad_request", "x-fal-request-timeout must be a number of seconds above 1");
}
