import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { HARDWARE } from "../catalogue.ts";
import type { Cloud } from "../cloud.ts";
import { modelPortrait, versionPortrait } from "../models.ts";
import { notFound } from "../problem.ts";
import { originOf, parse } from "../request.ts";

const NAME = /^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$/i;
const url = z.string().max(2_000).optional();
const wanted = z.strictObject({
  owner: z.string().regex(NAME, "Does not match pattern"),
  name: z.string().regex(NAME, "Does not match pattern"),
  visibility: z.enum(["public", "private"]),
  hardware: z.enum(HARDWARE.map(({ sku }) => sku)),
  description: z.string().max(2_000).optional(),
  github_url: url,
  paper_url: url,
  license_url: url,
  cover_image_url: url,
});
const modelPath = z.object({ owner: z.string(), name: z.string() });
const versionPath = modelPath.extend({ version: z.string() });

export function modelRoutes({ models }: Cloud) {
  return async (api: FastifyInstance) => {
    // One page holds them all: the account's limit of models keeps it small enough.
    api.get("/models", async (request) => {
      const results = models.list().map((model) => modelPortrait(model, originOf(request)));
      return { previous: null, next: null, results };
    });

    api.post("/models", async (request, reply) => {
      const { description = "", owner, name, visibility, hardware } = parse(wanted, request.body);
      const model = models.create({ owner, name, visibility, hardware, description });
      return reply.code(201).send(modelPortrait(model, originOf(request)));
    });

    api.get("/models/:owner/:name", async (request) => {
      const { owner, name } = parse(modelPath, request.params);
      return modelPortrait(models.get(owner, name), originOf(request));
    });

    api.delete("/models/:owner/:name", async (request, reply) => {
      const { owner, name } = parse(modelPath, request.params);
      models.remove(owner, name);
      return reply.code(204).send();
    });

    api.get("/models/:owner/:name/versions", async (request) => {
      const { owner, name } = parse(modelPath, request.params);
      const { official, versions } = models.get(owner, name);
      return { previous: null, next: null, results: official ? [] : versions.map(versionPortrait) };
    });

    api.get("/models/:owner/:name/versions/:version", async (request) => {
      const { owner, name, version } = parse(versionPath, request.params);
      const found = models.get(owner, name).versions.find(({ id }) => id === version);
      if (!found) throw notFound();
      return versionPortrait(found);
    });

    api.delete("/models/:owner/:name/versions/:version", async (request, reply) => {
      const { owner, name, version } = parse(versionPath, request.params);
      models.removeVersion(owner, name, version);
      return reply.code(202).send();
    });
  };
}
