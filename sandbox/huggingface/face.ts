import { randomUUID } from "node:crypto";
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import type { Face } from "../face.ts";
import type { Input } from "../field.ts";
import { randomId } from "../id.ts";
import { makeOrder } from "../order.ts";
import { Problem } from "../problem.ts";
import { purchase } from "../purchase.ts";
import { originOf, parse, tokenOf } from "../request.ts";
import { isOver, type Run } from "../run.ts";
import { sendPage, tellAccepted } from "../wire.ts";
import { makeHub, type Served, type Upstream } from "./hub.ts";
import { queueRoutes, ticket } from "./queue.ts";
import { problem, REFUSALS, translated, unauthorized } from "./words.ts";

/** The router and, under /hub, as much of the hub as says who serves a model. */
export const huggingFaceFace: Face = { name: "huggingface", prefix: "/huggingface", routes, voice: () => null };

const OPEN_MS = 30 * 60_000; // how long a call is held open
const LOADING_SECONDS = 20; // what a caller is told of a model that is not loaded

const hubPath = z.object({ owner: z.string(), name: z.string() });
const restPath = z.object({ "*": z.string().max(300) });
const inference = z.looseObject({ inputs: z.string(), parameters: z.record(z.string(), z.unknown()).optional() });
const size = z.looseObject({ width: z.number(), height: z.number() });
const fal = z.looseObject({
  image_size: z.union([z.string(), size]).optional(),
  output_format: z.enum(["jpeg", "png"]).optional(),
});
const openAi = z.looseObject({
  model: z.string(),
  steps: z.unknown().optional(),
  response_format: z.string().optional(),
});

function routes(cloud: Cloud): FastifyPluginAsync {
  const { faults, course, gallery, limits, options } = cloud;
  const hub = makeHub();
  const isThere = ({ chosen: { model } }: Served) =>
    !faults.stands("vanished", { face: "huggingface", model: `${model.owner}/${model.name}`, text: "", own: [] });

  /** As an upstream calls it; 404 in the router's words where nobody does. */
  function served(upstream: Upstream, providerId: string): Served {
    const found = [...hub.values()].flat().find((it) => it.upstream === upstream && it.providerId === providerId);
    if (!found || !isThere(found)) throw problem(404, `Model ${providerId} is not supported by provider ${upstream}`);
    return found;
  }

  /** Accepts what was asked for, or answers why not and returns null. */
  async function accept(
    request: FastifyRequest,
    reply: FastifyReply,
    { chosen, upstream }: Served,
    input: Input,
    id: string,
  ) {
    const order = makeOrder({
      face: "huggingface",
      kind: "prediction",
      chosen,
      input,
      inputBytes: JSON.stringify(input).length,
      destination: null,
      webhook: null,
      events: null,
      cancelAfterMs: null,
      origin: originOf(request),
      token: tokenOf(request) ?? "",
    });
    // Not what a prompt asks for: it would be so again whenever the same is sent, as if the model were never loaded.
    if (upstream === "hf-inference" && faults.strike("aborted", { ...order, own: [] })) {
      const estimated_time = LOADING_SECONDS / options.speed;
      throw problem(503, `Model ${order.model} is currently loading`, { estimated_time });
    }
    return purchase(cloud, order, reply, REFUSALS, id);
  }

  /** The run from its order to its end; the answer is `show`n of what it made, or what went wrong with it. */
  async function whole(
    request: FastifyRequest,
    reply: FastifyReply,
    from: Served,
    input: Input,
    show: (run: Run, picture: Buffer) => unknown,
  ) {
    const run = await accept(request, reply, from, input, randomId());
    if (!run) return reply;
    await course.over(run, OPEN_MS);
    if (!isOver(run)) return sendPage(reply, 503);
    reply.header("x-request-id", run.id);
    const picture = run.status === "succeeded" ? await gallery.picture(run, 0) : null;
    if (picture) return tellAccepted(faults, run, reply, 200, show(run, picture));
    const text = run.error ?? "The request was stopped before it began";
    const { body } = problem(500, text);
    return tellAccepted(faults, run, reply, /NSFW/.test(text) ? 400 : 500, body);
  }

  return async (api) => {
    api.setErrorHandler((error, request, reply) => {
      if (!(error instanceof Problem)) throw error;
      const { status, body, headers } = translated(error, request.url.startsWith("/huggingface/fal-ai/"));
      return reply.code(status).headers(headers).type("application/json").send(JSON.stringify(body));
    });
    api.setNotFoundHandler(() => {
      throw problem(404, "Not Found");
    });

    api.addHook("onRequest", async (request, reply) => {
      if (faults.strike("down", { face: "huggingface", model: "", text: "", own: [] })) return sendPage(reply, 503);
      const token = tokenOf(request);
      // The hub tells everybody of public models.
      if (token === null && request.url.startsWith("/huggingface/hub/")) return;
      if (token === null || options.tokens?.includes(token) === false) throw unauthorized();
      const { resetSeconds, refusal } = limits.take(token, request.method === "POST" ? "creates" : "others");
      if (refusal) throw REFUSALS.throttled("header", resetSeconds);
    });

    api.get("/hub/api/models/:owner/:name", async (request) => {
      const { owner, name } = parse(hubPath, request.params);
      const all = hub.get(`${owner}/${name}`)?.filter(isThere) ?? [];
      if (all.length === 0) throw problem(404, "Repository not found");
      const entries = all.map(({ upstream, status, providerId, task }) => [upstream, { status, providerId, task }]);
      return { _id: "0", id: `${owner}/${name}`, inferenceProviderMapping: Object.fromEntries(entries) };
    });

    api.post("/hf-inference/models/:owner/:name", async (request, reply) => {
      const { owner, name } = parse(hubPath, request.params);
      const from = served("hf-inference", `${owner}/${name}`);
      const { inputs, parameters } = parse(inference, request.body);
      return whole(request, reply, from, { ...parameters, prompt: inputs }, (_run, picture) => {
        reply.type("image/jpeg");
        return picture;
      });
    });

    api.post("/together/v1/images/generations", async (request, reply) => {
      const { model, steps, response_format, ...input } = parse(openAi, request.body);
      const counted = steps === undefined ? input : { ...input, num_inference_steps: steps };
      return whole(request, reply, served("together", model), counted, (run, picture) => {
        const [url] = Array.isArray(run.output) ? run.output : [];
        const shown = response_format === "url" ? { url } : { b64_json: picture.toString("base64") };
        return { id: run.id, model, object: "list", data: [{ index: 0, ...shown }] };
      });
    });

    api.post("/fal-ai/*", async (request, reply) => {
      const from = served("fal-ai", parse(restPath, request.params)["*"]);
      const { image_size, output_format, ...rest } = parse(fal, request.body);
      const sized = typeof image_size === "object" ? { width: image_size.width, height: image_size.height } : {};
      const input = { ...rest, ...sized, output_format: output_format === "png" ? "png" : "jpg" };
      const run = await accept(request, reply, from, input, randomUUID());
      if (!run) return reply;
      const at = from.providerId.split("/").slice(0, 2).join("/");
      return tellAccepted(faults, run, reply, 200, ticket(run, at, "IN_QUEUE"));
    });
    await api.register(queueRoutes(cloud));
  };
}
