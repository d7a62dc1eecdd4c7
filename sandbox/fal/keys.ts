import { createPrivateKey, createPublicKey, type KeyObject } from "node:crypto";

/** PKCS #8 around the 32 bytes of an Ed25519 private key. */
const WRAP = Buffer.from("302e020100300506032b657004220420", "hex");

function keyFrom(seed: Buffer): KeyObject {
  return createPrivateKey({ key: Buffer.concat([WRAP, seed]), format: "der", type: "pkcs8" });
}

/** Nothing is secret about them: the bytes 0 to 31, so that the published test vector is signed by it. */
export const KEY = keyFrom(Buffer.from(Array.from({ length: 32 }, (_, index) => index)));
/** Published too, and used while one key replaces the other. */
export const NEXT_KEY = keyFrom(Buffer.alloc(32, 1));
export const FORGED_KEY = keyFrom(Buffer.alloc(32, 2));

export function jwks() {
  const published = [KEY, NEXT_KEY].map((key, index) => {
    const { x } = createPublicKey(key).export({ format: "jwk" });
    return { kty: "OKP", crv: "Ed25519", x, kid: `sandbox-${index + 1}`, use: "sig" };
  });
  return { keys: published };
}
