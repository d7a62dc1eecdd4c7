import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import helmet from "@fastify/helmet";
import swagger from "@fastify/swagger";
import swaggerUi from "@fastify/swagger-ui";
import underPressure from "@fastify/under-pressure";
import fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyPluginCallback,
  LogController,
  type RawServerDefault,
} from "fastify";
import {
  createJsonSchemaTransform,
  jsonSchemaTransformObject,
  serializerCompiler,
  validatorCompiler,
  type ZodTypeProvider,
} from "fastify-type-provider-zod";
import type { Logger } from "pino";
import type { z } from "zod";
import type { Db } from "../db/client.ts";
import type { App } from "../domain/app.ts";
import type { KindName } from "../domain/kinds/kind.ts";
import type { Providers, Routing } from "../domain/routing.ts";
import type { Reach } from "../fault-points.ts";
import type { Metrics } from "../metrics.ts";
import type { Queues } from "../queue/queue.ts";
import type { FetchFile, FetchToFile } from "../storage/guarded-fetch.ts";
import type { LocalStorage } from "../storage/local.ts";
import type { Storage } from "../storage/storage.ts";
import type { Accept } from "./accepting.ts";
import { askForAdmin } from "./admin.ts";
import { expectBody, MOST_ARRIVAL_MS } from "./arrival.ts";
import type { Authenticate } from "./auth.ts";
import { batchRoutes } from "./batches.ts";
import { callbackRoutes } from "./callbacks.ts";
import { catalogueRoutes } from "./catalogue.ts";
import type { CatalogueReader } from "./catalogue-state.ts";
import type { Changes } from "./changes.ts";
import { compatRoutes } from "./compat.ts";
import { costRoutes } from "./costs.ts";
import { creditRoutes } from "./credits.ts";
import { eventRoutes } from "./events.ts";
import { experimentRoutes } from "./experiments.ts";
import { fileRoutes } from "./files.ts";
import { healthRoutes } from "./health.ts";
import { noteSent } from "./idempotency.ts";
import type { InputLimits } from "./inputs.ts";
import { jobRoutes } from "./jobs.ts";
import { maskPath } from "./mask-path.ts";
import { photoSetRoutes } from "./photo-sets.ts";
import { pipelineRoutes } from "./pipelines.ts";
import { answerProblems } from "./problem.ts";
import { providerLogRoutes } from "./provider-logs.ts";
import { providerStatusRoutes } from "./provider-status.ts";
import { quoteRoutes } from "./quotes.ts";
import { ratingRoutes } from "./ratings.ts";
import { trainedModelRoutes } from "./trained-models.ts";
import { uploadRoutes } from "./uploads.ts";
import { userRoutes } from "./users.ts";
import { webhookRoutes } from "./webhooks.ts";

/** What the API acts with; put together by main. */
export interface ApiServices {
  readonly apps: readonly App[];
  readonly db: Db;
  readonly queues: Queues;
  readonly storage: Storage | LocalStorage;
  readonly providers: Providers;
  /** Who is asked first for a kind, unless an app or a plan says otherwise. */
  readonly preference: Readonly<Record<KindName, Routing>>;
  readonly fetchFile: FetchFile;
  readonly fetchToFile: FetchToFile;
  readonly accept: Accept;
  readonly changes: Changes;
  readonly catalogue: CatalogueReader;
  readonly authenticate: Authenticate;
  readonly limits: InputLimits;
  /** What the keys of an app's files begin with. */
  readonly prefixOf: (appId: string) => string;
  /** Where callbacks may go besides public https addresses. */
  readonly callbackOrigins: readonly string[];
  readonly jobDeadlineSeconds: number;
  readonly signingSecret: string;
  readonly publicUrl: string;
  readonly adminPassword: string | null;
  readonly board: FastifyPluginCallback | null;
  readonly metrics: Metrics;
  readonly reach: Reach;
  readonly logger: Logger;
  readonly version: string;
  /** True from SIGTERM on: no new connections should come. */
  readonly draining: () => boolean;
}

export type ApiApp = FastifyInstance<
  RawServerDefault,
  IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>;
export type Routes = (app: ApiApp, services: ApiServices) => void;

/** Of JSON bodies; files have limits of their own. */
const MOST_JSON_BYTES = 1_000_000;

