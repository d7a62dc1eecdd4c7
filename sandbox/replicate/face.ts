import type { FastifyRequest } from "fastify";
import type { Cloud } from "../cloud.ts";
import type { Face } from "../face.ts";
import { unauthenticated } from "../problem.ts";
import { tokenOf } from "../request.ts";
import { accountRoutes } from "../routes/account.ts";
import { deploymentRoutes } from "../routes/deployments.ts";
import { fileRoutes } from "../routes/files.ts";
import { modelRoutes } from "../routes/models.ts";
import { runRoutes } from "../routes/runs.ts";
import { sendPage } from "../wire.ts";
import { replicateVoice } from "./voice.ts";

export const replicateFace: Face = {
  name: "replicate",
  prefix: "/v1",
  voice: replicateVoice,
  routes: (cloud) => async (api) => {
    api.addHook("onRequest", async (request, reply) => {
      if (cloud.faults.strike("down", { face: "replicate", model: "", text: "", own: [] })) return sendPage(reply, 503);
      const token = admit(cloud, request);
      const creates = request.method === "POST" && /\/(predictions|trainings)$/.test(request.url.split("?")[0] ?? "");
      const { remaining, resetSeconds, refusal } = cloud.limits.take(token, creates ? "creates" : "others");
      reply.header("ratelimit-remaining", remaining).header("ratelimit-reset", resetSeconds);
      if (refusal) throw refusal;
    });
    await api.register(accountRoutes(cloud));
    await api.register(runRoutes(cloud));
    await api.register(modelRoutes(cloud));
    await api.register(deploymentRoutes(cloud));
    await api.register(fileRoutes(cloud));
  },
};

function admit(cloud: Cloud, request: FastifyRequest): string {
  // Download links carry their own signature.
  if (/^\/v1\/files\/[^/]+\/download/.test(request.url)) return "";
  const token = tokenOf(request);
  if (token === null) throw unauthenticated(false);
  const { tokens } = cloud.options;
  const known = tokens === null ? /^r8_./.test(token) : tokens.includes(token);
  if (!known) throw unauthenticated(true);
  return token;
}
