import { createWriteStream } from "node:fs";
import { finished } from "node:stream/promises";

/** What was called and what came of it, one JSON line each, written down as it happens. */
export interface History {
  note(line: object): void;
  close(): Promise<void>;
}

export function openHistory(path: string): History {
  const paper = createWriteStream(path, { flags: "a" });
  return {
    // A call that was under way when the run was halted may still come to an end.
    note: (line) =>
      void (paper.writable && paper.write(`${JSON.stringify({ at: new Date().toISOString(), ...line })}\n`)),
    async close() {
      paper.end();
      await finished(paper);
    },
  };
}
