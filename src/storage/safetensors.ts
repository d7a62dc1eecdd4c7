import { type FileHandle, open } from "node:fs/promises";
import { z } from "zod";
import { ArchiveRefused } from "./archive-refused.ts";

/**
 * The format allows 100 MB, which would stop this process for seconds. The header of a LoRA has some hundred bytes per
 * tensor, well under 2 MB in all.
 */
const MAX_HEADER_BYTES = 16_000_000;

/** Bits of one number. Kinds that are not here are taken without counting. */
const DTYPE_BITS: ReadonlyMap<string, number> = new Map([
  ["F64", 64],
  ["I64", 64],
  ["U64", 64],
  ["F32", 32],
  ["I32", 32],
  ["U32", 32],
  ["F16", 16],
  ["BF16", 16],
  ["I16", 16],
  ["U16", 16],
  ["F8_E4M3", 8],
  ["F8_E5M2", 8],
  ["I8", 8],
  ["U8", 8],
  ["BOOL", 8],
]);

const offset = z.number().int().nonnegative();
const TENSOR = z.object({
  dtype: z.string(),
  shape: z.array(offset),
  data_offsets: z.tuple([offset, offset]),
});
const HEADER = z.record(z.string(), z.unknown());

/**
 * Proves that a file is a whole safetensors file: a header of sane length, and tensors that fill the rest of the file to
 * the last byte without gaps or overlaps. Only the header is read; the numbers may still be nonsense. Throws
 * ArchiveRefused ("not_safetensors", or "corrupt" where the file ends too early or late), or what the disk throws.
 */
export async function checkSafetensors(path: string): Promise<void> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    if (size < 10) throw wrong("it is too short");
    const length = Number((await readAt(file, 0, 8)).readBigUInt64LE());
    if (length < 2 || length > MAX_HEADER_BYTES) throw wrong(`its header claims ${length} bytes`);
    if (8 + length > size) throw cutOff();
    checkTensors(parse(await readAt(file, 8, length)), size - 8 - length);
  } finally {
    await file.close();
  }
}

function parse(header: Buffer): Record<string, unknown> {
  try {
    return HEADER.parse(JSON.parse(header.toString("utf8")));
  } catch (error) {
    throw wrong("its header is not a JSON object", error);
  }
}

function checkTensors(header: Record<string, unknown>, dataBytes: number): void {
  const places: [begin: number, end: number][] = [];
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const { success, data: tensor, error } = TENSOR.safeParse(value);
    if (!success) throw wrong(`the tensor ${show(name)} is not described as one`, error);
    const [begin, end] = tensor.data_offsets;
    const bits = DTYPE_BITS.get(tensor.dtype);
    const numbers = tensor.shape.reduce((product, side) => product * side, 1);
    if (end < begin || (bits !== undefined && numbers * bits !== (end - begin) * 8)) {
      throw wrong(`the tensor ${show(name)} has not the size of its shape`);
    }
    places.push([begin, end]);
  }
  if (places.length === 0) throw wrong("it has no tensors");
  places.sort(([a, b], [c, d]) => a - c || b - d);
  let filled = 0;
  for (const [begin, end] of places) {
    if (begin !== filled) throw wrong("its tensors overlap or leave gaps");
    filled = end;
  }
  if (filled !== dataBytes) throw cutOff();
}

async function readAt(file: FileHandle, at: number, length: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, at);
  if (bytesRead < length) throw cutOff();
  return buffer;
}

function wrong(why: string, cause?: unknown): ArchiveRefused {
  return new ArchiveRefused("not_safetensors", `The file is not in the safetensors format: ${why}.`, { cause });
}

function cutOff(): ArchiveRefused {
  return new ArchiveRefused(
    "corrupt",
    "The safetensors file does not end where its last tensor does. Send the whole file.",
  );
}

function show(name: string): string {
  return JSON.stringify(name.slice(0, 80));
}
