import { z } from "zod";
import { balanceOf, entriesOf, grant } from "../db/credits.ts";
import { ServiceError } from "../errors.ts";
import type { Routes } from "./app.ts";
import { idempotencyKey } from "./idempotency.ts";
import { problemSchema } from "./problem.ts";
import { isStorable } from "./submission.ts";

const userParams = z.object({
  user: z.string().trim().min(1).max(200).refine(isStorable, "holds a character that cannot be kept"),
});
const account = z.object({
  user: z.string(),
  available: z.int().describe("Balance and what is left of today's allowance."),
  balance: z.int(),
  allowance: z.int(),
});
const entry = z.object({
  seq: z.int(),
  type: z.enum(["grant", "charge", "refund", "adjustment", "expiry"]),
  bucket: z.enum(["balance", "allowance"]),
  amount: z.int().describe("Positive: given; negative: taken."),
  balanceAfter: z.int(),
  job: z.uuid().nullable(),
  description: z.string(),
  at: z.iso.datetime(),
});

export const creditRoutes: Routes = (app, { db, authenticate }) => {
  app.route({
    method: "GET",
    url: "/api/credits/:user",
    schema: {
      tags: ["credits"],
      summary: "A user's credits and the entries that make them up, newest first",
      params: userParams,
      querystring: z.strictObject({
        limit: z.coerce.number().int().min(1).max(100).default(20),
        before: z.coerce.number().int().min(1).optional().describe("Entries older than this seq."),
      }),
      response: { 200: account.extend({ entries: z.array(entry) }), 401: problemSchema, 404: problemSchema },
    },
    handler: async (request) => {
      const { appId } = await authenticate(request);
      const { user } = request.params;
      const balance = await balanceOf(db, appId, user);
      if (!balance)
        throw new ServiceError(
          "not_found",
          `The user ${user} has no account yet: it is made with the first job or grant.`,
        );
      const entries = await entriesOf(db, appId, user, request.query.limit, request.query.before);
      return {
        user,
        available: balance.balance + balance.allowance,
        ...balance,
        entries: entries.map(({ seq, type, bucket, amount, balanceAfter, jobId, description, createdAt }) => ({
          seq,
          type,
          bucket,
          amount,
          balanceAfter,
          job: jobId,
          description,
          at: createdAt.toISOString(),
        })),
      };
    },
  });

  app.route({
    method: "POST",
    url: "/api/credits/:user/grants",
    schema: {
      tags: ["credits"],
      summary: "Grant credits, as after a purchase",
      description: "Repeat it with the same Idempotency-Key (the payment's id, say): it is granted once.",
      params: userParams,
      headers: z.object({
        "idempotency-key": z
          .string()
          .optional()
          .describe("Required: such as the payment's id; the same one is granted once."),
      }),
      body: z.strictObject({
        credits: z.int().min(1).max(1_000_000_000),
        description: z.string().trim().min(1).max(500).default("grant"),
      }),
      response: {
        200: account.describe("Granted before with this key"),
        201: account,
        400: problemSchema,
        401: problemSchema,
        422: problemSchema,
      },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const key = idempotencyKey(request.headers["idempotency-key"]);
      const { user } = request.params;
      const { credits, description } = request.body;
      const { granted, amount, balance, allowance } = await grant(db, {
        appId,
        userId: user,
        credits,
        description,
        key,
      });
      if (!granted && amount !== credits)
        throw new ServiceError(
          "idempotency_key_reused",
          `This Idempotency-Key already stands for a grant of ${amount} credits. Use a new key for a new grant.`,
        );
      if (!granted) reply.header("idempotency-replayed", "true");
      return reply.code(granted ? 201 : 200).send({ user, available: balance + allowance, balance, allowance });
    },
  });
};
