import { cancelJob } from "../cancel.ts";
import {
  claimPipelines,
  lookAtPipeline,
  type PipelineView,
  refuseStep,
  startStep,
  type Turned,
  turnPipeline,
} from "../db/pipelines.ts";
import { inLanes } from "../lanes.ts";
import { problemOf } from "../problem.ts";
import { refusalOf } from "../refusal.ts";
import { type Loop, repeat } from "./loop.ts";
import type { Services } from "./services.ts";

const EVERY_MS = 1_000;
const BATCH = 20;
/** At the same time; each takes a connection now and then. */
const LANES = 2;
/** After something unexpected. */
const AGAIN_SECONDS = 2;
/** What waits for a switch rather than for a window of time. */
const SWITCHED_OFF_SECONDS = 20;

/**
 * Moves pipelines on: starts the steps whose forerunners have completed, and ends what can go no further. Whoever dies
 * anywhere in here leaves a pipeline that another one claims 30 s later, and every step of it can be repeated.
 */
export function runPipelines(services: Services): Loop {
  return repeat("pipelines", services.logger, EVERY_MS, async () => {
    const due = await claimPipelines(services.db, BATCH);
    await inLanes(LANES, due, (id) => move(services, id));
    return due.length === BATCH;
  });
}

async function move(services: Services, id: string): Promise<void> {
  const { db, logger, metrics, reach } = services;
  try {
    const turned = await turnPipeline(db, id);
    if (!turned) return;
    if (turned.end) {
      metrics.pipelines.inc({ status: turned.end });
      logger.info({ pipeline_id: id, status: turned.end }, "a pipeline has ended");
      return;
    }
    for (const { job } of stepsNamed(turned, turned.stop)) if (job) await cancelJob(services, job.id);
    if (turned.start.length > 0) await reach("pipeline.claimed", id);
    for (const { step } of stepsNamed(turned, turned.start)) await start(services, turned.view, step);
  } catch (error) {
    logger.warn({ err: error, pipeline_id: id }, "a pipeline could not be moved on: it is tried again");
    await lookAtPipeline(db, id, AGAIN_SECONDS).catch(() => {});
  }
}

const stepsNamed = ({ view }: Turned, names: readonly string[]) =>
  view.steps.filter(({ step }) => names.includes(step.name));

type Step = PipelineView["steps"][number]["step"];

async function start(services: Services, { pipeline }: PipelineView, step: Step): Promise<void> {
  const { db, queues, logger, metrics, reach } = services;
  const { kind, credits, max_models: maxModels } = step.request;
  const answer = await startStep(db, step);
  // Another one was faster, or it is not wanted any more.
  if (!answer) return;
  await reach("pipeline.started", pipeline.id);
  metrics.accepted.inc({ kind, outcome: answer.outcome });
  const refused = refusalOf(answer, { appId: pipeline.appId, credits, maxModels });
  if (!refused) {
    if (answer.outcome === "accepted") metrics.creditsCharged.inc({ kind }, credits);
    await queues
      .wake([{ id: step.jobId, kind, epoch: 0 }])
      .catch((error: unknown) => logger.warn({ err: error, job_id: step.jobId }, "could not wake: the sweep will"));
    return;
  }
  const { code } = refused;
  const isWaiting = code === "rate_limited" || code === "app_disabled";
  logger.info({ pipeline_id: pipeline.id, step: step.name, code, detail: refused.message }, "a step was refused");
  await refuseStep(db, step, isWaiting ? "waiting" : "failed", problemOf(refused, `pipeline/${pipeline.id}`));
  await lookAtPipeline(db, pipeline.id, isWaiting ? (answer.retryAfter ?? SWITCHED_OFF_SECONDS) : 0);
}
