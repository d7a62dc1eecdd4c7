import type { Cloud } from "../cloud.ts";
import type { Face } from "../face.ts";
import { sendPage } from "../wire.ts";
import { keyOf } from "./key.ts";
import { jobRoutes } from "./routes.ts";
import { runpodVoice } from "./voice.ts";
import { makeWorkers } from "./workers.ts";

export const runpodFace: Face = {
  name: "runpod",
  prefix: "/runpod",
  voice: runpodVoice,
  routes: (cloud) => async (api) => {
    api.addHook("onRequest", async (request, reply) => {
      // The switch for tests; no path of the provider's.
      if (request.url.startsWith("/runpod/_load/")) return;
      if (cloud.faults.strike("down", { face: "runpod", model: "", text: "", own: [] })) return sendPage(reply, 503);
      // Its 401 has no JSON to be relied on.
      if (!isLetIn(cloud, keyOf(request))) return reply.code(401).send();
    });
    await api.register(jobRoutes(cloud, makeWorkers(cloud)));
  },
};

function isLetIn({ options: { tokens } }: Cloud, key: string | null): boolean {
  return key !== null && (tokens === null || tokens.includes(key));
}
