import type { Ask } from "./ask.ts";
import { FLUX_RATIOS, nearestAspectRatio } from "./replicate-inputs.ts";

/**
 * How an ask is written for a bot of Poe: one message, and the bot's own parameters beside it. Poe ignores seeds, so
 * none is sent. Source: creator.poe.com, OpenAI-compatible API, 2026-11.
 */
type Input = Readonly<Record<string, unknown>>;

/** Words to a picture. */
export function poePicture(ask: Ask): Input {
  const { width = 1_024, height = 1_024 } = ask;
  return { messages: said(ask), aspect_ratio: nearestAspectRatio(width, height, FLUX_RATIOS) };
}

/** A picture, changed as it is told. Its shape stays. */
export function poeEdit(ask: Ask): Input {
  return { messages: said(ask) };
}

/** A film from words or a picture; a picture brings its own shape. */
export function poeFilm(ask: Ask): Input {
  return {
    messages: said(ask),
    ...(ask.seconds !== undefined && { duration: ask.seconds }),
    ...(ask.image === undefined && ask.aspectRatio !== undefined && { aspect_ratio: ask.aspectRatio }),
  };
}

function said({ prompt = "", image }: Ask): readonly Input[] {
  if (image === undefined) return [{ role: "user", content: prompt }];
  const content = [
    { type: "text", text: prompt },
    { type: "image_url", image_url: { url: image } },
  ];
  return [{ role: "user", content }];
}
