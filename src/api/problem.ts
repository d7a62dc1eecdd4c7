import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { hasZodFastifySchemaValidationErrors } from "fastify-type-provider-zod";
import { z } from "zod";
import type { FieldProblem } from "../domain/kinds/kind.ts";
import { ERRORS, ServiceError } from "../errors.ts";
import { problemOf } from "../problem.ts";
import { bounded } from "./parsing.ts";

/** RFC 9457, with a stable `code`. */
export const problemSchema = z
  .object({
    type: z.string().describe("urn:darkroom:error:<code>"),
    title: z.string(),
    status: z.int(),
    code: z
      .enum(Object.keys(ERRORS) as [keyof typeof ERRORS, ...(keyof typeof ERRORS)[]])
      .describe("Stable; program against this."),
    detail: z.string().describe("What is wrong and what to do about it."),
    instance: z.string().describe("The id of this request, also in the log and in x-request-id."),
    retryable: z.boolean().describe("True: send it again as it is, with the same Idempotency-Key."),
    errors: z
      .array(z.object({ pointer: z.string(), detail: z.string() }))
      .optional()
      .describe("The fields at fault."),
  })
  .catchall(z.unknown())
  .meta({ id: "Problem" });

/** One place turns whatever was thrown into an answer: what is ours to say goes out, what is not goes to the log only. */
export function answerProblems(app: FastifyInstance): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const known = toServiceError(error);
    if (ERRORS[known.code].status >= 500) request.log.error({ err: error }, known.message);
    else request.log.info({ code: known.code, detail: known.message }, "refused");
    return send(request, reply, known);
  });
  app.setNotFoundHandler((request, reply) =>
    send(
      request,
      reply,
      new ServiceError(
        "not_found",
        `There is no ${request.method} ${request.url.split("?")[0]}. The list of routes is at /docs.`,
      ),
    ),
  );
}

function send(request: FastifyRequest, reply: FastifyReply, error: ServiceError): FastifyReply {
  const { status } = ERRORS[error.code];
  if (status === 401 && error.code === "unauthenticated") reply.header("www-authenticate", 'Bearer realm="darkroom"');
  if (status === 503) reply.header("retry-after", "5");
  const wait = error.facts["retryAfter"];
  if (typeof wait === "number") reply.header("retry-after", String(wait));
  const problem = problemOf(error, request.id);
  return reply.code(status).type("application/problem+json").serializer(JSON.stringify).send(problem);
}

function toServiceError(error: FastifyError): ServiceError {
  if (error instanceof ServiceError) return error;
  if (hasZodFastifySchemaValidationErrors(error))
    return invalidInput(error.validationContext ?? "body", error.validation);
  switch (error.code) {
    case "FST_ERR_CTP_BODY_TOO_LARGE":
    case "FST_REQ_FILE_TOO_LARGE":
      return new ServiceError(
        "payload_too_large",
        "The body is larger than this route takes. Send images to POST /api/uploads and name them by id.",
      );
    case "FST_ERR_CTP_INVALID_MEDIA_TYPE":
    case "FST_INVALID_MULTIPART_CONTENT_TYPE":
      return new ServiceError(
        "unsupported_media_type",
        "Send JSON with content-type application/json; files to POST /api/uploads as multipart/form-data or as image/jpeg, image/png, image/webp.",
      );
    case "FST_ERR_CTP_EMPTY_JSON_BODY":
      return new ServiceError(
        "malformed_request",
        "The body is empty. Send a JSON object, or leave out the content-type header.",
      );
    case "FST_UNDER_PRESSURE":
      return new ServiceError("unavailable", "The service is overloaded. Try again in a few seconds.");
  }
  if (error.statusCode === 400 || error instanceof SyntaxError)
    return new ServiceError("malformed_request", `The body is not valid JSON: ${error.message}`);
  if (isDatabaseDown(error))
    return new ServiceError(
      "unavailable",
      "The database cannot be reached. Nothing was charged unless an earlier answer said so; send the request again with the same Idempotency-Key.",
      { cause: error },
    );
  return new ServiceError(
    "internal",
    "An unexpected error. It is in the log under this instance; send the request again with the same Idempotency-Key.",
    { cause: error },
  );
}

interface Validation {
  readonly instancePath: string;
  readonly message?: string | undefined;
  readonly params?: unknown;
}

/** The first sentence names the first field; `errors` has all of them, within reason. */
function invalidInput(context: string, validation: readonly Validation[]): ServiceError {
  const all = validation.flatMap((each): FieldProblem[] => {
    const issue =
      (each.params as { issue?: { code?: string; keys?: string[]; note?: string } } | undefined)?.issue ??
      (each.params as { code?: string; keys?: string[] } | undefined);
    const keys = issue && "keys" in issue && Array.isArray(issue.keys) ? issue.keys : [];
    if (keys.length > 0)
      return keys.map((key) => ({
        pointer: `${each.instancePath.replace(/\/$/, "")}/${key}`,
        detail: "unknown field: remove it, or check its spelling at /docs",
      }));
    return [{ pointer: each.instancePath, detail: each.message ?? "not valid" }];
  });
  const fields = bounded(all);
  const [first] = fields;
  const where = first?.pointer ? `${context} field ${first.pointer}` : context;
  return new ServiceError("invalid_input", `${where}: ${first?.detail ?? "not valid"}`, { fields });
}

/** Of the sockets and of Postgres: no answer, cut off, shutting down, starting up, locked, deadlocked, too slow. */
const DOWN = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ETIMEDOUT",
  "EPIPE",
  "57P01",
  "57P02",
  "57P03",
  "55P03",
  "40P01",
  "57014",
  "25P03",
  "53300",
]);

function isDatabaseDown(error: unknown): boolean {
  for (let each: unknown = error, depth = 0; each instanceof Error && depth < 5; each = each.cause, depth++) {
    if ("code" in each && typeof each.code === "string" && DOWN.has(each.code)) return true;
    // The driver's own words have no code.
    if (/^Connection terminated|timeout exceeded when trying to connect/.test(each.message)) return true;
  }
  return false;
}
