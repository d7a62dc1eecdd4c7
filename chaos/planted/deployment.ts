import { randomBytes } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import { launch, type Program, ProgramFailed } from "../../demo/program.ts";
import { type Sandbox, startSandbox } from "../../sandbox/sandbox.ts";
import { connect, disconnect } from "../../src/db/client.ts";
import { freePort } from "../../src/db/embedded.ts";
import { createKey } from "../../src/db/keys.ts";
import type { Cluster } from "../cluster.ts";
import { type Member, makeMember } from "../member.ts";
import { makeProviderSwitches } from "../provider.ts";
import { postgresQueue } from "../queue.ts";
import type { Ground } from "./ground.ts";
import type { Scenario } from "./scenarios.ts";

/** A real provider's list needs 90 s to show everything; the sandbox shows a run at once, or late when asked to. */
const LOST_AFTER_SECONDS = 3;
const SANDBOX_SPEED = 10;
const START_MS = 60_000;
/** Generous: a machine that starts other programs beside it. Without a strike the run has proven nothing. */
const STRUCK_MS = 45_000;
const PUBLIC_URL = "https://darkroom.example";
const NAME = "chaos";

/** What is played with. */
export interface Stage {
  /** The program. */
  readonly main: string;
  /** Of logs, and of evidence when there are findings. */
  readonly folder: string;
  /** Its migrations are its own. */
  readonly fresh: boolean;
  readonly halted: AbortSignal;
}

/** One API, one worker and the sandbox, on a database of their own; all else is shared ground. */
export interface Deployment {
  readonly cluster: Cluster;
  readonly sandbox: Sandbox;
  startWorker(): Promise<void>;
  /** The one that is to be struck. */
  startVictim(): Promise<Victim>;
  stop(): Promise<void>;
}

export interface Victim {
  /** Resolves when it is dead (and an API replaced) or stands still, at once when it is only thrown at. */
  readonly struck: Promise<void>;
  thaw(): void;
}

export async function deploy(
  ground: Ground,
  scenario: Scenario,
  { main, folder, fresh, halted }: Stage,
): Promise<Deployment> {
  await mkdir(folder, { recursive: true });
  const stops: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const each of stops.splice(0).reverse()) await each().catch((error: unknown) => console.error(error));
  };
  try {
    const database = await ground.makeDatabase(fresh ? main : null, folder);
    stops.push(database.drop);
    const db = connect(database.url, { max: 2, name: NAME });
    stops.push(() => disconnect(db));
    const sandbox = await startSandbox({ speed: SANDBOX_SPEED });
    stops.push(() => sandbox.close());
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    if (scenario.webhooks) sandbox.setWebhookRelay(url);
    const queue = postgresQueue(db);
    const env = {
      ...ground.env,
      ...queue.env,
      DATABASE_URL: database.url,
      DATABASE_POOL: "3",
      SANDBOX_URL: sandbox.url,
      LOST_AFTER_SECONDS: `${LOST_AFTER_SECONDS}`,
      PUBLIC_URL: scenario.webhooks ? PUBLIC_URL : url,
      SIGNING_SECRET: randomBytes(32).toString("hex"),
      ...(scenario.deadlineSeconds && { JOB_DEADLINE_SECONDS: `${scenario.deadlineSeconds}` }),
    };
    const members: Member[] = [];
    const victims: Program[] = [];
    stops.push(async () => {
      for (const program of victims) if (program.isRunning()) process.kill(program.pid, "SIGKILL");
      for (const member of members) member.kill();
      await Promise.all([...members.map((member) => member.end()), ...victims.map(({ ended }) => ended)]);
    });

    const envOf = async (command: "api" | "worker") =>
      command === "api" ? { ...env, PORT: `${port}` } : { ...env, HEALTH_PORT: `${await freePort()}` };
    const readyOf = (own: { PORT?: string; HEALTH_PORT?: string }) =>
      `http://127.0.0.1:${own.PORT ?? own.HEALTH_PORT}/readyz`;

    async function start(command: "api" | "worker"): Promise<void> {
      halted.throwIfAborted();
      const own = await envOf(command);
      const logFile = (life: number) => join(folder, `${command}.${life}.log`);
      const name = `${command}-${members.length}`;
      const member = makeMember({ name, args: [main, command], env: own, readyUrl: readyOf(own), logFile, folder });
      members.push(member);
      await member.up(START_MS);
    }

    /** It is not started again by itself: that would strike the next one, too. */
    async function startVictim(): Promise<Victim> {
      const { who, at, how } = scenario.strike ?? { who: "worker", at: "advance.claimed", how: "throw" };
      halted.throwIfAborted();
      const own = await envOf(who);
      const program = launch({
        name: "victim",
        args: [main, who],
        env: { ...own, FAULT: `${at}=${how}` },
        logFile: join(folder, "victim.log"),
        folder: join(folder, "nothing"),
      });
      victims.push(program);
      // It may be struck before anybody has asked.
      await program.ready(readyOf(own)).catch((error: unknown) => {
        if (how !== "kill") throw error;
      });
      const struck = untilStruck(program, how, halted);
      struck.catch(() => {}); // Awaited by whoever needs it.
      return { struck, thaw: () => void (program.isRunning() && process.kill(program.pid, "SIGCONT")) };
    }

    if (scenario.strike?.who !== "api") await start("api");
    const cluster: Cluster = {
      url,
      apis: members,
      workers: [],
      sandbox: sandbox.url,
      provider: makeProviderSwitches(sandbox.url, halted),
      queue,
      postgres: ground.postgres,
      proxies: ground.proxies,
      bucketFolder: ground.bucketFolder,
      db,
      apiKey: await createKey(db, "demo", NAME),
      async endSessions() {
        const { rows } = await db.execute<{ ended: string }>(sql`
          select count(*) filter (where pg_terminate_backend(pid)) as ended from pg_stat_activity
          where datname = current_database() and application_name <> ${`darkroom ${NAME}`}`);
        return Number(rows[0]?.ended);
      },
      heal: async () => {},
      crashes: () => members.flatMap((member) => member.crashes),
      failedStarts: () => members.reduce((sum, member) => sum + member.failedStarts(), 0),
    };
    return {
      cluster,
      sandbox,
      startWorker: () => start("worker"),
      async startVictim() {
        const victim = await startVictim();
        if (scenario.strike?.who !== "api") return victim;
        // Its place is taken as soon as it is dead: somebody must answer the clients.
        const struck = victim.struck.then(() => start("api"));
        struck.catch(() => {});
        return { ...victim, struck };
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function untilStruck(program: Program, how: "kill" | "stop" | "throw", halted: AbortSignal): Promise<void> {
  if (how === "throw") return;
  const deadline = performance.now() + STRUCK_MS;
  while (performance.now() < deadline) {
    if (!program.isRunning()) {
      const end = await program.ended;
      if (how === "kill" && end === "SIGKILL") return;
      throw new ProgramFailed(`the victim ended by itself: ${end}`, program.logFile);
    }
    if (how === "stop" && (await standsStill(program.pid))) return;
    await sleep(50, undefined, { signal: halted });
  }
  throw new Error("nothing struck the victim");
}

async function standsStill(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return /^State:\s+T/m.test(status);
}
