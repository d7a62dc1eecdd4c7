import { styleText } from "node:util";

export const MOST_COLUMNS = 80;

/** Where lines go, and what it can show. */
export interface Terminal {
  /** Lines can be drawn over. */
  readonly live: boolean;
  columns(): number;
  write(text: string): void;
  print(line?: string): void;
  paint(style: "green" | "red" | "yellow" | "cyan" | "dim" | "bold", text: string): string;
}

export function makeTerminal(stream: NodeJS.WriteStream, env: Readonly<Record<string, string | undefined>>): Terminal {
  const live = stream.isTTY === true && env["TERM"] !== "dumb";
  // https://no-color.org: present and not empty.
  const colours = live && !env["NO_COLOR"];
  return {
    live,
    // One less than there are: a full line wraps in some terminals. `script` and some CI say 0.
    columns: () => Math.min(MOST_COLUMNS, (stream.columns || MOST_COLUMNS) - (stream.columns ? 1 : 0)),
    write: (text) => void stream.write(text),
    print: (line = "") => void stream.write(`${line}\n`),
    paint: (style, text) => (colours ? styleText(style, text, { validateStream: false }) : text),
  };
}
