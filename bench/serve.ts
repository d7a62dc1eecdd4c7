import fastify from "fastify";
import { apps } from "../apps/all.ts";
import { type Accept, makeAccept } from "../src/api/accepting.ts";
import { makeApp } from "../src/api/app.ts";
import { makeAuthenticate } from "../src/api/auth.ts";
import { readCatalogue } from "../src/api/catalogue-state.ts";
import { watchChanges } from "../src/api/changes.ts";
import { makeLogger, makeParts, VERSION } from "../src/compose.ts";
import { type Config, readConfig } from "../src/config.ts";
import { acceptJobs } from "../src/db/accept.ts";
import { connect } from "../src/db/client.ts";
import { requestOf } from "./order.ts";
import { acceptInTransaction } from "./transaction.ts";

/** without-wakes: the API, but the queue hears nothing. one-by-one: and each request is a statement of its own. */
export type Serving = "without-wakes" | "one-by-one" | "bare";

/** Serves until the process that started it is gone. */
export async function serve(what: Serving): Promise<void> {
  process.once("disconnect", () => process.exit(0));
  const config = readConfig(process.env);
  if (what === "bare") await serveBare(config);
  else await serveApi(config, what);
}

/** Put together as startApi does it; only `accept` differs. */
async function serveApi(config: Config, what: "without-wakes" | "one-by-one"): Promise<void> {
  const logger = makeLogger(config, "api");
  const parts = makeParts(config, logger, "api");
  const { db } = parts;
  const oneByOne: Accept = async (request) => {
    const [answer] = await acceptJobs(db, [request]);
    if (!answer) throw new Error("one request has one answer");
    return answer;
  };
  const queues = { ...parts.queues, wake: async () => {} };
  const app = await makeApp({
    ...parts,
    apps,
    catalogue: readCatalogue(db, parts.providers),
    changes: watchChanges(db, logger),
    accept: what === "one-by-one" ? oneByOne : makeAccept({ ...parts, queues }),
    authenticate: makeAuthenticate(db),
    prefixOf: (appId) => `apps/${appId}`,
    limits: { maxBytes: config.MAX_FILE_BYTES, maxPixels: config.MAX_IMAGE_PIXELS },
    callbackOrigins: config.CALLBACK_ORIGINS,
    jobDeadlineSeconds: config.JOB_DEADLINE_SECONDS,
    signingSecret: config.SIGNING_SECRET,
    publicUrl: config.PUBLIC_URL,
    adminPassword: null,
    board: null,
    version: VERSION,
    draining: () => false,
  });
  await app.listen({ host: config.HOST, port: config.PORT });
}

const BODY = {
  type: "object",
  required: ["kind", "user", "input"],
  additionalProperties: false,
  properties: {
    kind: { const: "generation" },
    user: { type: "string", minLength: 1, maxLength: 200 },
    input: { type: "object", required: ["prompt"], properties: { prompt: { type: "string", minLength: 1 } } },
    metadata: { type: "object" },
  },
};

/** The lightest HTTP that the transaction could have: a schema, the key, a short answer; no log, no metrics. */
async function serveBare(config: Config): Promise<void> {
  const db = connect(config.DATABASE_URL, { max: 8, name: "bare" });
  const authenticate = makeAuthenticate(db);
  const app = fastify();
  app.get("/readyz", async () => ({ status: "ok" }));
  app.post("/api/jobs", { schema: { body: BODY } }, async (request, reply) => {
    await authenticate(request);
    const { user } = request.body as { user: string };
    const answer = await acceptInTransaction(db, requestOf(user, String(request.headers["idempotency-key"])));
    return reply.code(202).send({ id: answer.jobId, status: "pending", balance: { available: answer.available } });
  });
  await app.listen({ host: config.HOST, port: config.PORT });
}
