const MAX_KEY_BYTES = 512;
/** What every file system takes as one name. */
const MAX_NAME_BYTES = 255;

/** The longest life of a signed URL that every store allows: 7 days. */
const MAX_TTL_SECONDS = 604_800;

/** Keys are made by us, so a bad one is a bug of ours: loud, and before anything is touched. Returns the key. */
export function checkKey(key: string): string {
  const fault = faultOf(key);
  if (fault) throw new Error(`Storage key ${JSON.stringify(key.slice(0, 80))} is refused: ${fault}`);
  return key;
}

export function checkTtl(seconds: number): void {
  if (Number.isInteger(seconds) && seconds >= 1 && seconds <= MAX_TTL_SECONDS) return;
  throw new RangeError(`A signed URL lives 1 to ${MAX_TTL_SECONDS} whole seconds; ${seconds} was asked for.`);
}

function faultOf(key: string): string | null {
  if (!/^[A-Za-z0-9._/-]+$/.test(key)) return "only A-Z a-z 0-9 . _ / - are allowed.";
  if (key.length > MAX_KEY_BYTES) return `it is longer than ${MAX_KEY_BYTES} bytes.`;
  if (key.includes("..")) return 'it contains "..".';
  for (const name of key.split("/")) {
    if (name === "") return "it is absolute, ends in a slash, or has an empty part.";
    if (name === ".") return 'it has a part ".".';
    if (name.length > MAX_NAME_BYTES) return `a part of it is longer than ${MAX_NAME_BYTES} bytes.`;
  }
  return null;
}
