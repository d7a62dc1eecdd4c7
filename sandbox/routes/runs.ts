import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import { makeOrder, makeRun, type Order, parseCancelAfter, parseWaitMs } from "../order.ts";
import { invalidInput, notFound, Problem } from "../problem.ts";
import { originOf, parse, tokenOf } from "../request.ts";
import { isOver, portrait, type Run, WEBHOOK_EVENTS } from "../run.ts";
import { MAX_RUNS } from "../runs.ts";
import { spoils, standsBefore, tellAccepted } from "../wire.ts";
import { deployed } from "./deployments.ts";

const EARLY_LIMIT_MS = 30_000; // how long a create is held back for its own webhook

const delivery = {
  webhook: z.string().max(4_096).optional(),
  webhook_events_filter: z.array(z.enum(WEBHOOK_EVENTS)).max(4).optional(),
};
const input = z.record(z.string(), z.unknown());
const byVersion = z.strictObject({ version: z.string().max(300), input, stream: z.boolean().optional(), ...delivery });
const byModel = z.strictObject({ input, stream: z.boolean().optional(), ...delivery });
const training = z.strictObject({ destination: z.string().max(300), input, ...delivery });
const modelPath = z.object({ owner: z.string(), name: z.string() });
const versionPath = modelPath.extend({ version: z.string() });
const idPath = z.object({ id: z.string() });
const listQuery = z.object({
  cursor: z.string().max(200).optional(),
  created_after: z.iso.datetime({ offset: true }).optional(),
  created_before: z.iso.datetime({ offset: true }).optional(),
  source: z.enum(["web"]).optional(),
});
const cursorText = z.object({ before: z.number().int().optional(), after: z.number().int().optional() });

