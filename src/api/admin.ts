import { createHash, timingSafeEqual } from "node:crypto";
import basicAuth from "@fastify/basic-auth";
import type { FastifyInstance } from "fastify";

/** Lets the operator in, as admin with ADMIN_PASSWORD, and nobody else, to every route of this scope. */
export async function askForAdmin(scope: FastifyInstance, password: string): Promise<void> {
  await scope.register(basicAuth, {
    authenticate: { realm: "Darkroom" },
    validate: async (user, given) => {
      if (!isAdmin(user, given, password)) throw Object.assign(new Error("wrong login"), { statusCode: 401 });
    },
  });
  scope.addHook("onRequest", scope.basicAuth);
  // The login failing is a browser's business: it asks again.
  scope.setErrorHandler((error: Error & { statusCode?: number }, _request, reply) => {
    if (error.statusCode !== 401) throw error;
    return reply.code(401).type("text/plain").send("log in as admin with ADMIN_PASSWORD");
  });
}

/** The header `Authorization: Basic …` of a request that may also come without one, or with an API key. */
export function isAdminHeader(header: string, password: string): boolean {
  const [, user = "", given = ""] =
    /^([^:]*):(.*)$/s.exec(Buffer.from(header.replace(/^basic\s+/i, ""), "base64").toString("utf8")) ?? [];
  return isAdmin(user, given, password);
}

function isAdmin(user: string, given: string, password: string): boolean {
  return user === "admin" && timingSafeEqual(digest(given), digest(password));
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
