import { type Bound, type Downloads, RunFailure } from "./download.ts";
import type { Values } from "./field.ts";
import { sha256 } from "./id.ts";
import type { Models } from "./models.ts";
import { untar } from "./tar.ts";
import { isSafetensors } from "./weights.ts";

const WEIGHTS: Bound = { what: "The file of LoRA weights", megabytes: 64, ms: 30_000 };

/** What a run's LoRA does to its pictures. */
export interface Lora {
  /** The same weights have the same mark, from wherever they were read. */
  readonly mark: string;
  readonly scale: number;
}

export type Loras = ReturnType<typeof makeLoras>;

/** Reads the weights that an input names, as Flux (`lora_weights`) and SDXL (`replicate_weights`) do. */
export function makeLoras(downloads: Downloads, models: Models) {
  return {
    /** Null when the run asks for none. Throws RunFailure. */
    async read(values: Values, signal: AbortSignal): Promise<Lora | null> {
      const flux = asked(values["lora_weights"]);
      const reference = flux ?? asked(values["replicate_weights"]);
      if (reference === null) return null;
      const given = values["lora_scale"];
      const scale = typeof given === "number" ? given : 1;
      return { mark: await markOf(reference, flux === null, signal), scale };
    },
  };

  async function markOf(reference: string, packed: boolean, signal: AbortSignal): Promise<string> {
    // There is no way to look from here, and a demo should be able to name one.
    if (/^(https?:\/\/)?huggingface\.co\/[^/]+\/./i.test(reference)) return sha256(reference);
    if (/^https?:\/\//i.test(reference)) {
      const bytes = await downloads.bytes(reference, WEIGHTS, signal);
      // SDXL takes the trainer's whole TAR only: its trigger word is in a file beside the weights.
      const found = packed ? unpacked(bytes) : bytes;
      if (found && isSafetensors(found)) return sha256(found);
      const error = packed ? "neither a tar with safetensors nor safetensors" : "Error while deserializing header";
      throw new RunFailure(`Failed to load LoRA weights: SafetensorError: ${error}`);
    }
    const [owner = "", name = "", version, ...more] = reference.split("/");
    const found = packed || more.length > 0 ? undefined : models.version(`${owner}/${name}`, version);
    if (found) return sha256(found.id);
    throw new RunFailure(`Failed to load LoRA weights: '${reference.slice(0, 200)}' was not found`);
  }
}

function asked(value: Values[string]): string | null {
  return typeof value === "string" && value.trim() !== "" ? value.trim() : null;
}

/** The first safetensors file in a trained_model.tar. */
function unpacked(bytes: Buffer): Buffer | undefined {
  for (const [name, content] of untar(bytes)) if (name.endsWith(".safetensors")) return content;
  return undefined;
}