export function runRoutes(cloud: Cloud) {
  const { models, runs, course, faults, webhooks, bill, clock, options } = cloud;
  const show = (run: Run, door: "predictions" | "trainings") => portrait(run, clock, options.outputTtlMs, door);

  return async (api: FastifyInstance) => {
    api.post("/predictions", async (request, reply) => {
      const body = parse(byVersion, request.body);
      checkWebhook(body.webhook);
      const chosen = models.choose(body.version);
      return accept(request, reply, makeOrder({ ...wanted(request, body), kind: "prediction", chosen }));
    });

    api.post("/models/:owner/:name/predictions", async (request, reply) => {
      const { owner, name } = parse(modelPath, request.params);
      // A community model has no such door: the answer is 404, not a hint.
      const chosen = models.official(owner, name);
      const body = parse(byModel, request.body);
      checkWebhook(body.webhook);
      return accept(request, reply, makeOrder({ ...wanted(request, body), kind: "prediction", chosen }));
    });

    api.post("/deployments/:owner/:name/predictions", async (request, reply) => {
      const { owner, name } = parse(modelPath, request.params);
      const chosen = deployed(models, owner, name);
      const body = parse(byModel, request.body);
      checkWebhook(body.webhook);
      const order = { ...wanted(request, body), kind: "prediction", chosen, deployment: name } as const;
      return accept(request, reply, makeOrder(order));
    });

    api.post("/models/:owner/:name/versions/:version/trainings", async (request, reply) => {
      const path = parse(versionPath, request.params);
      const model = models.get(path.owner, path.name);
      const version = model.versions.find(({ id }) => id === path.version);
      if (!version) throw notFound();
      const chosen = { model, version: model.official ? "hidden" : version.id, program: version.program };
      if (!chosen.program.training) {
        throw new Problem(422, {
          title: "Not trainable",
          detail: "The specified version is not trainable.",
          status: 422,
        });
      }
      const body = parse(training, request.body);
      checkWebhook(body.webhook);
      models.destination(body.destination);
      const order = { ...wanted(request, body), kind: "training", chosen, destination: body.destination } as const;
      return accept(request, reply, makeOrder({ ...order, cancelAfterMs: null }));
    });

    for (const kind of ["prediction", "training"] as const) {
      const door = `${kind}s` as const;

      api.get(`/${door}/:id`, async (request, reply) => {
        const run = find(request, kind);
        if (spoils(faults, run, reply)) return reply;
        if (faults.strike("get_missing", run)) throw notFound();
        return show(run, door);
      });

      api.post(`/${door}/:id/cancel`, async (request) => {
        const run = find(request, kind);
        course.cancel(run);
        return show(run, door);
      });

      api.get(`/${door}`, async (request) => {
        const query = parse(listQuery, request.query);
        const page = runs.page(query.source === "web" ? "none" : kind, {
          face: "replicate",
          ...readCursor(query.cursor),
          createdAfter: query.created_after === undefined ? undefined : Date.parse(query.created_after),
          createdBefore: query.created_before === undefined ? undefined : Date.parse(query.created_before),
        });
        const link = (cursor: z.output<typeof cursorText>) => {
          const url = new URL(`${originOf(request)}/v1/${door}`);
          for (const name of ["created_after", "created_before", "source"] as const) {
            const value = query[name];
            if (value !== undefined) url.searchParams.set(name, value);
          }
          url.searchParams.set("cursor", Buffer.from(JSON.stringify(cursor)).toString("base64url"));
          return url.href;
        };
        return {
          previous: page.newer === null ? null : link({ after: page.newer }),
          next: page.older === null ? null : link({ before: page.older }),
          results: page.runs.map((run) => show(run, door)),
        };
      });
    }
  };

  function wanted(request: FastifyRequest, body: z.output<typeof byModel>) {
    return {
      face: "replicate",
      input: body.input,
      inputBytes: JSON.stringify(body.input).length,
      destination: null,
      webhook: body.webhook ?? null,
      events: body.webhook_events_filter ?? null,
      cancelAfterMs: parseCancelAfter(headerOf(request, "cancel-after")),
      origin: originOf(request),
      token: tokenOf(request) ?? "",
    } as const;
  }

  async function accept(request: FastifyRequest, reply: FastifyReply, order: Order) {
    if (!(await standsBefore(faults, order, reply))) return reply;
    if (!runs.hasRoom()) {
      throw new Problem(503, { detail: `The sandbox has ${MAX_RUNS} runs out and takes no more.`, status: 503 });
    }
    const run = makeRun(order, { clock, faults, speed: options.speed, number: runs.nextNumber() });
    runs.add(run);
    bill.accept(run);
    const created = show(run, "predictions");
    const early = run.webhook !== null && faults.strike("webhook_early", run) !== null;
    const heard = early ? webhooks.firstDelivery(run, EARLY_LIMIT_MS) : Promise.resolve();
    course.launch(run);
    await heard;

    const waitMs = run.kind === "prediction" ? parseWaitMs(headerOf(request, "prefer")) : null;
    if (waitMs === null) return tellAccepted(faults, run, reply, 201, created);
    await course.over(run, waitMs);
    return tellAccepted(faults, run, reply, isOver(run) ? 201 : 202, show(run, "predictions"));
  }

  /** A training answers under /predictions too, where the `urls.get` of its create response points. */
  function find(request: FastifyRequest, kind: Run["kind"]): Run {
    const run = runs.get(parse(idPath, request.params).id);
    if (run?.face !== "replicate" || (kind === "training" && run.kind !== "training")) throw notFound();
    return run;
  }
}

function checkWebhook(webhook: string | undefined): void {
  if (webhook === undefined) return;
  if (URL.canParse(webhook) && new URL(webhook).protocol === "https:") return;
  throw invalidInput([{ type: "format", field: "webhook", description: "Must be a valid HTTPS URL" }]);
}

function headerOf(request: FastifyRequest, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

function readCursor(cursor: string | undefined): z.output<typeof cursorText> {
  if (cursor === undefined) return {};
  try {
    return cursorText.parse(JSON.parse(Buffer.from(cursor, "base64url").toString("utf8")));
  } catch {
    throw new Problem(422, { detail: "Invalid cursor.", status: 422 });
  }
}
