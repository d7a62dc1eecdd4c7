import { setTimeout as sleep } from "node:timers/promises";
import { launch, type Program } from "../demo/program.ts";

/** A supervisor of a container host is slower; what is tested is not the supervisor. */
const RESPAWN_MS = 300;

/** One program of the cluster, started again whenever it ends, on the same port. */
export interface Member {
  readonly name: string;
  /** Answered that it is ready, and neither died nor stands still since. */
  isUp(): boolean;
  /** SIGKILL; returns the pid that had it. */
  kill(): number | null;
  /** SIGSTOP, and SIGCONT after so long; returns the pid. */
  stop(forMs: number): number | null;
  resume(): void;
  /** Resolves when it is up; rejects after so long. */
  up(withinMs: number): Promise<void>;
  /** Ends it for good. May be called more than once. */
  end(): Promise<void>;
  /** Ends that nobody ordered, of a program that had been ready. */
  readonly crashes: readonly string[];
  /** How often it did not become ready: something was broken at that moment. */
  failedStarts(): number;
}

export interface MemberOptions {
  readonly name: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly readyUrl: string;
  /** Of the log of its n-th life. */
  logFile(life: number): string;
  readonly folder: string;
}

export function makeMember({ name, args, env, readyUrl, logFile, folder }: MemberOptions): Member {
  const crashes: string[] = [];
  let failedStarts = 0;
  let current: Program | null = null;
  let ready = false;
  let stopped: NodeJS.Timeout | null = null;
  /** What we killed ourselves did not crash. */
  let killed: Program | null = null;
  let ended = false;

  async function live(): Promise<void> {
    for (let life = 1; !ended; life++) {
      const program = launch({ name, args, env, logFile: logFile(life), folder });
      current = program;
      ready = await program.ready(readyUrl).then(
        () => program.isRunning(),
        () => false,
      );
      // Forty seconds, and neither ready nor dead: a supervisor gives up on it.
      if (!ready && program.isRunning()) signal("SIGKILL");
      const wasReady = ready;
      const how = await program.ended;
      ready = false;
      if (ended) return;
      if (killed !== program && wasReady) crashes.push(`${name} (pid ${program.pid}) ended by itself: ${how}`);
      if (killed !== program && !wasReady) failedStarts++;
      await sleep(RESPAWN_MS);
    }
  }

  function signal(which: NodeJS.Signals): number | null {
    if (!current?.isRunning()) return null;
    try {
      process.kill(current.pid, which);
      return current.pid;
    } catch {
      return null; // It ended this instant.
    }
  }

  function resume(): void {
    if (stopped === null) return;
    clearTimeout(stopped);
    stopped = null;
    signal("SIGCONT");
  }

  const living = live();
  return {
    name,
    crashes,
    failedStarts: () => failedStarts,
    isUp: () => ready && stopped === null,
    resume,
    kill() {
      killed = current;
      ready = false;
      return signal("SIGKILL");
    },
    stop(forMs) {
      stopped = setTimeout(resume, forMs);
      return signal("SIGSTOP");
    },
    async up(withinMs) {
      const deadline = performance.now() + withinMs;
      while (!ready && performance.now() < deadline) await sleep(50);
      if (!ready) throw new Error(`${name} was not up again within ${withinMs / 1_000} s`);
    },
    async end() {
      ended = true;
      resume();
      await current?.stop();
      await living;
    },
  };
}
