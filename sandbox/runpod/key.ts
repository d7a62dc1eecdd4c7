import type { FastifyRequest } from "fastify";

/** From `Authorization: Bearer KEY`, or the bare key. */
export function keyOf(request: FastifyRequest): string | null {
  return /^(?:Bearer\s+)?(?!Bearer\s*$)(\S+)\s*$/i.exec(request.headers.authorization ?? "")?.[1] ?? null;
}
