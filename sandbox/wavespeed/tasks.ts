import { randomBytes } from "node:crypto";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import type { Input } from "../field.ts";
import type { Chosen } from "../models.ts";
import { makeOrder, makeRun, type Order } from "../order.ts";
import { originOf, parse, tokenOf } from "../request.ts";
import { isOver, isRemoved, type Run, type WebhookEvent } from "../run.ts";
import { MAX_RUNS } from "../runs.ts";
import { spoils, standsBefore, tellAccepted } from "../wire.ts";
import { refusal, success, WAVESPEED_REFUSALS } from "./envelope.ts";
import { breaches, SOLD_MODELS, type SoldModel, withoutEmpty } from "./models.ts";
import { inputOf, isForgotten, note, noteDeleted, portrait } from "./task.ts";

const EARLY_LIMIT_MS = 30_000; // how long a create is held back for its own webhook
const SYNC_WAIT_MS = 30_000; // how long a create in sync mode waits; divided by the speed
const MAX_DELETED = 1_000; // ids of one bulk deletion

const modelPath = z.object({ "*": z.string() });
const idPath = z.object({ id: z.string() });
const createQuery = z.object({ webhook: z.string().max(4_096).optional() });
const anyInput = z.record(z.string(), z.unknown());
const bulk = z.object({ ids: z.array(z.string()).max(MAX_DELETED) });
const time = z.iso.datetime({ offset: true }).nullish();
const listQuery = z.object({
  page: z.number().int().min(1),
  page_size: z.number().int().min(1).max(100),
  model: z.string().nullish(),
  status: z.string().nullish(),
  created_after: time,
  created_before: time,
  include_inputs: z.boolean().nullish(),
});

/** Tasks: made, asked for, listed, deleted. */
export function taskRoutes(cloud: Cloud) {
  const { runs, course, faults, webhooks, bill, clock, options } = cloud;

  return async (api: FastifyInstance) => {
    api.get("/predictions/:id/result", show);
    // The same, in some of its pages.
    api.get("/predictions/:id", show);

    api.post("/predictions", async (request) => {
      const query = parse(listQuery, request.body);
      const all = listed(query);
      const first = (query.page - 1) * query.page_size;
      const items = all.slice(first, first + query.page_size).map((run) => {
        return { ...portrait(run), ...(query.include_inputs && { inputs: inputOf(run) }) };
      });
      return success({ page: query.page, total: all.length, items });
    });

    api.delete("/predictions/:id", async (request) => {
      const run = find(request);
      remove(run);
      return success({ id: run.id, status: "deleted" });
    });

    api.post("/predictions/delete", async (request) => {
      const found = parse(bulk, request.body).ids.flatMap((id) => known(id) ?? []);
      for (const run of found) remove(run);
      return success({ deleted_count: found.length });
    });

    // Whatever has no path of its own is the name of a model.
    api.post("/*", async (request, reply) => {
      const model = SOLD_MODELS.get(parse(modelPath, request.params)["*"]);
      if (!model || faults.strike("vanished", { face: "wavespeed", model: model.id, text: "", own: [] }))
        throw refusal(404, "model not found");
      const { webhook = null } = parse(createQuery, request.query);
      if (webhook !== null && !(URL.canParse(webhook) && new URL(webhook).protocol === "https:"))
        throw refusal(400, "webhook must be a valid HTTPS URL");
      const input = parse(anyInput, request.body);
      const [wrong] = breaches(model, withoutEmpty(input));
      if (wrong) throw refusal(400, `invalid parameter: ${wrong.field}: ${wrong.description}`);
      return accept(request, reply, model, input, webhook);
    });
  };

  async function accept(
    request: FastifyRequest,
    reply: FastifyReply,
    model: SoldModel,
    input: Input,
    webhook: string | null,
  ) {
    const told: WebhookEvent[] = ["completed"];
    const order: Order = makeOrder({
      face: "wavespeed",
      kind: "prediction",
      chosen: chosen(model),
      input: model.translate(withoutEmpty(input)),
      inputBytes: JSON.stringify(input).length,
      destination: null,
      webhook,
      events: told,
      cancelAfterMs: null,
      origin: originOf(request),
      token: tokenOf(request) ?? "",
    });
    if (!(await standsBefore(faults, order, reply, WAVESPEED_REFUSALS))) return reply;
    if (!runs.hasRoom()) throw refusal(503, `The sandbox has ${MAX_RUNS} runs out and takes no more.`);
    const number = runs.nextNumber();
    const id = randomBytes(16).toString("hex");
    const run = makeRun(order, { clock, faults, speed: options.speed, number, id });
    note(run, input, told);
    runs.add(run);
    bill.accept(run);
    const created = success(portrait(run));
    const early = run.webhook !== null && faults.strike("webhook_early", run) !== null;
    const heard = early ? webhooks.firstDelivery(run, EARLY_LIMIT_MS) : Promise.resolve();
    course.launch(run);
    await heard;
    if (input["enable_sync_mode"] !== true) return tellAccepted(faults, run, reply, 200, created);
    await course.over(run, SYNC_WAIT_MS / options.speed);
    return tellAccepted(faults, run, reply, 200, isOver(run) ? success(portrait(run)) : unfinished(run));
  }

  async function show(request: FastifyRequest, reply: FastifyReply) {
    const run = find(request);
    if (spoils(faults, run, reply)) return reply;
    if (faults.strike("get_missing", run)) throw missing();
    return success(portrait(run));
  }

  function remove(run: Run): void {
    if (noteDeleted(run)) course.cancel(run);
  }

  /** Newest first, as far back as the records go: they are deleted with their outputs. */
  function listed(query: z.output<typeof listQuery>): Run[] {
    const createdAfter = query.created_after ? Date.parse(query.created_after) : undefined;
    const createdBefore = query.created_before ? Date.parse(query.created_before) : undefined;
    const all: Run[] = [];
    let before: number | undefined;
    for (;;) {
      const page = runs.page("prediction", { face: "wavespeed", before, createdAfter, createdBefore });
      all.push(...page.runs.filter((run) => known(run.id) !== undefined));
      if (page.older === null) break;
      before = page.older;
    }
    const { model, status } = query;
    return all.filter((run) => (!model || run.model === model) && (!status || portrait(run).status === status));
  }

  function known(id: string): Run | undefined {
    const run = runs.get(id);
    const isGone = run?.face !== "wavespeed" || isForgotten(run) || isRemoved(run, clock.now(), options.outputTtlMs);
    return isGone ? undefined : run;
  }

  function find(request: FastifyRequest): Run {
    const run = known(parse(idPath, request.params).id);
    if (!run) throw missing();
    return run;
  }

  /** As one of the sandbox's models: nothing of it is kept but its name. */
  function chosen({ id, description, program }: SoldModel): Chosen {
    const [owner = "", ...rest] = id.split("/");
    const createdAt = clock.now();
    const version = { id: "hidden", createdAt, program };
    const about = { description, visibility: "public", hardware: "", official: true, runCount: 0 } as const;
    return {
      model: { ...about, owner, name: rest.join("/"), createdAt, versions: [version] },
      version: "hidden",
      program,
    };
  }
}

const missing = () => refusal(404, "prediction not found");

/** It is waited for no longer, and goes on: an error to look at, and none at all. */
function unfinished(run: Run) {
  const task = portrait(run);
  const error = `Sync mode timed out. Query the result later at: ${task.urls.get}`;
  return { code: 5004, message: error, data: { ...task, code: 5004, error } };
}
