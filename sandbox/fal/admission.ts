import type { FastifyRequest } from "fastify";
import type { Cloud } from "../cloud.ts";
import { REFUSALS, throttled, unauthenticated } from "./problems.ts";

/** From `Authorization: Key id:secret`. */
export function tokenOf(request: FastifyRequest): string | null {
  return /^Key\s+(\S+)\s*$/i.exec(request.headers.authorization ?? "")?.[1] ?? null;
}

/** Throws where the caller is not let in, or not now. */
export function admit(cloud: Cloud, request: FastifyRequest): void {
  const path = request.url.split("?")[0] ?? "";
  // The keys are public, and the address of an upload is its own permission.
  if (/^\/fal\/rest\/(\.well-known|uploads|files)\//.test(path)) return;
  const token = tokenOf(request);
  if (token === null) throw unauthenticated();
  const { tokens } = cloud.options;
  if (tokens !== null && !tokens.includes(token)) throw REFUSALS.unauthorized();
  const { refusal, resetSeconds } = cloud.limits.take(token, request.method === "POST" ? "creates" : "others");
  if (refusal) throw throttled("header", resetSeconds);
}
