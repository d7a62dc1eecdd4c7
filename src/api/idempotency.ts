import { createHash } from "node:crypto";
import { ServiceError } from "../errors.ts";

/**
 * The key of a request that charges. The IETF draft makes it a quoted string; most clients send it bare. Both are
 * taken, and mean the same.
 */
export function idempotencyKey(header: string | string[] | undefined): string {
  const value = (Array.isArray(header) ? header[0] : header)?.trim() ?? "";
  const key = /^"(.*)"$/.exec(value)?.[1] ?? value;
  if (key === "")
    throw new ServiceError(
      "idempotency_key_missing",
      "Send an Idempotency-Key header with a value of your own for this request, such as a UUID or your order number. Sent again with the same key, the request is answered with the same job and charged once.",
    );
  if (!/^[\x21-\x7e]{1,255}$/.test(key))
    throw new ServiceError("malformed_request", "Idempotency-Key must be 1 to 255 visible ASCII characters.");
  return key;
}

/** What a validated body was made of. */
const sent = new WeakMap<object, unknown>();

/** Notes what was sent, for whoever is given what our schema made of it. */
export function noteSent(parsed: unknown, body: unknown): void {
  if (typeof parsed === "object" && parsed !== null) sent.set(parsed, body);
}

/**
 * Of a request as it was sent: what a new release adds to its schema by default does not make an old key's repetition
 * another request. Where it was not sent in this form, of the form itself.
 */
export function sentFingerprint(body: object): string {
  return fingerprint(sent.get(body) ?? body);
}

/** SHA-256 of a value, the same however its members are ordered. */
export function fingerprint(request: unknown): string {
  return createHash("sha256").update(canonical(request)).digest("hex");
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).filter(([, member]) => member !== undefined);
    return `{${members
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`)
      .join(",")}}`;
  }
  return JSON.stringify(value) ?? "null";
}
