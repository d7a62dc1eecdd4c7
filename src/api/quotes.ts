import { v7 as uuidv7 } from "uuid";
import { z } from "zod";
import { balanceOf } from "../db/credits.ts";
import { saveQuote } from "../db/quotes.ts";

import { type App, planOf } from "../domain/app.ts";
import type { Fitted } from "../domain/request.ts";
import { asSeen } from "../domain/suffix.ts";
import { ServiceError } from "../errors.ts";
import type { ApiServices, Routes } from "./app.ts";
import { appOf, fitSubmission, type QuotedRequest, quotedFingerprint } from "./ordering.ts";
import { judgePhotos, photoAnswer } from "./photos.ts";
import { problemSchema } from "./problem.ts";
import { submissionSchema } from "./submission.ts";

/** A price is promised for 15 minutes. */
const QUOTE_SECONDS = 900;

const quoteSchema = z
  .object({
    id: z.uuid().describe("Put it into the submission as `quote`."),
    credits: z.int(),
    lines: z.array(z.object({ label: z.string(), credits: z.int() })),
    clamps: z
      .array(z.object({ pointer: z.string(), from: z.unknown(), to: z.unknown(), because: z.string() }))
      .describe("What is beyond the user's plan and would be done as `to`."),
    input: z.unknown().describe("As it would be done."),
    model: z.string(),
    plan: z.string(),
    priceBook: z.string(),
    available: z.int().describe("What the user can spend now."),
    sufficient: z.boolean().describe("Whether that is enough."),
    expiresAt: z.iso.datetime(),
    photos: z
      .array(photoAnswer)
      .nullable()
      .describe("With ?photos=check, what is to be said of each photo of a training; otherwise null."),
  })
  .meta({ id: "Quote" });

export const quoteRoutes: Routes = (app, services) => {
  const { db, authenticate } = services;

  app.route({
    method: "POST",
    url: "/api/quotes",
    schema: {
      tags: ["prices"],
      summary: "What a job would cost, promised for 15 minutes",
      description:
        "Takes the body of POST /api/jobs, charges nothing and fetches no files. Submit the very same body with `quote` set to the id, and it costs these credits and is done as `input` says, whatever plan and price book say by then; metadata, callbackUrl and address may differ. A quote may be used several times until it expires, each time with an Idempotency-Key of its own.",
      querystring: z.strictObject({
        photos: z
          .literal("check")
          .optional()
          .describe(
            "Of a training: fetch and judge the photos too; those that cannot be used are a 422 as on submission.",
          ),
      }),
      body: submissionSchema,
      response: {
        201: quoteSchema,
        400: problemSchema,
        401: problemSchema,
        413: problemSchema,
        415: problemSchema,
        422: problemSchema,
        503: problemSchema,
      },
    },
    handler: async (request, reply) => {
      const { appId } = await authenticate(request);
      const { body } = request;
      const owner = appOf(services, appId);
      if (body.quote) throw refused("/quote", "is for submissions: leave it out to get a quote");
      if (request.query.photos && body.kind !== "training")
        throw refused("/kind", "photos=check is for trainings: leave it out of the address");
      const fitted = await fitSubmission(services, owner, body);
      const judged = request.query.photos ? await judgePhotos(services, appId, fitted.files) : null;
      const available = await availableTo(services, owner, body.user, fitted.plan);
      const id = uuidv7();
      const { price, priceBook } = fitted;
      const expiresAt = await saveQuote(
        db,
        {
          id,
          appId,
          userId: body.user,
          fingerprint: Buffer.from(quotedFingerprint(body), "hex"),
          credits: price.credits,
          priceLines: price.lines,
          priceBook,
          request: toQuoted(fitted),
        },
        QUOTE_SECONDS,
      );
      return reply.code(201).send({
        id,
        credits: price.credits,
        lines: [...price.lines],
        clamps: [...fitted.clamps],
        input: asSeen(fitted.input),
        model: fitted.model.alias,
        plan: fitted.plan,
        priceBook,
        available,
        sufficient: available >= price.credits,
        expiresAt: expiresAt.toISOString(),
        photos: judged ? [...judged.photos] : null,
      });
    },
  });
};

/** Also of a user who has no account yet: what he will have with his first job. */
async function availableTo({ db }: ApiServices, app: App, user: string, plan: string): Promise<number> {
  const balance = await balanceOf(db, app.id, user);
  return balance ? balance.balance + balance.allowance : app.signupGrant + planOf(app, plan).plan.dailyAllowance;
}

function toQuoted({
  model,
  files: _,
  price: __,
  priceBook: ___,
  rates: ____,
  maxModels: _____,
  ...rest
}: Fitted): QuotedRequest {
  return { ...rest, model: model.alias };
}

function refused(pointer: string, detail: string): ServiceError {
  return new ServiceError("invalid_input", `body field ${pointer} ${detail}. Nothing was charged.`, {
    fields: [{ pointer, detail }],
  });
}
