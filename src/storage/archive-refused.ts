export type ArchiveRefusal =
  | "not_a_zip"
  | "not_a_tar"
  | "not_safetensors"
  | "corrupt"
  | "encrypted"
  | "unsupported"
  | "unsafe_name"
  | "duplicate_name"
  | "nested_archive"
  | "symlink"
  | "too_many_entries"
  | "entry_too_large"
  | "total_too_large"
  | "bomb";

/** The message is for whoever sent the archive: what is wrong, and what to do. */
export class ArchiveRefused extends Error {
  override readonly name = "ArchiveRefused";
  readonly code: ArchiveRefusal;
  constructor(code: ArchiveRefusal, message: string, options: { cause?: unknown } = {}) {
    super(message, options);
    this.code = code;
  }
}
