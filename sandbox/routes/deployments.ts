import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { H100_SECOND } from "../catalogue.ts";
import { timestamp } from "../clock.ts";
import type { Cloud } from "../cloud.ts";
import type { Chosen, Models } from "../models.ts";
import { notFound } from "../problem.ts";
import { parse } from "../request.ts";

/** What the account deployed. The real service bills an instance's boot and idle time, too; here only runs cost. */
const DEPLOYMENTS = [
  { owner: "acme", name: "my-flux", model: { owner: "black-forest-labs", name: "flux-dev" }, price: H100_SECOND },
] as const;

const path = z.object({ owner: z.string(), name: z.string() });

export function deploymentRoutes({ models }: Cloud) {
  return async (api: FastifyInstance) => {
    api.get("/deployments/:owner/:name", async (request) => {
      const { owner, name } = parse(path, request.params);
      const { model, version } = deployed(models, owner, name);
      return {
        owner,
        name,
        current_release: {
          number: 1,
          model: `${model.owner}/${model.name}`,
          version,
          created_at: timestamp(model.createdAt),
          created_by: { type: "organization", username: owner, name: owner },
          configuration: { hardware: "gpu-h100", min_instances: 0, max_instances: 5 },
        },
      };
    });
  };
}

/** What a deployment runs: its model's newest version, at the price of its hardware. */
export function deployed(models: Models, owner: string, name: string): Chosen {
  const found = DEPLOYMENTS.find((each) => each.owner === owner && each.name === name);
  if (!found) throw notFound();
  const model = models.get(found.model.owner, found.model.name);
  const version = model.versions[0];
  if (!version) throw notFound();
  return { model, version: version.id, program: { ...version.program, price: found.price } };
}
