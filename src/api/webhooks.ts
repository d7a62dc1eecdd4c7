import { createHmac, timingSafeEqual } from "node:crypto";
import type { FastifyRequest } from "fastify";
import type { ZodTypeProvider } from "fastify-type-provider-zod";
import { z } from "zod";
import { findRunByProviderId, noteWebhook } from "../db/looks.ts";
import { type Delivery, WebhookRefused } from "../domain/provider.ts";
import { ServiceError } from "../errors.ts";
import type { Routes } from "./app.ts";
import { problemSchema } from "./problem.ts";

/** Bodies carry input, output and logs; more than this is not a webhook. */
const MOST_BODY_BYTES = 5_000_000;

/** Where existing products have Replicate call: /api/webhooks/training. The signature and the id say which run it is. */
const OLD_PATHS = new Set(["replicate", "training", "generation"]);

/** The address at which a provider tells us about one run. The token is the run's own secret. */
export function webhookPath(secret: string, provider: string, runId: string): string {
  return `/api/webhooks/${provider}/${runId}/${token(secret, provider, runId)}`;
}

function token(secret: string, provider: string, runId: string): string {
  return createHmac("sha256", secret).update(`webhook:${provider}:${runId}`).digest("base64url");
}

/**
 * What providers tell us unasked. It is checked, noted and answered; the run is then asked about, so a webhook that is
 * late, repeated, reordered, early or wrong about something changes nothing but the time of a look.
 */
export const webhookRoutes: Routes = (app, services) => {
  const { db, providers, signingSecret, metrics, reach } = services;

  const receive = async (
    request: Pick<FastifyRequest, "headers" | "body">,
    providerName: string,
    given: { runId: string; token: string } | null,
  ) => {
    const provider =
      providers.find((each) => each.name === providerName) ??
      (OLD_PATHS.has(providerName) && given === null ? providers.find((each) => each.api === "replicate") : undefined);
    if (!provider) throw new ServiceError("not_found", `This deployment has no provider ${providerName}.`);
    const refuse = (why: string) => {
      metrics.webhooks.inc({ provider: provider.name, result: "refused" });
      return new ServiceError("webhook_refused", why);
    };
    if (given && !equal(given.token, token(signingSecret, provider.name, given.runId)))
      throw refuse("The address does not belong to a run.");
    if (!given && !provider.signsWebhooks)
      throw refuse(`${provider.name} signs nothing: only the address that the run was ordered with proves who calls.`);
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([name, value]) => [name, Array.isArray(value) ? value[0] : value]),
    );
    let delivery: Delivery;
    try {
      delivery = await provider.verifyWebhook(headers, String(request.body ?? ""));
    } catch (error) {
      if (error instanceof WebhookRefused) throw refuse(error.message);
      throw error;
    }
    const runId = given?.runId ?? (await findRunByProviderId(db, provider.name, delivery.providerRunId));
    await reach("webhook.verified", runId ?? "");
    const noted = runId !== null && (await noteWebhook(db, { provider: provider.name, runId, ...delivery }));
    await reach("webhook.noted", runId ?? "");
    metrics.webhooks.inc({ provider: provider.name, result: noted ? "noted" : "unknown" });
    if (!noted) throw new ServiceError("not_found", "There is no such run.");
    return { received: true as const };
  };

  app.register(async (instance) => {
    const scope = instance.withTypeProvider<ZodTypeProvider>();
    // The signature is over the very bytes that were sent.
    scope.removeContentTypeParser("application/json");
    scope.addContentTypeParser(
      "application/json",
      { parseAs: "string", bodyLimit: MOST_BODY_BYTES },
      (_request, body, done) => done(null, body),
    );
    const answers = { 200: z.object({ received: z.literal(true) }), 401: problemSchema, 404: problemSchema };
    scope.route({
      method: "POST",
      url: "/api/webhooks/:provider/:runId/:token",
      schema: {
        tags: ["webhooks"],
        summary: "A provider tells about a run",
        params: z.object({ provider: z.string(), runId: z.uuid(), token: z.string() }),
        response: answers,
      },
      handler: async (request) => receive(request, request.params.provider, request.params),
    });
    scope.route({
      method: "POST",
      url: "/api/webhooks/:provider",
      schema: {
        tags: ["webhooks"],
        summary: "The same, found by the provider's id of the run",
        description:
          "Existing products have Replicate call /api/webhooks/replicate, /training or /generation: all three are this.",
        params: z.object({ provider: z.string() }),
        response: answers,
      },
      handler: async (request) => receive(request, request.params.provider, null),
    });
  });
};

function equal(given: string, wanted: string): boolean {
  const a = Buffer.from(given);
  const b = Buffer.from(wanted);
  return a.length === b.length && timingSafeEqual(a, b);
}
