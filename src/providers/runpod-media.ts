/** Where workers put what they made, the most telling first. */
const PLACES = ["image_url", "video_url", "images", "videos", "image", "video", "result", "output", "url"] as const;
/** An output inside of lists inside of an output: deeper is nobody's. */
const MOST_DEPTH = 4;
/** Characters of base64 that hold what tells one format from another. */
const HEAD = 64;

/**
 * The outputs of a job, whatever shape its worker gives them: URLs, data URLs, base64, lists of them, or objects such as
 * {image_url}, {video_url}, {images: [{type: "base64" | "s3_url", data, filename}]}, {image}. As URLs, base64 as `data:`
 * URLs. Empty when there is none, or when a list holds something else too: half of what was bought is not what was bought.
 */
export function mediaIn(value: unknown, depth = MOST_DEPTH): string[] {
  if (typeof value === "string") return urlOf(value, null);
  if (typeof value !== "object" || value === null || depth === 0) return [];
  if (Array.isArray(value)) {
    const found = value.map((each: unknown) => mediaIn(each, depth - 1));
    return found.some(({ length }) => length === 0) ? [] : found.flat();
  }
  if ("data" in value && typeof value.data === "string" && "type" in value)
    // The worker says that these are bytes; of what, is for whoever stores them to say.
    return urlOf(value.data, value.type === "base64" ? "application/octet-stream" : null);
  const members: Readonly<Record<string, unknown>> = { ...value };
  for (const place of PLACES) {
    const found = mediaIn(members[place], depth - 1);
    if (found.length > 0) return found;
  }
  return [];
}

function urlOf(text: string, otherwise: string | null): string[] {
  if (/^(https?:\/\/|data:)/.test(text)) return [text];
  const base64 = text.replaceAll(/\s/g, "");
  if (base64 === "" || !/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return [];
  const type = typeOf(Buffer.from(base64.slice(0, HEAD), "base64")) ?? otherwise;
  return type === null ? [] : [`data:${type};base64,${base64}`];
}

/** By their first bytes; null for anything that is neither picture nor film. */
function typeOf(head: Buffer): string | null {
  const text = (from: number, to: number) => head.toString("latin1", from, to);
  if (text(0, 4) === "\x89PNG") return "image/png";
  if (text(0, 3) === "\xff\xd8\xff") return "image/jpeg";
  if (text(0, 4) === "RIFF" && text(8, 12) === "WEBP") return "image/webp";
  if (text(0, 4) === "GIF8") return "image/gif";
  if (text(4, 8) === "ftyp") return "video/mp4";
  if (text(0, 4) === "\x1a\x45\xdf\xa3") return "video/webm";
  return null;
}
