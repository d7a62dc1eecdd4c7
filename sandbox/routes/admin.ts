import type { FastifyInstance } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import { FACES } from "../face.ts";
import { FAULT_NAMES } from "../fault.ts";
import { USUAL_RATES } from "../limit.ts";
import { notFound, Problem } from "../problem.ts";
import { parse } from "../request.ts";
import { portrait } from "../run.ts";

const rule = z.strictObject({
  fault: z.string().max(200),
  match: z
    .strictObject({
      face: z.enum(FACES).optional(),
      model: z.string().max(300).optional(),
      promptContains: z.string().max(1_000).optional(),
    })
    .optional(),
  times: z.number().int().min(1).max(1_000_000).optional(),
  ms: z.number().min(0).max(3_600_000).optional(),
  share: z.number().min(0).max(1).optional(),
});
const idPath = z.object({ id: z.coerce.number().int() });
const advance = z.strictObject({
  ms: z
    .number()
    .int()
    .min(0)
    .max(365 * 24 * 3_600_000),
});
const runsQuery = z.object({ face: z.enum(FACES), before: z.coerce.number().int().optional() });
const relay = z.strictObject({ base: z.url({ protocol: /^https?$/ }).nullable() });
const limits = z.strictObject({
  enabled: z.boolean(),
  creates: z.number().int().min(1).max(1_000_000).default(USUAL_RATES.creates),
  others: z.number().int().min(1).max(1_000_000).default(USUAL_RATES.others),
});

/** The switches and the bill; nothing of this exists at the real service. */
export function adminRoutes(cloud: Cloud) {
  const { faults, bill, tally, runs, webhooks, clock, options } = cloud;
  const startedAt = Date.now();

  return async (admin: FastifyInstance) => {
    admin.get("/health", async () => ({
      status: "ok",
      account: options.account,
      speed: options.speed,
      uptime_seconds: (Date.now() - startedAt) / 1_000,
      runs: runs.count(),
      webhooks: { ...webhooks.counts(), relay: webhooks.relay() },
      faults: faults.list().length,
      known_faults: FAULT_NAMES,
      rate_limits: cloud.limits.rates(),
      files_secret: options.filesSecret,
    }));

    admin.get("/faults", async () => ({ faults: faults.list() }));
    admin.post("/faults", async (request, reply) => {
      const wanted = parse(rule, request.body);
      try {
        return reply.code(201).send(faults.add(wanted));
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        throw new Problem(422, { title: "Unknown fault", detail: error.message, status: 422 });
      }
    });
    admin.delete("/faults/:id", async (request, reply) => {
      if (!faults.remove(parse(idPath, request.params).id)) throw notFound();
      return reply.code(204).send();
    });
    admin.delete("/faults", async (_request, reply) => {
      faults.clear();
      return reply.code(204).send();
    });

    admin.get("/bill", async () => bill.sheet());
    admin.delete("/bill", async (_request, reply) => {
      bill.reset();
      tally.reset();
      return reply.code(204).send();
    });

    admin.get("/creates", async () => ({ faces: tally.counts() }));
    // Some faces have no list of their own.
    admin.get("/runs", async (request) => {
      const page = runs.page("prediction", parse(runsQuery, request.query));
      const results = page.runs.map((run) => portrait(run, clock, options.outputTtlMs, "predictions"));
      return { results, next: page.older };
    });

    admin.post("/clock", async (request) => {
      clock.advance(parse(advance, request.body).ms);
      return { now: new Date(clock.now()).toISOString() };
    });
    admin.put("/relay", async (request) => {
      const { base } = parse(relay, request.body);
      webhooks.setRelay(base);
      return { base };
    });
    admin.put("/limits", async (request) => {
      const { enabled, creates, others } = parse(limits, request.body);
      cloud.limits.set(enabled ? { creates, others } : null);
      return { rate_limits: cloud.limits.rates() };
    });
  };
}
