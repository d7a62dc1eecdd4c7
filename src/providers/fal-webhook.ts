import { createHash, createPublicKey, type KeyObject, verify } from "node:crypto";
import { z } from "zod";

/** Both ways, as the provider says. */
const TOLERANCE_SECONDS = 300;
/** The provider allows its keys to be kept for so long, and no longer. */
const FRESH_MS = 24 * 60 * 60_000;
/** Anybody can send us a bad signature, and must not make us ask the provider each time. */
const RENEW_MS = 60_000;
/** While there is no key every delivery is refused, so they are asked for sooner. */
const FIRST_RENEW_MS = 5_000;
const MAX_KEYS = 20;

type Verdict =
  | { readonly verdict: "genuine" }
  /** Each reason tells what to look at. */
  | { readonly verdict: "unsigned" | "stale" | "forged" | "unverifiable"; readonly reason: string };

/**
 * fal's own scheme: an Ed25519 signature, in hex, of four lines: request id, user id, Unix seconds, and the SHA-256 of
 * the body as it came. Several keys may be valid at once. They are asked for only by what is signed and recent.
 */
export async function checkFalWebhook(
  headers: Readonly<Record<string, string | undefined>>,
  rawBody: string,
  keys: FalKeys,
  now: Date,
): Promise<Verdict> {
  const requestId = headers["x-fal-webhook-request-id"];
  const userId = headers["x-fal-webhook-user-id"];
  const timestamp = headers["x-fal-webhook-timestamp"];
  const signature = headers["x-fal-webhook-signature"];
  if (!requestId || !userId || !timestamp || !signature || !/^\d{1,12}$/.test(timestamp))
    return {
      verdict: "unsigned",
      reason:
        "x-fal-webhook-request-id, -user-id, -timestamp (Unix seconds) and -signature are required. " +
        "Either the sender is not the provider, or a proxy in front of us strips these headers.",
    };

  const age = Math.floor(now.getTime() / 1_000) - Number(timestamp);
  if (Math.abs(age) > TOLERANCE_SECONDS)
    return {
      verdict: "stale",
      reason:
        `signed ${Math.abs(age)} s in the ${age > 0 ? "past" : "future"}; at most ${TOLERANCE_SECONDS} s are accepted. ` +
        "Either it is a replay, or this host's clock is wrong: check NTP.",
    };

  const digest = createHash("sha256").update(rawBody).digest("hex");
  const message = Buffer.from([requestId, userId, timestamp, digest].join("\n"));
  // Node reads hex up to the first character that is none: what is not all hex is no signature.
  const mark = /^[0-9a-f]{128}$/i.test(signature) ? Buffer.from(signature, "hex") : null;
  const fits = (known: readonly KeyObject[]) => mark !== null && known.some((key) => verify(null, message, key, mark));
  if (fits(await keys.known())) return { verdict: "genuine" };
  if (mark !== null && (await keys.renew()) && fits(await keys.known())) return { verdict: "genuine" };
  if ((await keys.known()).length === 0)
    return { verdict: "unverifiable", reason: "the provider did not tell its keys: see whether it can be reached." };
  return {
    verdict: "forged",
    reason:
      "no key that the provider publishes fits the signature. Either it is forged, or something in front of us " +
      "rewrites the body.",
  };
}

interface FalKeys {
  /** All that are valid now, asked for when there are none of the last 24 h; empty while the provider does not tell. */
  known(): Promise<readonly KeyObject[]>;
  /** To be called when nothing known fits. True when the provider was asked, so that it is worth a second look. */
  renew(): Promise<boolean>;
}

const Jwks = z.object({ keys: z.array(z.unknown()).max(1_000) });
const Jwk = z.object({ kty: z.literal("OKP"), crv: z.literal("Ed25519"), x: z.string().max(100) });

/** `fetch` answers the JWKS as it was parsed, or throws. */
export function makeFalKeys(options: {
  fetch(): Promise<unknown>;
  readonly clock: () => Date;
  readonly onStrange: (what: string) => void;
}): FalKeys {
  const { fetch, clock, onStrange } = options;
  let keys: readonly KeyObject[] = [];
  let readAt = Number.NEGATIVE_INFINITY;
  let askedAt = Number.NEGATIVE_INFINITY;
  let asking: Promise<void> | null = null;

  // Both ways: a clock that was ahead and is set right must not keep us waiting, or old keys good, until then.
  const awayFrom = (time: number) => Math.abs(clock().getTime() - time);
  const isFresh = () => keys.length > 0 && awayFrom(readAt) < FRESH_MS;

  async function ask(): Promise<void> {
    askedAt = clock().getTime();
    try {
      const read = keysIn(await fetch());
      if (read.length === 0) throw new Error("no Ed25519 key in it");
      keys = read;
      readAt = clock().getTime();
    } catch (error) {
      onStrange(`webhook keys not fetched: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async function renew(): Promise<boolean> {
    const pauseMs = isFresh() ? RENEW_MS : FIRST_RENEW_MS;
    if (asking === null && awayFrom(askedAt) < pauseMs) return false;
    asking ??= ask().finally(() => {
      asking = null;
    });
    await asking;
    return true;
  }

  return {
    async known() {
      if (!isFresh()) await renew();
      return isFresh() ? keys : [];
    },
    renew,
  };
}

/** Keys of other kinds may stand among them. */
function keysIn(jwks: unknown): KeyObject[] {
  return Jwks.parse(jwks)
    .keys.slice(0, MAX_KEYS)
    .flatMap((entry) => {
      const { data: key } = Jwk.safeParse(entry);
      if (!key) return [];
      try {
        return [createPublicKey({ key, format: "jwk" })];
      } catch {
        return [];
      }
    });
}
