import type { FastifyRequest } from "fastify";
import type { Cloud } from "../cloud.ts";
import type { Face } from "../face.ts";
import { Problem } from "../problem.ts";
import { tokenOf } from "../request.ts";
import { sendPage } from "../wire.ts";
import { accountRoutes } from "./account.ts";
import { refusal, reworded, WAVESPEED_REFUSALS } from "./envelope.ts";
import { mediaRoutes } from "./media.ts";
import { taskRoutes } from "./tasks.ts";
import { waveSpeedVoice } from "./voice.ts";

/** WaveSpeedAI: envelopes around everything, sizes as "width*height", webhooks signed in its own way. */
export const waveSpeedFace: Face = {
  name: "wavespeed",
  prefix: "/wavespeed",
  voice: waveSpeedVoice,
  routes: (cloud) => async (face) => {
    const media = mediaRoutes(cloud);
    face.addHook("onRequest", async (_request, reply) => {
      if (cloud.faults.strike("down", { face: "wavespeed", model: "", text: "", own: [] })) return sendPage(reply, 503);
    });
    // Thrown on: the outer one writes it.
    face.setErrorHandler((error) => {
      throw error instanceof Problem ? reworded(error) : error;
    });
    face.setNotFoundHandler(() => {
      throw refusal(404, "not found");
    });
    await face.register(media.storage);
    await face.register(
      async (api) => {
        api.addHook("onRequest", async (request) => {
          const token = admit(cloud, request);
          const isCreate = request.method === "POST" && request.routeOptions.url?.endsWith("/*");
          const { refusal: limited } = cloud.limits.take(token, isCreate ? "creates" : "others");
          if (limited) throw limited;
        });
        await api.register(accountRoutes(cloud));
        await api.register(media.api);
        await api.register(taskRoutes(cloud));
      },
      { prefix: "/api/v3" },
    );
  },
};

function admit({ options: { tokens } }: Cloud, request: FastifyRequest): string {
  const token = tokenOf(request);
  if (token === null || (tokens !== null && !tokens.includes(token))) throw WAVESPEED_REFUSALS.unauthorized();
  return token;
}
