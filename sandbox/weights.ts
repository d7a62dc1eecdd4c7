import { createHash } from "node:crypto";
import { z } from "zod";
import type { Run } from "./run.ts";
import { tar } from "./tar.ts";

const RANK = 16;
const WIDTH = 64;

/** A training's trained_model.tar: a real tar with a real, very small safetensors file in it. */
export function weightsOf(run: Run): Buffer {
  if (run.model === "stability-ai/sdxl") {
    return tar({
      "lora.safetensors": safetensors(run.id),
      "special_params.json": Buffer.from(JSON.stringify({ [String(run.values["token_string"] ?? "TOK")]: "<s0><s1>" })),
    });
  }
  return tar({
    "flux-lora/lora.safetensors": safetensors(run.id),
    "flux-lora/config.yaml": Buffer.from(`# made by the sandbox\njob: extension\nname: ${run.destination}\n`),
  });
}

/** Eight bytes of header length, a JSON header, then the numbers: 16-bit floats that only the id decides. */
function safetensors(id: string): Buffer {
  const bytes = RANK * WIDTH * 2;
  const tensor = (at: number) => ({ dtype: "F16", shape: [RANK, WIDTH], data_offsets: [at, at + bytes] });
  const header = JSON.stringify({
    __metadata__: { format: "pt", made_by: "sandbox" },
    "transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": tensor(0),
    "transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight": tensor(bytes),
  });
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const numbers = createHash("shake256", { outputLength: bytes * 2 })
    .update(id)
    .digest();
  // 0x2c.. to 0x2f..: half floats of about a sixteenth, so that no reader meets a NaN.
  for (let at = 1; at < numbers.length; at += 2) numbers[at] = 0x2c | ((numbers[at] ?? 0) & 0x83);
  return Buffer.concat([length, Buffer.from(header), numbers]);
}

const LENGTH_BYTES = 8;
const MAX_HEADER_BYTES = 100_000_000; // as the safetensors library has it
const header = z.record(z.string(), z.unknown());
const tensor = z.object({ data_offsets: z.tuple([z.number().int().min(0), z.number().int().min(0)]) });

/** True for a file whose header can be read and whose tensors all lie within it. */
export function isSafetensors(bytes: Buffer): boolean {
  if (bytes.length < LENGTH_BYTES) return false;
  const length = Number(bytes.readBigUInt64LE());
  if (length > MAX_HEADER_BYTES || LENGTH_BYTES + length > bytes.length) return false;
  try {
    const tensors = header.parse(JSON.parse(bytes.toString("utf8", LENGTH_BYTES, LENGTH_BYTES + length)));
    const room = bytes.length - LENGTH_BYTES - length;
    return Object.entries(tensors).every(([name, value]) => {
      if (name === "__metadata__") return true;
      const [from, to] = tensor.parse(value).data_offsets;
      return from <= to && to <= room;
    });
  } catch {
    return false;
  }
}
