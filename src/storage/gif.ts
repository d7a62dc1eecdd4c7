const EXTENSION = 0x21;
const IMAGE = 0x2c;
const TRAILER = 0x3b;

/**
 * Whether a GIF reaches its trailer. The decoder does not tell: it takes the frames that are there, so an animation that
 * was cut off looks like a shorter one, or like a still picture.
 */
export function isWholeGif(bytes: Buffer): boolean {
  // Beyond the end every read gives 0, which is no block, so the walk ends there.
  const byte = (at: number) => bytes[at] ?? 0;
  /** A colour table follows where bit 7 is set; bits 0-2 give its size. */
  const tableSize = (flags: number) => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);

  let at = 13 + tableSize(byte(10));
  for (;;) {
    switch (byte(at)) {
      case TRAILER:
        return true;
      case IMAGE:
        // Position and size, colour table, one byte of code size; then the pixels.
        at += 11 + tableSize(byte(at + 9));
        break;
      case EXTENSION:
        at += 2;
        break;
      default:
        return false;
    }
    // Data comes in pieces that start with their length; a length of 0 ends it.
    while (byte(at) !== 0) at += byte(at) + 1;
    at += 1;
  }
}
