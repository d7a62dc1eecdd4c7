import type { FastifyPluginAsync } from "fastify";
import { z } from "zod";
import type { Cloud } from "../cloud.ts";
import type { Face } from "../face.ts";
import type { Target } from "../faults.ts";
import { randomId } from "../id.ts";
import type { Chosen } from "../models.ts";
import { makeOrder, type Order } from "../order.ts";
import { Problem } from "../problem.ts";
import { purchase } from "../purchase.ts";
import { originOf, parse, tokenOf } from "../request.ts";
import { isOver, type Run } from "../run.ts";
import { type Refusals, sendPage, tellAccepted } from "../wire.ts";
import { makeBots } from "./bots.ts";

/** Poe's OpenAI-compatible API: a message to a bot, answered when the picture or film is there. */
export const poeFace: Face = { name: "poe", prefix: "/poe", routes, voice: () => null };

const OPEN_MS = 30 * 60_000; // how long a message is held open

const part = z.union([
  z.looseObject({ type: z.literal("text"), text: z.string() }),
  z.looseObject({ type: z.literal("image_url"), image_url: z.looseObject({ url: z.string() }) }),
]);
const message = z.looseObject({ role: z.string(), content: z.union([z.string(), z.array(part).max(20)]) });
const chat = z.looseObject({
  model: z.string(),
  messages: z.array(message).min(1).max(100),
  stream: z.boolean().optional(),
  n: z.literal(1).optional(),
});

const problem = (status: number, code: string | null, text: string, type = "invalid_request_error") =>
  new Problem(status, { error: { message: text, type, code } });

const unauthorized = () => problem(401, "invalid_api_key", "Invalid API key provided");
const unknownBot = (name: string) => problem(400, "model_not_found", `Model '${name}' does not exist`);

const REFUSALS: Refusals = {
  unauthorized,
  noCredit: () =>
    problem(402, "insufficient_quota", "You've used up your points! Visit https://poe.com/api/keys to get more."),
  throttled(form, seconds) {
    const { body } = problem(429, "rate_limit_exceeded", "Rate limit exceeded", "rate_limit_error");
    const wait = String(Math.max(1, Math.ceil(seconds)));
    if (form === "neither") return new Problem(429, body);
    return new Problem(429, body, { [form === "header" ? "retry-after" : "x-ratelimit-reset-requests"]: wait });
  },
};

function routes(cloud: Cloud): FastifyPluginAsync {
  const { faults, course, limits, options } = cloud;
  const bots = makeBots();

  return async (api) => {
    api.setErrorHandler((error, _request, reply) => {
      if (!(error instanceof Problem)) throw error;
      const { body, status } = inPoesWords(error);
      return reply.code(status).headers(error.headers).type("application/json").send(JSON.stringify(body));
    });
    api.setNotFoundHandler(() => {
      throw problem(404, "not_found", "Not found");
    });

    api.addHook("onRequest", async (request, reply) => {
      if (faults.strike("down", { face: "poe", model: "", text: "", own: [] })) return sendPage(reply, 503);
      const token = tokenOf(request);
      if (token === null || options.tokens?.includes(token) === false) throw unauthorized();
      const { remaining, resetSeconds, refusal } = limits.take(token, request.method === "POST" ? "creates" : "others");
      reply.header("x-ratelimit-remaining-requests", remaining);
      if (refusal) throw REFUSALS.throttled("body", resetSeconds);
    });

    api.get("/models", async () => {
      const here = [...bots.values()].filter((bot) => !faults.stands("vanished", asTarget(bot)));
      return { object: "list", data: here.map(({ model }) => ({ id: model.name, object: "model", owned_by: "Poe" })) };
    });

    api.post("/chat/completions", async (request, reply) => {
      const body = parse(chat, request.body);
      const bot = bots.get(body.model.toLowerCase());
      if (!bot || faults.strike("vanished", asTarget(bot))) throw unknownBot(body.model);
      const input = inputOf(body);
      const order: Order = makeOrder({
        face: "poe",
        kind: "prediction",
        chosen: bot,
        input,
        inputBytes: JSON.stringify(input).length,
        destination: null,
        webhook: null,
        events: null,
        cancelAfterMs: null,
        origin: originOf(request),
        token: tokenOf(request) ?? "",
      });
      const run = await purchase(cloud, order, reply, REFUSALS, `chatcmpl-${randomId(24)}`);
      if (!run) return reply;
      await course.over(run, OPEN_MS);
      if (!isOver(run)) return sendPage(reply, 503);
      const [status, answer] = answerOf(run);
      return tellAccepted(faults, run, reply, status, answer);
    });
  };
}

const asTarget = ({ model }: Chosen): Target => ({ face: "poe", model: `poe/${model.name}`, text: "", own: [] });

/** The words and the picture of the last message; parameters of the bot's own stand beside the messages. */
function inputOf({ model: _model, messages, stream: _stream, n: _n, ...rest }: z.output<typeof chat>) {
  const content = messages.at(-1)?.content ?? "";
  const parts = typeof content === "string" ? [{ type: "text" as const, text: content }] : content;
  const prompt = parts.flatMap((each) => (each.type === "text" ? each.text : [])).join("\n");
  const [image] = parts.flatMap((each) => (each.type === "image_url" ? each.image_url.url : []));
  return { ...rest, prompt, ...(image !== undefined && { image }) };
}

/** A safety filter speaks in the bot's words and with 200; what broke is an error. */
function answerOf(run: Run): [status: number, body: unknown] {
  if (run.status === "succeeded") return [200, completion(run, linked(run))];
  const error = run.error ?? "The bot did not answer in time";
  if (/NSFW/.test(error)) return [200, completion(run, `I can't create that picture. ${error}`)];
  return [500, problem(500, "internal_error", error, "server_error").body];
}

function completion(run: Run, content: string) {
  return {
    id: run.id,
    object: "chat.completion",
    created: Math.floor(run.createdAt / 1_000),
    model: run.model.split("/")[1],
    choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
    usage: { prompt_tokens: 12, completion_tokens: 1, total_tokens: 13 },
  };
}

/** A film is a bare link; a picture is Markdown, and its link once more below. */
function linked({ output, reel }: Run): string {
  const [url = ""] = Array.isArray(output) ? output : [];
  return reel ? url : `![picture_1](${url})\n\n\n${url}`;
}

/** What is shared by all faces speaks Replicate's words; here they are Poe's. */
function inPoesWords({ status, body }: Problem): Pick<Problem, "status" | "body"> {
  if (typeof body["error"] === "object") return { status, body };
  const text = typeof body["detail"] === "string" ? body["detail"].trim() : "Bad request";
  return problem(status === 422 ? 400 : status, "invalid_parameter", text);
}
