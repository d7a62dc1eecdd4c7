import type { Job } from "./client.ts";
import type { Terminal } from "./terminal.ts";

const DRAW_EVERY_MS = 100;
const WIDEST_BAR = 34;
/** Name, percent, status, seconds and the spaces between. */
const BESIDE_BAR = 42;

type Status = Job["status"];

export interface Row {
  readonly name: string;
  status: Status;
  /** 0..1 */
  done: number;
  /** Milliseconds since it was submitted; stands still when it has ended. */
  elapsedMs: number;
}

export interface Progress {
  update(name: string, job: Pick<Job, "status" | "progress">): void;
  /** A line of its own, above the bars. */
  note(line: string): void;
  /** What has not ended. */
  unfinished(): readonly Row[];
  /** Leaves the bars as they are and the cursor below them. May be called more than once. */
  close(): void;
}

/** One line for each job: drawn over where that is possible, otherwise one line whenever something changed. */
export function showProgress(terminal: Terminal, names: readonly string[]): Progress {
  const startedAt = performance.now();
  const rows = names.map((name): Row => ({ name, status: "pending", done: 0, elapsedMs: 0 }));
  let drawn = 0;
  let closed = false;

  const erase = () => {
    if (drawn > 0) terminal.write(`\x1b[${drawn}A\x1b[J`);
    drawn = 0;
  };
  const draw = () => {
    if (!terminal.live || closed) return;
    const now = performance.now() - startedAt;
    for (const row of rows) if (!isEnded(row.status)) row.elapsedMs = now;
    erase();
    terminal.write(rows.map((row) => `${bar(row, terminal)}\n`).join(""));
    drawn = rows.length;
  };
  const timer = terminal.live ? setInterval(draw, DRAW_EVERY_MS) : null;
  if (terminal.live) terminal.write("\x1b[?25l");
  draw();

  return {
    update(name, job) {
      const row = rows.find((each) => each.name === name);
      if (!row || closed || isEnded(row.status)) return;
      const before = line(row);
      Object.assign(row, { status: job.status, done: isEnded(job.status) ? 1 : job.progress });
      row.elapsedMs = performance.now() - startedAt;
      if (!terminal.live && line(row) !== before) terminal.print(`  ${seconds(row).padStart(6)}  ${line(row)}`);
      if (isEnded(job.status)) draw();
    },
    note(text) {
      erase();
      terminal.print(text);
      draw();
    },
    unfinished: () => rows.filter((row) => !isEnded(row.status)),
    close() {
      if (closed) return;
      draw();
      drawn = 0;
      closed = true;
      if (timer) clearInterval(timer);
      if (terminal.live) terminal.write("\x1b[?25h");
    },
  };
}

export function isEnded(status: Status): boolean {
  return status === "completed" || status === "failed" || status === "canceled";
}

/** One row, never wider than the terminal. */
function bar(row: Row, terminal: Pick<Terminal, "columns" | "paint">): string {
  const width = Math.max(4, Math.min(WIDEST_BAR, terminal.columns() - BESIDE_BAR));
  const full = Math.round(row.done * width);
  const colour = row.status === "completed" ? "green" : isEnded(row.status) ? "yellow" : "cyan";
  return [
    `  ${row.name.padEnd(10)}`,
    `${terminal.paint(colour, "█".repeat(full))}${terminal.paint("dim", "░".repeat(width - full))}`,
    `${Math.round(row.done * 100)}%`.padStart(4),
    terminal.paint(isEnded(row.status) ? colour : "dim", row.status.padEnd(10)),
    seconds(row).padStart(7),
  ].join("  ");
}

function line(row: Row): string {
  return `${row.name.padEnd(10)}  ${row.status.padEnd(10)} ${`${Math.round(row.done * 100)}%`.padStart(4)}`;
}

function seconds(row: Row): string {
  return `${(row.elapsedMs / 1_000).toFixed(1)} s`;
}
