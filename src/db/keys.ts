import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { and, eq, gt, isNull, or, sql } from "drizzle-orm";
import type { Db } from "./client.ts";
import { apiKeys } from "./schema.ts";

/** `dk_<id>_<secret>`: the prefix lets scanners find leaked keys, the id finds the row, the secret has 256 random bits. */
const KEY = /^dk_([0-9a-z]{12})_([A-Za-z0-9_-]{43})$/;

export interface KeyOwner {
  readonly keyId: string;
  readonly appId: string;
}

/** Makes a key for an app and returns it; it cannot be read again. */
export async function createKey(db: Db, appId: string, name: string): Promise<string> {
  const id = BigInt(`0x${randomBytes(8).toString("hex")}`)
    .toString(36)
    .padStart(12, "0")
    .slice(-12);
  const secret = randomBytes(32).toString("base64url");
  await db.insert(apiKeys).values({ id, appId, name, secretHash: hash(secret) });
  return `dk_${id}_${secret}`;
}

/** False: no such key, or revoked before. A revoked key is refused within a minute everywhere (see api/auth.ts). */
export async function revokeKey(db: Db, id: string): Promise<boolean> {
  const rows = await db
    .update(apiKeys)
    .set({ revokedAt: sql`now()` })
    .where(and(eq(apiKeys.id, id), isNull(apiKeys.revokedAt)))
    .returning({ id: apiKeys.id });
  return rows.length > 0;
}

export async function listKeys(
  db: Db,
): Promise<{ id: string; appId: string; name: string; createdAt: Date; revokedAt: Date | null }[]> {
  const { id, appId, name, createdAt, revokedAt } = apiKeys;
  return db.select({ id, appId, name, createdAt, revokedAt }).from(apiKeys).orderBy(createdAt);
}

/** Whose key it is; null for one that is malformed, unknown, expired or revoked. */
export async function findKeyOwner(db: Db, key: string): Promise<KeyOwner | null> {
  const [, id, secret] = KEY.exec(key) ?? [];
  if (!id || !secret) return null;
  const [row] = await db
    .select()
    .from(apiKeys)
    .where(
      and(
        eq(apiKeys.id, id),
        isNull(apiKeys.revokedAt),
        or(isNull(apiKeys.expiresAt), gt(apiKeys.expiresAt, sql`now()`)),
      ),
    );
  return row && timingSafeEqual(row.secretHash, hash(secret)) ? { keyId: id, appId: row.appId } : null;
}

function hash(secret: string): Buffer {
  return createHash("sha256").update(secret).digest();
}
