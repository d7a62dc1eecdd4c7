import { randomBytes } from "node:crypto";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { launch, ProgramFailed } from "../../demo/program.ts";
import { connect, disconnect } from "../../src/db/client.ts";
import { freePort } from "../../src/db/embedded.ts";
import type { Cluster } from "../cluster.ts";
import { makeMember } from "../member.ts";
import { startPostgres } from "../postgres.ts";
import { startProxy } from "../proxy.ts";

const BUCKET = "darkroom";
const TEMPLATE = "planted_template";
const START_MS = 60_000;
/** Of this process's environment only what says where things are. */
const INHERITED = ["PATH", "HOME", "TMPDIR", "LANG"];

/** What all builds share: a Postgres server and an object store. Their databases and files are their own. */
export interface Ground extends Pick<Cluster, "postgres" | "proxies" | "bucketFolder"> {
  /** What every program is told. */
  readonly env: Readonly<Record<string, string>>;
  /** Copied from one that is migrated already; with `main` by the migrations of that program. */
  makeDatabase(main: string | null, folder: string): Promise<{ readonly url: string; drop(): Promise<unknown> }>;
}

/** `main` is the program without any bug. */
export async function layGround(
  main: string,
  folder: string,
  onStop: (stop: () => Promise<unknown>) => void,
): Promise<Ground> {
  await chmod(folder, 0o755); // Postgres does not run as root, and its data are in here.
  const starting = startPostgres(join(folder, "postgres"));
  onStop(async () => (await starting).stop());
  const postgres = await starting;
  const admin = connect(postgres.url, { max: 1, name: "chaos" });
  onStop(() => disconnect(admin));
  const inherited = Object.fromEntries(INHERITED.flatMap((name) => [[name, process.env[name] ?? ""]]));
  const storePort = await freePort();
  const files = join(folder, "files");
  await mkdir(files);
  const store = makeMember({
    name: "store",
    args: [fileURLToPath(new URL("../bucket.ts", import.meta.url)), files, `${storePort}`],
    env: inherited,
    readyUrl: `http://127.0.0.1:${storePort}/health`,
    logFile: (life) => join(folder, `store.${life}.log`),
    folder: join(folder, "nothing"),
  });
  onStop(() => store.end());
  await store.up(START_MS);
  const proxies = {
    ingress: await startProxy([]),
    postgres: await startProxy([postgres.port]),
    store: await startProxy([storePort]),
  };
  onStop(async () => {
    for (const proxy of Object.values(proxies)) proxy.close();
  });
  const urlOf = (name: string) => {
    const url = new URL(postgres.url);
    url.pathname = `/${name}`;
    return url.href;
  };
  const create = (name: string, template: string) =>
    admin.$client.query(`create database ${name} template ${template}`);

  await create(TEMPLATE, "template0");
  await migrate(main, urlOf(TEMPLATE), inherited, join(folder, "migrate.log"));
  return {
    postgres,
    proxies,
    bucketFolder: join(files, BUCKET),
    env: {
      ...inherited,
      NODE_ENV: "test",
      HOST: "127.0.0.1",
      AI_PROVIDER: "sandbox",
      STORAGE_PROVIDER: "s3",
      S3_BUCKET: BUCKET,
      S3_ENDPOINT: `http://127.0.0.1:${storePort}`,
      S3_ACCESS_KEY_ID: "S3RVER",
      S3_SECRET_ACCESS_KEY: "S3RVER",
      S3_FORCE_PATH_STYLE: "true",
    },
    async makeDatabase(own, logs) {
      const name = `planted_${randomBytes(4).toString("hex")}`;
      await create(name, own === null ? TEMPLATE : "template0");
      const url = urlOf(name);
      if (own !== null) await migrate(own, url, inherited, join(logs, "migrate.log"));
      return { url, drop: () => admin.$client.query(`drop database if exists ${name} with (force)`) };
    },
  };
}

/** As an operator does it. */
async function migrate(main: string, url: string, env: Readonly<Record<string, string>>, logFile: string) {
  const args = [main, "migrate"];
  const program = launch({
    name: "migrate",
    args,
    env: { ...env, DATABASE_URL: url },
    logFile,
    folder: `${logFile}.no`,
  });
  const how = await program.ended;
  if (how !== "exit code 0") throw new ProgramFailed(`the migrations did not run: ${how}`, logFile);
}
