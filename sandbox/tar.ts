import { Buffer } from "node:buffer";

const BLOCK = 512; // bytes
const MAX_FILES = 1_000; // of a tar that somebody else made

/** A POSIX tar of a few small files; the same content gives the same bytes. */
export function tar(files: Readonly<Record<string, Buffer>>): Buffer {
  const parts: Buffer[] = [];
  for (const [name, content] of Object.entries(files)) {
    parts.push(header(name, content.length), content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK));
  }
  return Buffer.concat([...parts, Buffer.alloc(BLOCK * 2)]);
}

/** The files of a tar, as far as it can be read; nothing when it is none. */
export function untar(bytes: Buffer): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (let at = 0; at + BLOCK <= bytes.length && files.size < MAX_FILES; ) {
    const block = bytes.subarray(at, at + BLOCK);
    const size = Number.parseInt(block.toString("latin1", 124, 136), 8);
    if (block.toString("latin1", 257, 262) !== "ustar" || !(size >= 0)) break;
    const content = bytes.subarray(at + BLOCK, at + BLOCK + size);
    const kind = block.toString("latin1", 156, 157);
    // Only plain files: names that are too long for their field are kept elsewhere, and folders hold nothing.
    if (content.length === size && (kind === "0" || kind === "\0")) {
      files.set(block.toString("utf8", 0, 100).split("\0")[0] ?? "", content);
    }
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
  }
  return files;
}

function header(name: string, size: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(name, 0, 100);
  block.write("0000644\0", 100);
  block.write("0000000\0", 108);
  block.write("0000000\0", 116);
  block.write(`${size.toString(8).padStart(11, "0")}\0`, 124);
  block.write("00000000000\0", 136);
  block.write("        ", 148); // the checksum counts itself as spaces
  block.write("0", 156);
  block.write("ustar\0", 257);
  block.write("00", 263);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}
