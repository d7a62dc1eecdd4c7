import { z } from "zod";
import { deleteTrainedModel, findTrainedModel, listTrainedModels, type TrainedModel } from "../db/trained-models.ts";
import type { App } from "../domain/app.ts";
import { FAMILIES, modelsOf } from "../domain/catalogue.ts";
import { ServiceError } from "../errors.ts";
import type { ApiServices, Routes } from "./app.ts";
import { appOf } from "./ordering.ts";
import { problemSchema } from "./problem.ts";
import { isStorable } from "./submission.ts";

const params = z.object({ id: z.uuid("is not a trained model's id") });
const querystring = z.strictObject({
  user: z
    .string()
    .min(1)
    .max(200)
    .refine(isStorable, "holds a character that cannot be kept")
    .describe("Whose; nobody else's can be seen."),
});
const time = z.iso.datetime();
const trainedModelSchema = z
  .object({
    id: z.uuid().describe("Name it as `trainedModel` in the input of a generation."),
    name: z.string(),
    status: z.enum(["training", "ready", "failed"]),
    family: z.enum(FAMILIES),
    triggerWord: z.string().describe("Stands for it in prompts; put in front of those that do not have it."),
    task: z.enum(["face", "object", "style"]),
    resolution: z.int(),
    steps: z.int(),
    photos: z.int(),
    quality: z
      .int()
      .min(0)
      .max(100)
      .describe(
        "How well the photos may train, measured of them before the training: 30 × number of photos / 20, 25 × median sharpness / 300, 25 × mean of shorter side / 1024, 20 × mean difference between two photos / 24 of 64 bits of their hashes; each part at most its full worth. Whether they show the right thing it does not know.",
      ),
    job: z.uuid().describe("The training."),
    models: z.array(z.string()).describe("What can use it, by their names in GET /api/models."),
    createdAt: time,
    readyAt: time.nullable(),
  })
  .meta({ id: "TrainedModel" });
const problems = { 401: problemSchema, 404: problemSchema, 422: problemSchema };

/** What users had trained. */
export const trainedModelRoutes: Routes = (app, services) => {
  const { db, authenticate } = services;
  const tags = ["trained models"];

  app.route({
    method: "GET",
    url: "/api/trained-models",
    schema: {
      tags,
      summary: "A user's trained models, newest first",
      querystring,
      response: {
        200: z.object({ trainedModels: z.array(trainedModelSchema) }),
        401: problemSchema,
        422: problemSchema,
      },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      const owner = appOf(services, appId);
      const found = await listTrainedModels(db, appId, request.query.user);
      return { trainedModels: found.map((each) => toTrainedJson(owner, each)) };
    },
  });

  app.route({
    method: "GET",
    url: "/api/trained-models/:id",
    schema: {
      tags,
      summary: "A trained model",
      params,
      querystring,
      response: { 200: trainedModelSchema, ...problems },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      return toTrainedJson(
        appOf(services, appId),
        await mustFind(services, appId, request.query.user, request.params.id),
      );
    },
  });

  app.route({
    method: "DELETE",
    url: "/api/trained-models/:id",
    schema: {
      tags,
      summary: "Delete a trained model",
      description:
        "Makes room for another one in the user's plan. What was made with it stays; what is accepted and not yet ordered fails and is refunded.",
      params,
      querystring,
      response: { 204: z.null().describe("Deleted"), 409: problemSchema, ...problems },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const { id } = request.params;
      const { user } = request.query;
      const found = await mustFind(services, appId, user, id);
      // It may have ended since it was read: the statement decides.
      if (!(await deleteTrainedModel(db, appId, user, found.id)) && found.status === "training")
        throw new ServiceError(
          "still_training",
          `The model ${id} is still being trained: cancel its job first, POST /api/jobs/${id}/cancel.`,
          { facts: { job: id } },
        );
      return reply.code(204).send(null);
    },
  });
};

async function mustFind({ db }: ApiServices, appId: string, user: string, id: string): Promise<TrainedModel> {
  const found = await findTrainedModel(db, appId, user, id);
  if (!found) throw new ServiceError("not_found", `There is no trained model ${id} of the user ${user}.`);
  return found;
}

function toTrainedJson(app: App, model: TrainedModel): z.input<typeof trainedModelSchema> {
  const { id, name, status, family, triggerWord, task, resolution, steps, photos, quality } = model;
  if (status === "deleted") throw new Error(`the trained model ${id} is deleted: it is not to be shown`);
  const allowed = app.models.generation?.allowed;
  const models = modelsOf("generation").filter(
    (each) => each.limits.lora === family && (allowed?.includes(each.alias) ?? true),
  );
  return {
    id,
    name,
    status,
    family,
    triggerWord,
    task,
    resolution,
    steps,
    photos,
    quality,
    job: id,
    models: models.map(({ alias }) => alias),
    createdAt: model.createdAt.toISOString(),
    readyAt: model.readyAt?.toISOString() ?? null,
  };
}
