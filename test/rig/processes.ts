import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { launch, type Program } from "../../demo/program.ts";
import { freePort } from "../../src/db/embedded.ts";
import { compiledMain } from "./compiled.ts";
import { asEnv, type Spine } from "./spine.ts";

export interface StartedProcess extends Program {
  /** A worker's health port, or the API. */
  readonly url: string;
}

/** Programs of a spine's deployment as processes of their own, so that they can be killed and stopped. */
export interface Processes {
  /** Resolves when it answers, or when it has died before: that may be the very test. */
  start(command: "api" | "worker", env?: Record<string, string>): Promise<StartedProcess>;
  readonly started: readonly StartedProcess[];
  /** Those that stand still, too. May be called more than once. */
  stopAll(): Promise<void>;
  close(): Promise<void>;
}

export async function makeProcesses(spine: Spine): Promise<Processes> {
  const folder = await mkdtemp(join(tmpdir(), "darkroom-processes-"));
  const started: StartedProcess[] = [];
  const stopAll = async () => {
    for (const program of started) if (program.isRunning()) process.kill(program.pid, "SIGCONT");
    await Promise.all(started.map((program) => program.stop()));
  };
  return {
    started,
    stopAll,
    async start(command, env = {}) {
      const port = String(await freePort());
      const url = `http://127.0.0.1:${port}`;
      const name = `${command}-${started.length + 1}`;
      const program = launch({
        name,
        args: [await compiledMain(), command],
        env: {
          PATH: process.env["PATH"] ?? "",
          ...asEnv(spine.config),
          PORT: port,
          HEALTH_PORT: port,
          ...env,
        },
        logFile: join(folder, `${name}.log`),
        folder: join(folder, "nothing"),
      });
      const process_ = { ...program, url };
      started.push(process_);
      await Promise.race([program.ready(`${url}/livez`).catch(() => {}), program.ended]);
      return process_;
    },
    async close() {
      await stopAll();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
