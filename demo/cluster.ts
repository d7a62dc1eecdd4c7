import { randomBytes } from "node:crypto";
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type EmbeddedPostgres, freePorts, startEmbeddedPostgres } from "../src/db/embedded.ts";
import type { ProviderChoice } from "./options.ts";
import { launch, type Program, ProgramFailed } from "./program.ts";

const WORKERS = ["worker-1", "worker-2"] as const;
/** Postgres first rolls back what is open; 5 s are its own limit. */
const STOP_MS = 9_000;
/** Of this process's own environment only what says where things are: the rest is the demo's, whatever is set outside. */
const INHERITED = ["PATH", "HOME", "TMPDIR", "LANG", "NODE_EXTRA_CA_CERTS", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];

export interface ClusterOptions {
  readonly provider: ProviderChoice;
  /** Of the sandbox, as AI_PROVIDER names them; without them, one. */
  readonly accounts?: readonly string[];
  readonly redisUrl: string | null;
  /** Where the logs go. */
  readonly logs: string;
  /** Called for each part as it becomes ready. */
  onReady(part: { name: string; pid: number; where: string }): void;
  /** Called when a worker dies and another goes on. */
  onLoss(what: string): void;
}

export interface Addresses {
  readonly api: string;
  readonly database: string;
  /** Null: the provider is not ours to ask for its bill. */
  readonly sandbox: string | null;
  readonly adminPassword: string;
}

export interface Cluster {
  start(): Promise<Addresses>;
  /** Rejects when something dies that nothing can go on without. */
  readonly broken: Promise<never>;
  /** Stops everything, also in the middle of starting. May be called more than once. */
  stop(): Promise<void>;
}

/** Postgres, the sandbox, one API and two workers: processes of their own, as they would be on hosts of their own. */
export function makeCluster(options: ClusterOptions): Cluster {
  const programs: Program[] = [];
  let postgres: Promise<EmbeddedPostgres> | null = null;
  let folder: string | null = null;
  let stopped: Promise<void> | null = null;
  let breakDown: (error: Error) => void = () => {};
  const broken = new Promise<never>((_, reject) => {
    breakDown = reject;
  });
  broken.catch(() => {}); // Whoever waits for it hears of it.

  async function run(name: string, args: string[], env: Record<string, string>, readyPath: string): Promise<void> {
    if (stopped) throw new Error("stopped while starting");
    const port = env["HEALTH_PORT"] ?? env["PORT"] ?? "";
    const program = launch({
      name,
      args,
      env,
      logFile: join(options.logs, `${name}.log`),
      folder: folder ?? join(tmpdir(), "darkroom-demo-none"),
    });
    programs.push(program);
    await program.ready(`http://127.0.0.1:${port}${readyPath}`);
    options.onReady({ name, pid: program.pid, where: `http://127.0.0.1:${port}` });
    void program.ended.then((how) => notice(program, how));
  }

  function notice(program: Program, how: string): void {
    if (stopped) return;
    const died = `${program.name} (pid ${program.pid}) died: ${how}`;
    const isWorker = (name: string) => WORKERS.some((worker) => worker === name);
    const left = programs.filter((each) => isWorker(each.name) && each.isRunning());
    if (isWorker(program.name) && left.length > 0)
      options.onLoss(`${died}; ${left.map((each) => each.name).join(" and ")} takes over its jobs`);
    else breakDown(new ProgramFailed(`${died}, and nothing can go on without it`, program.logFile));
  }

  return {
    broken,

    async start() {
      folder = mkdtempSync(join(tmpdir(), "darkroom-demo-"));
      postgres = startEmbeddedPostgres({ quiet: true });
      postgres.catch(() => {}); // Awaited below, or by stop.
      const adminPassword = randomBytes(9).toString("base64url");
      const [apiPort, sandboxPort, ...workerPorts] = await freePorts(2 + WORKERS.length);
      const inherited = pick(process.env, INHERITED);
      const api = `http://127.0.0.1:${apiPort}`;
      const sandbox = options.provider.name === "sandbox" ? `http://127.0.0.1:${sandboxPort}` : null;
      const sandboxReady = sandbox
        ? run(
            "sandbox",
            ["sandbox/main.ts", "--port", `${sandboxPort}`],
            { ...inherited, PORT: `${sandboxPort}` },
            "/_sandbox/health",
          )
        : Promise.resolve();
      sandboxReady.catch(() => {}); // Awaited below.
      // Loads the whole application: a second in which Postgres starts.
      const { prepareDatabase } = await import("../src/dev.ts");
      const { url: database, pid, port } = await postgres;
      await prepareDatabase(database);
      options.onReady({ name: "postgres", pid, where: `127.0.0.1:${port}` });

      const shared = {
        ...inherited,
        ...providerEnv(options, sandbox),
        ...(options.redisUrl ? { REDIS_URL: options.redisUrl } : {}),
        DATABASE_URL: database,
        SIGNING_SECRET: randomBytes(32).toString("hex"),
        ADMIN_PASSWORD: adminPassword,
        STORAGE_PROVIDER: "local",
        STORAGE_DIR: join(folder, "files"),
        // Addresses of files are made from it, by the workers too.
        PUBLIC_URL: api,
        HOST: "127.0.0.1",
        PORT: `${apiPort}`,
      };
      await Promise.all([
        sandboxReady,
        run("api", ["src/main.ts", "api"], shared, "/readyz"),
        ...WORKERS.map((name, index) =>
          run(name, ["src/main.ts", "worker"], { ...shared, HEALTH_PORT: `${workerPorts[index]}` }, "/readyz"),
        ),
      ]);
      return { api, database, sandbox, adminPassword };
    },

    stop() {
      stopped ??= within(STOP_MS, async () => {
        await Promise.all(programs.map((program) => program.stop()));
        await postgres?.then((each) => each.stop()).catch(() => {});
        if (folder) await rm(folder, { recursive: true, force: true, maxRetries: 3 });
      });
      return stopped;
    },
  };
}

function providerEnv(
  { provider, accounts = ["sandbox"] }: ClusterOptions,
  sandbox: string | null,
): Record<string, string> {
  if (provider.name === "replicate") return { AI_PROVIDER: "replicate", REPLICATE_API_TOKEN: provider.token };
  // The sandbox lists a run at once, so a lost answer is known to be lost sooner than at a real provider.
  return { AI_PROVIDER: accounts.join(","), SANDBOX_URL: sandbox ?? "", LOST_AFTER_SECONDS: "3" };
}

function pick(env: NodeJS.ProcessEnv, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.flatMap((name) => (env[name] ? [[name, env[name]]] : [])));
}

/** What is not stopped by then ends with this process: every part watches for that. */
async function within(ms: number, work: () => Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([work(), late]);
  clearTimeout(timer);
}
