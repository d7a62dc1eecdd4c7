import type { Face } from "../face.ts";
import { sendPage } from "../wire.ts";
import { admit } from "./admission.ts";
import { queueRoutes } from "./queue.ts";
import { restRoutes } from "./rest.ts";
import { falVoice } from "./voice.ts";

/** fal's queue and what it has beside it, which are two hosts in reality. */
export const falFace: Face = {
  name: "fal",
  prefix: "/fal",
  voice: falVoice,
  routes: (cloud) => async (api) => {
    api.addHook("onRequest", async (request, reply) => {
      if (cloud.faults.strike("down", { face: "fal", model: "", text: "", own: [] })) return sendPage(reply, 503);
      admit(cloud, request);
    });
    await api.register(queueRoutes(cloud), { prefix: "/queue" });
    await api.register(restRoutes(cloud), { prefix: "/rest" });
  },
};
