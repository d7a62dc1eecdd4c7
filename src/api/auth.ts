import type { FastifyRequest } from "fastify";
import type { Db } from "../db/client.ts";
import { findKeyOwner, type KeyOwner } from "../db/keys.ts";
import { ServiceError } from "../errors.ts";

/** A revoked key may still be taken for this long; saves a query per request. */
const CACHE_MS = 30_000;
const CACHE_SIZE = 1_000;

export type Authenticate = (request: FastifyRequest) => Promise<KeyOwner>;

/** Whose request it is, by its `Authorization: Bearer dk_…` header. */
export function makeAuthenticate(db: Db): Authenticate {
  const known = new Map<string, { owner: KeyOwner; until: number }>();
  return async (request) => {
    const [scheme, key] = (request.headers.authorization ?? "").split(" ");
    if (scheme?.toLowerCase() !== "bearer" || !key)
      throw new ServiceError(
        "unauthenticated",
        "Send the API key as `Authorization: Bearer dk_…`. Make one with `npm run keys -- create --app <app>`.",
      );
    const cached = known.get(key);
    if (cached && cached.until > Date.now()) return cached.owner;
    known.delete(key);
    const owner = await findKeyOwner(db, key);
    if (!owner)
      throw new ServiceError(
        "unauthenticated",
        "This API key is unknown, expired or revoked. Make one with `npm run keys -- create --app <app>`.",
      );
    if (known.size >= CACHE_SIZE) known.clear();
    known.set(key, { owner, until: Date.now() + CACHE_MS });
    return owner;
  };
}
