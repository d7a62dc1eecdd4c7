import { createHash, randomBytes } from "node:crypto";

const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"; // 32 letters, so that five bits of a byte choose evenly

/** Lower-case base32, as Replicate's prediction ids look (26 characters). */
export function randomId(length = 26): string {
  return Array.from(randomBytes(length), (byte) => ALPHABET.charAt(byte & 31)).join("");
}

export function sha256(text: string | Buffer): string {
  return createHash("sha256").update(text).digest("hex");
}
