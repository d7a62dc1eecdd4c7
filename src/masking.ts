/**
 * Takes out of what went over the wire what would open something for whoever reads it: tokens, signatures, the queries of
 * signed addresses, the secret of a run's webhook address. Pictures inside of texts are shortened. Rather too much is
 * hidden than too little.
 */
const HIDDEN = "[hidden]";

/** Members of JSON, by name. `key` alone is one: a provider tells the secret of its webhooks under it. */
const SECRET_MEMBER =
  /"((?:[\w-]{0,40}(?:token|secret|signature|passw|authorization|credential|cookie|api_?-?key|access_?-?key|private_?-?key)[\w-]{0,40})|key)"(\s*:\s*)"(?:[^"\\]|\\.)*"?/gi;
/** Tokens by the look that their makers gave them. */
const TOKEN = /\b(?:r8|hf|rpa|rps|sk|dk|whsec|ghp|gho|key-id)[_-][\w+/=-]{6,}|\bAKIA[A-Z0-9]{12,}/g;
const SCHEME = /\b(Bearer|Basic|Key)\s+[\w.:+/=~-]{6,}/gi;
/** Slashes and ampersands may be escaped, as some print JSON. */
const QUERY = /(https?:(?:\\?\/){2}[^\s"'<>?#]+)[?#][^\s"'<>]+/gi;
const LOGIN = /(https?:(?:\\?\/){2})[^\s"'<>/@]+@/gi;
const AMAZON = /(X-Amz-[\w-]+|Signature|Expires|Key-Pair-Id|Policy)=[^\s"'<>&\\]+/gi;
/** Ours: what follows the run's id is the run's secret. */
const WEBHOOK = /((?:\\?\/)api(?:\\?\/)webhooks(?:\\?\/)[^\s"'/\\]+(?:\\?\/)[^\s"'/\\?]+)(?:\\?\/)[^\s"'?]+/g;
const PICTURE = /(data:[\w.+-]{0,60}\/?[\w.+-]{0,60}(?:;[\w=.+-]{1,60}){0,4},)[\w+/=%-]{40,}/gi;
/** Base64 without the word: a picture in an answer. */
const BASE64 = /[A-Za-z0-9+/]{200,}={0,2}/g;

export interface Masking {
  /** The account's own, whatever they look like. */
  readonly secrets?: readonly string[];
  /** The text goes on: its last word may be the beginning of a secret. */
  readonly isCut?: boolean;
}

export function maskText(text: string, { secrets = [], isCut = false }: Masking = {}): string {
  const known = secrets.filter((secret) => secret.length >= 6);
  const whole = isCut ? text.replace(/[^\s",{}[\]]*$/, "") : text;
  return known
    .reduce((rest, secret) => rest.replaceAll(secret, HIDDEN), whole)
    .replace(PICTURE, (picture, head: string) => `${head}… (${picture.length - head.length} characters)`)
    .replace(WEBHOOK, "$1/…")
    .replace(QUERY, "$1?…")
    .replace(LOGIN, "$1")
    .replace(AMAZON, `$1=${HIDDEN}`)
    .replace(SECRET_MEMBER, `"$1"$2"${HIDDEN}"`)
    .replace(SCHEME, `$1 ${HIDDEN}`)
    .replace(TOKEN, HIDDEN)
    .replace(BASE64, (run) => `… (${run.length} characters)`);
}

/** The path, and of the query its names; numbers stay, for they are pages and limits. */
export function maskAddress(url: string, masking: Masking = {}): string {
  if (!URL.canParse(url)) return maskText(url, masking);
  const { pathname, searchParams } = new URL(url);
  const query = [...searchParams].map(([name, value]) => `${name}=${/^\d{1,6}$/.test(value) ? value : "…"}`);
  return maskText(pathname, masking) + (query.length > 0 ? `?${query.join("&")}` : "");
}
