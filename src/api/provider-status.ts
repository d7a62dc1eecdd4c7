import type { FastifyRequest } from "fastify";
import { z } from "zod";
import type { Account } from "../domain/routing.ts";
import { ServiceError } from "../errors.ts";
import type { ApiServices, Routes } from "./app.ts";
import { currentRuns, findLegacy, PREDICTION_STATUSES, predictionStatus, tell } from "./compat/legacy.ts";
import { refresh } from "./jobs.ts";
import { problemSchema } from "./problem.ts";

/** What a provider says of a run, asked now, in the words that Replicate's clients know. */

const prediction = z.object({
  id: z.string().nullable().describe("The provider's; null before it is known."),
  status: z.enum(PREDICTION_STATUSES),
  output: z.url().nullable().describe("Ours, signed: in our store, not at the provider."),
  error: z.string().nullable(),
});

export const providerStatus = z.object({
  id: z.string(),
  jobId: z.uuid(),
  status: z.enum(PREDICTION_STATUSES),
  output: z.array(z.url()).nullable(),
  error: z.string().nullable(),
  progress: z.int(),
  predictions: z.array(prediction).describe("The current run of each variant."),
});

export const providerStatusRoutes: Routes = (app, services) => {
  app.route({
    method: "GET",
    url: "/api/providers/:provider/status/:id",
    schema: {
      tags: ["jobs"],
      summary: "What a provider says of a run, now",
      description:
        "By the provider's id of the run, or by ours of the run or the job; of the API key's own app only. Answers after at most 3 s.",
      params: z.object({
        provider: z.string().max(60).describe("An account, such as replicate_2, or all of a provider's: replicate."),
        id: z.string().min(1).max(200),
      }),
      response: { 200: providerStatus, 401: problemSchema, 404: problemSchema },
    },
    handler: async (request) => {
      const { provider, id } = request.params;
      const meant = services.providers.filter(({ name, api }) => name === provider || api === provider);
      if (meant.length === 0)
        throw new ServiceError("not_found", `This deployment has no provider ${provider}: /api/health names them.`);
      return tellStatus(services, request, id, meant);
    },
  });
};

export async function tellStatus(
  services: ApiServices,
  request: FastifyRequest,
  id: string,
  accounts: readonly Account[],
): Promise<z.input<typeof providerStatus>> {
  const { appId } = await services.authenticate(request);
  const view = await refresh(services, appId, await findLegacy(services, appId, id, accounts));
  const { job, legacy } = await tell(services, view);
  const runs = currentRuns(job);
  const predictions = runs.map(
    (run): z.input<typeof prediction> => ({
      id: run.providerRunId,
      status: RUN_STATUS[run.status],
      // A failed job was refunded: what it made besides is not given away.
      output: job.status === "failed" ? null : (job.results[run.variant]?.file?.url ?? null),
      error: run.failure?.message ?? null,
    }),
  );
  const one = predictions.find((each) => each.id === id) ?? predictions[runs.findIndex((run) => run.id === id)];
  const status = one?.status ?? predictionStatus(job.status);
  const urls = one ? (one.output ? [one.output] : []) : legacy.resultUrls;
  const error = one ? one.error : legacy.error;
  const output = status === "succeeded" ? urls : null;
  return { id, jobId: job.id, status, output, error, progress: legacy.progress, predictions };
}

/** `storing` is not over yet: the result is not ours. */
const RUN_STATUS = {
  submitting: "starting",
  unknown: "starting",
  running: "processing",
  storing: "processing",
  stored: "succeeded",
  failed: "failed",
  canceled: "canceled",
} as const;
