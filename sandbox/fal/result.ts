import type { Problem } from "../problem.ts";
import type { Run } from "../run.ts";
import type { FalModel } from "./models.ts";
import { detail, platform, refused } from "./problems.ts";

const TYPES: Readonly<Record<string, string>> = {
  jpg: "image/jpeg",
  png: "image/png",
  webm: "video/webm", // real models answer mp4; see film.ts
};

/** What a run that is over came to: the body of its result, or the error that stands in its place. */
export function resultOf(run: Run, model: FalModel): Readonly<Record<string, unknown>> | Problem {
  const held = run.status === "failed" && /NSFW/.test(run.error ?? "");
  if (run.status === "succeeded" || (held && model.heldBack === "flags")) return output(run, model, held);
  if (run.status === "canceled") return platform(499, "client_cancelled", "Request was cancelled by the client");
  if (run.status === "aborted")
    return platform(504, "request_timeout", "Request timed out", { "x-fal-request-timeout-type": "user" });
  return failure(run.error ?? "", run.values["lora_weights"]);
}

function failure(text: string, weights: unknown): Problem {
  const about = (type: string, field: string | null, words = text) => refused([detail(type, words, field)]);
  if (/NSFW/.test(text))
    return about(
      "content_policy_violation",
      "prompt",
      "The content could not be processed: it was flagged by a content checker.",
    );
  if (/interrupted/i.test(text))
    return platform(503, "runner_disconnected", "Runner disconnected", { "x-fal-retryable": "true" });
  if (/too large/.test(text)) return about("file_too_large", "image_url");
  const isOfWeights = typeof weights === "string" && text.includes(weights.split("?", 1)[0] ?? "");
  if (isOfWeights || /LoRA/.test(text)) return about("file_download_error", "loras");
  if (/^Failed to download|^Invalid (URL|data URI)/.test(text)) return about("file_download_error", "image_url");
  if (/cannot identify image/.test(text)) return about("image_load_error", "image_url");
  if (/mask/.test(text)) return about("value_error", "mask_url");
  const words = text.replace(/ \(E\d+\)$/, "");
  return platform(500, "runner_server_error", words, { "x-fal-retryable": "false" });
}

function output(run: Run, model: FalModel, held: boolean) {
  const { values, seed } = run;
  const files = urlsOf(run).map((url) => {
    const file_name = url.split("/").at(-1) ?? "";
    return { url, content_type: TYPES[file_name.split(".").at(-1) ?? ""] ?? "application/octet-stream", file_name };
  });
  const prompt = run.input["prompt"];
  if (model.makes === "video") return { video: files[0], seed, prompt };
  const { width = null, height = null } = values;
  const count = held ? run.outputCount : files.length;
  return {
    // Black ones, and nobody should want to see them.
    images: held
      ? Array.from({ length: count }, (_, index) => ({ url: `${run.origin}/delivery/${run.folder}/held-${index}.jpg` }))
      : files.map((file) => ({ ...file, width, height })),
    timings: { inference: secondsOf(run) },
    seed,
    has_nsfw_concepts: Array.from({ length: count }, () => held),
    prompt,
  };
}

function urlsOf({ output: made }: Run): readonly string[] {
  if (made === null || (typeof made === "object" && "weights" in made)) return [];
  return typeof made === "string" ? [made] : made;
}

/** Null: it never ran. */
export function secondsOf({ startedAt, completedAt }: Run): number | null {
  if (startedAt === null || completedAt === null) return null;
  return Math.round(completedAt - startedAt) / 1_000;
}
