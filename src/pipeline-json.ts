import { z } from "zod";
import type { PipelineView } from "./db/pipelines.ts";
import { FAILURES } from "./domain/failure.ts";
import { KINDS } from "./domain/kinds/kind.ts";
import { PIPELINE_STATUSES, STEP_STATUSES } from "./domain/pipeline.ts";
import { asSeen } from "./domain/suffix.ts";

const time = z.iso.datetime({ offset: true });
const settlement = z.object({ charged: z.int(), kept: z.int(), refunded: z.int() });

export const pipelineSchema = z
  .object({
    id: z.uuid(),
    name: z.string(),
    user: z.string(),
    status: z.enum(PIPELINE_STATUSES),
    metadata: z.record(z.string(), z.unknown()),
    steps: z.array(
      z.object({
        name: z.string(),
        kind: z.enum(KINDS),
        model: z.string(),
        after: z.array(z.string()).describe("The steps that have to have completed before."),
        status: z.enum(STEP_STATUSES),
        attempt: z.int().describe("Grows when it is resumed."),
        job: z.uuid().nullable().describe("Of this attempt: /api/jobs/{id}; null until it is accepted."),
        credits: z.int().describe("What it costs; charged when it begins."),
        lines: z.array(z.object({ label: z.string(), credits: z.int() })),
        input: z.unknown().describe("As it will be done; a trained model by its id."),
        settlement: settlement.nullable().describe("Of this attempt; null until its job has ended."),
        failure: z
          .object({ code: z.string(), message: z.string(), detail: z.string() })
          .nullable()
          .describe("Why its job failed."),
        problem: z
          .record(z.string(), z.unknown())
          .nullable()
          .describe("Why it could not be started: the problem document that a single job would have had."),
      }),
    ),
    credits: settlement.extend({
      total: z.int().describe("Of all steps, each once."),
      open: z.int().describe("Of the steps that are still to be started."),
    }),
    createdAt: time,
    endedAt: time.nullable(),
    links: z.object({ self: z.string(), resume: z.string(), cancel: z.string() }),
  })
  .meta({ id: "Pipeline" });
export type PipelineJson = z.input<typeof pipelineSchema>;

/** A pipeline as callers see it. */
export function pipelineJson({ pipeline, steps, credits }: PipelineView): PipelineJson {
  const self = `/api/pipelines/${pipeline.id}`;
  const price = (wanted: (status: string) => boolean) =>
    steps.filter(({ step }) => wanted(step.status)).reduce((sum, { step }) => sum + step.request.credits, 0);
  return {
    id: pipeline.id,
    name: pipeline.name,
    user: pipeline.userId,
    status: pipeline.status,
    metadata: pipeline.metadata,
    steps: steps.map(({ step, job }) => ({
      name: step.name,
      kind: step.request.kind,
      model: step.request.model,
      after: step.after,
      status: step.status,
      attempt: step.attempt,
      job: job?.id ?? null,
      credits: step.request.credits,
      lines: [...step.request.price_lines],
      input: asSeen(step.request.input),
      settlement: job?.settlement ?? null,
      failure: job?.failureCode
        ? { code: job.failureCode, message: FAILURES[job.failureCode].says, detail: job.failureDetail ?? "" }
        : null,
      problem: step.problem,
    })),
    credits: { ...credits, total: price(() => true), open: price((status) => status === "waiting") },
    createdAt: pipeline.createdAt.toISOString(),
    endedAt: pipeline.endedAt?.toISOString() ?? null,
    links: { self, resume: `${self}/resume`, cancel: `${self}/cancel` },
  };
}
