import type { Scheme } from "./standard-webhook.ts";

/** Anybody can sign with next to nothing. */
const LEAST_KEY_CHARACTERS = 16;

/**
 * WaveSpeed's signatures: the headers and the signed text of Standard Webhooks, but in hexadecimal digits and with the
 * letters behind "whsec_" as the key, not what they decode to.
 */
export const WAVESPEED_V3: Scheme = {
  version: "v3",
  form: /^[0-9a-f]{64}$/i,
  encoding: "hex",
  keyOf: waveSpeedKeyOf,
};

export function waveSpeedKeyOf(secret: string): string {
  const key = secret.replace(/^whsec_/, "");
  if (key.length < LEAST_KEY_CHARACTERS)
    throw new Error(`A webhook secret of WaveSpeed is whsec_ and at least ${LEAST_KEY_CHARACTERS} characters.`);
  return key;
}
