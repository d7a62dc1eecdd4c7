import { createHmac, timingSafeEqual } from "node:crypto";
import type { Clock } from "./clock.ts";
import { randomId, sha256 } from "./id.ts";
import type { Shelf } from "./shelf.ts";

export interface Upload {
  readonly id: string;
  readonly filename: string;
  readonly contentType: string;
  readonly size: number;
  readonly sha256: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly createdAt: number;
  readonly expiresAt: number;
}

const MAX_UPLOADS = 10_000; // files; the shelf bounds their bytes

export type Uploads = ReturnType<typeof makeUploads>;

/** What callers uploaded through /v1/files, each for a day. */
export function makeUploads(shelf: Shelf, clock: Clock, keptMs: number, account: string, secret: string) {
  const uploads = new Map<string, Upload>();

  function get(id: string): Upload | undefined {
    const upload = uploads.get(id);
    return upload && clock.now() < upload.expiresAt ? upload : undefined;
  }

  async function remove(id: string): Promise<boolean> {
    const known = get(id) !== undefined;
    uploads.delete(id);
    await shelf.remove(id);
    return known;
  }

  return {
    get,
    remove,

    async add(
      bytes: Buffer,
      about: { filename: string; contentType: string; metadata: Record<string, unknown> },
    ): Promise<Upload> {
      const id = randomId();
      const createdAt = clock.now();
      const upload = {
        ...about,
        id,
        size: bytes.length,
        sha256: sha256(bytes),
        createdAt,
        expiresAt: createdAt + keptMs,
      };
      await shelf.put(id, bytes);
      uploads.set(id, upload);
      const oldest = uploads.keys().next().value;
      if (uploads.size > MAX_UPLOADS && oldest !== undefined) await remove(oldest);
      return upload;
    },

    list(): Upload[] {
      return [...uploads.values()].filter(({ id }) => get(id)).reverse();
    },

    async read(id: string): Promise<Buffer | null> {
      return get(id) ? shelf.get(id) : null;
    },

    /** Checks a download link: HMAC over "owner id expiry" with the account's files secret, not yet expired. */
    opens(id: string, owner: string, expiry: number, signature: string): boolean {
      const expected = createHmac("sha256", secret).update(`${owner} ${id} ${expiry}`).digest();
      const given = Buffer.from(signature, "base64");
      const signed = given.length === expected.length && timingSafeEqual(given, expected);
      return signed && owner === account && expiry * 1_000 > clock.now();
    },
  };
}