/** The HTTP surface, without a port: `listen` it, or `inject` requests in tests. */
export async function makeApp(services: ApiServices): Promise<ApiApp> {
  const app = fastify({
    loggerInstance: services.logger as FastifyBaseLogger,
    // One line for each request, when it was answered.
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: (request) => requestId(request.headers["x-request-id"]),
    bodyLimit: MOST_JSON_BYTES,
    // Of a request as a whole; most have to be here sooner, see arrival.ts.
    requestTimeout: MOST_ARRIVAL_MS,
    connectionTimeout: 120_000,
    keepAliveTimeout: 75_000,
    routerOptions: { maxParamLength: 512 },
  }).withTypeProvider<ZodTypeProvider>();
  app.removeContentTypeParser("text/plain"); // JSON only; what else a route takes it says itself.
  app.setValidatorCompiler<z.ZodType>((route) => {
    const validate = validatorCompiler(route);
    return (body) => {
      const result = validate(body);
      if (route.httpPart === "body" && typeof result === "object" && "value" in result) noteSent(result.value, body);
      return result;
    };
  });
  app.setSerializerCompiler(serializerCompiler);
  answerProblems(app as unknown as FastifyInstance);

  app.addHook("onRequest", async (request, reply) => {
    expectBody(request.raw);
    reply.header("x-request-id", request.id);
    // Answers are for programs; pages get the whole set of headers below.
    reply.header("x-content-type-options", "nosniff");
  });
  app.addHook("onResponse", async (request, reply) => {
    const route = request.routeOptions.url ?? "none";
    const status = reply.statusCode;
    services.metrics.http.observe({ method: request.method, route, status }, reply.elapsedTime / 1_000);
    const ms = Math.round(reply.elapsedTime);
    request.log.info({ method: request.method, path: maskPath(request.url), status, ms }, "answered");
  });
  await app.register(underPressure, { maxEventLoopDelay: 2_000, retryAfter: 5, exposeStatusRoute: false });
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "Darkroom",
        version: services.version,
        description: "The job worker service behind AI photo and video apps.",
      },
      servers: [{ url: services.publicUrl }],
      components: {
        securitySchemes: {
          apiKey: { type: "http", scheme: "bearer", description: "dk_…, made with `npm run keys -- create`" },
        },
      },
      security: [{ apiKey: [] }],
    },
    transform: createJsonSchemaTransform({ skipList: [] }),
    transformObject: jsonSchemaTransformObject,
  });
  await app.register(async (pages) => {
    await pages.register(helmet, { contentSecurityPolicy: { directives: PAGE_POLICY } });
    await pages.register(swaggerUi, {
      routePrefix: "/docs",
      uiConfig: { docExpansion: "list", persistAuthorization: true },
      logo: { type: "image/svg+xml", content: Buffer.from(LOGO), href: "/docs", target: "_self" },
      theme: { title: "Darkroom API" },
    });
    if (services.board && services.adminPassword)
      await mountBoard(pages as ApiApp, services.board, services.adminPassword);
  });

  for (const routes of [
    jobRoutes,
    eventRoutes,
    uploadRoutes,
    photoSetRoutes,
    creditRoutes,
    webhookRoutes,
    healthRoutes,
    compatRoutes,
  ])
    routes(app, services);
  for (const routes of [
    quoteRoutes,
    catalogueRoutes,
    userRoutes,
    ratingRoutes,
    experimentRoutes,
    trainedModelRoutes,
    costRoutes,
  ])
    routes(app, services);
  for (const routes of [batchRoutes, pipelineRoutes, callbackRoutes, providerLogRoutes, providerStatusRoutes])
    routes(app, services);
  if ("open" in services.storage) fileRoutes(app, services.storage);
  return app;
}

const LOGO =
  '<svg xmlns="http://www.w3.org/2000/svg" width="150" height="40" viewBox="0 0 150 40"><circle cx="20" cy="20" r="9" fill="#dc2626"/><text x="40" y="27" font-family="sans-serif" font-size="20" font-weight="600" fill="#fff">Darkroom</text></svg>';

/** Pages are our own scripts and pictures only; the API's answers are not pages. */
const PAGE_POLICY = {
  defaultSrc: ["'self'"],
  imgSrc: ["'self'", "data:", "https:"],
  styleSrc: ["'self'", "'unsafe-inline'"],
  upgradeInsecureRequests: null,
};

async function mountBoard(app: ApiApp, board: FastifyPluginCallback, password: string): Promise<void> {
  await app.register(async (scope) => {
    await askForAdmin(scope, password);
    // Its page asks a third party for fonts; an operator's page asks nobody.
    scope.addHook("onSend", async (_request, _reply, payload) =>
      typeof payload === "string" ? payload.replaceAll(/<link[^>]*fonts\.(googleapis|gstatic)[^>]*>/g, "") : payload,
    );
    await scope.register(board, { prefix: "/queues" });
  });
}

/** The caller's own id if it is a harmless one, so that its log and ours can be joined. */
function requestId(given: string | string[] | undefined): string {
  return typeof given === "string" && /^[\w.-]{1,100}$/.test(given) ? given : randomUUID();
}
