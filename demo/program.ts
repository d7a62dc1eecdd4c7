import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { GUARDED } from "../src/db/embedded.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
/** Two seconds on a quiet machine; a CI machine that compiles beside it takes ten times that. */
const READY_MS = 40_000;
/** Readiness itself waits 3 s for a queue that does not answer, and then says so. */
const PROBE_MS = 5_000;
const PROBE_EVERY_MS = 40;
/** Nothing is under way any more when programs are stopped in good order. */
const STOP_MS = 4_000;

export interface Program {
  readonly name: string;
  readonly pid: number;
  readonly logFile: string;
  /** Resolves to how it ended: "exit code 1", "SIGKILL". */
  readonly ended: Promise<string>;
  isRunning(): boolean;
  /** Resolves when the address answers with 200. Throws ProgramFailed when it ends before, or after 40 s. */
  ready(url: string): Promise<void>;
  /** SIGTERM, and after 4 s SIGKILL. May be called more than once. */
  stop(): Promise<void>;
}

export class ProgramFailed extends Error {
  override readonly name = "ProgramFailed";
  readonly logFile: string;
  constructor(message: string, logFile: string) {
    super(message);
    this.logFile = logFile;
  }
}

export interface Launch {
  readonly name: string;
  /** A TypeScript file of this project, or a compiled one, and its arguments. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly logFile: string;
  /** Removed when the program outlives this process for an instant, because this one was killed. */
  readonly folder: string;
}

/**
 * One more process of Node, with its output in a file. It ends with this process, even when that is killed: a
 * newcomer's kill -9 leaves no orphans. It is not in the terminal's group, so Ctrl-C does not end it before its time.
 */
export function launch({ name, args, env, logFile, folder }: Launch): Program {
  const log = openSync(logFile, "w");
  const loader = args[0]?.endsWith(".ts") ? ["--import", "tsx"] : [];
  const child = spawn("/bin/sh", ["-c", GUARDED, folder, process.execPath, ...loader, ...args], {
    cwd: ROOT,
    env,
    detached: true,
    stdio: ["ignore", log, log, "pipe"],
  });
  closeSync(log);
  const lifeline = child.stdio[3];
  const { pid } = child;
  if (pid === undefined || !(lifeline instanceof Writable)) throw new Error(`${name} could not be started`);
  lifeline.on("error", () => {});
  const ended = once(child, "exit").then(([code, signal]) => {
    lifeline.end("ended\n");
    return signal === null ? `exit code ${code}` : String(signal);
  });
  const isRunning = () => child.exitCode === null && child.signalCode === null;

  return {
    name,
    pid,
    logFile,
    ended,
    isRunning,
    async ready(url) {
      const deadline = Date.now() + READY_MS;
      let heard = "nothing answered";
      while (isRunning() && Date.now() < deadline) {
        const answer = await fetch(url, { signal: AbortSignal.timeout(PROBE_MS) }).catch(() => null);
        if (answer?.ok) return;
        if (answer) heard = `${answer.status} ${(await answer.text()).slice(0, 400)}`;
        await sleep(PROBE_EVERY_MS);
      }
      if (!isRunning()) throw new ProgramFailed(`${name} did not start: ${await ended}`, logFile);
      throw new ProgramFailed(`${name} was not ready within ${READY_MS / 1_000} s: ${heard}`, logFile);
    },
    async stop() {
      if (!isRunning()) return;
      child.kill("SIGTERM");
      const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
      await ended;
      clearTimeout(late);
    },
  };
}

/** The end of a log as a person reads it: pino's lines of at least that level, shortened to time, level, message, error. */
export async function lastLines(logFile: string, { least = 0, most = 8 } = {}): Promise<string[]> {
  const text = await readFile(logFile, "utf8").catch(() => "");
  const lines = text.split("\n").filter((line) => line !== "" && (least === 0 || levelOf(line) >= least));
  return lines.slice(-most).map(shorten);
}

const LEVELS: Readonly<Record<number, string>> = { 40: "warn", 50: "error", 60: "fatal" };

function shorten(line: string): string {
  try {
    const { time, level, msg, err } = JSON.parse(line);
    if (typeof time !== "number") return line.slice(0, 300);
    const why = err?.message ? `: ${err.message}` : "";
    return `${new Date(time).toISOString().slice(11, 23)} ${LEVELS[level] ?? "info"} ${msg}${why}`.slice(0, 300);
  } catch {
    return line.slice(0, 300);
  }
}

function levelOf(line: string): number {
  return Number(/^\{"level":(\d+)/.exec(line)?.[1] ?? 0);
}
