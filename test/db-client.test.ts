import { once } from "node:events";
import { type AddressInfo, connect as connectTo, createServer, type Socket } from "node:net";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, expect, test } from "vitest";
import { connect, type Db, disconnect } from "../src/db/client.ts";
import { migrateQueue, postgresBackend } from "../src/queue/backend.ts";
import { consume, openQueues } from "../src/queue/queue.ts";
import { freshDatabase } from "./rig/database.ts";

let database: Awaited<ReturnType<typeof freshDatabase>>;
let db: Db;
let other: Db;
beforeAll(async () => {
  database = await freshDatabase();
  db = connect(database.url, { max: 2, name: "test" });
  other = connect(database.url, { max: 1, name: "killer" });
});
afterAll(async () => {
  await disconnect(db);
  await disconnect(other);
  await database?.drop();
});

test("a connection that dies inside a transaction fails that transaction, and nothing else", async () => {
  const uncaught: unknown[] = [];
  const note = (error: unknown) => uncaught.push(error);
  process.on("uncaughtException", note);
  try {
    for (let round = 0; round < 20; round++) {
      const dying = db.transaction(async (tx) => {
        const { rows } = await tx.execute<{ pid: number }>(sql`select pg_backend_pid() as pid`);
        await other.execute(sql`select pg_terminate_backend(${rows[0]?.pid ?? 0})`);
        await new Promise((resolve) => setTimeout(resolve, round % 2 ? 20 : 0));
        await tx.execute(sql`select 1`);
      });
      await expect(dying).rejects.toThrow();
      expect((await db.execute(sql`select 1 as one`)).rows).toEqual([{ one: 1 }]);
    }
  } finally {
    process.off("uncaughtException", note);
  }
  expect(uncaught).toEqual([]);
});

test("the queue's connections may all be cut while it works, and it goes on", async () => {
  const uncaught: unknown[] = [];
  const note = (error: unknown) => uncaught.push(error);
  process.on("uncaughtException", note);
  await migrateQueue(database.url);
  const backend = postgresBackend(database.url);
  const queues = openQueues(backend);
  const seen: string[] = [];
  const consumer = consume(
    backend,
    ["generation"],
    4,
    async (id) => void seen.push(id),
    () => {},
  );
  try {
    for (let round = 0; round < 6; round++) {
      await queues.wake([{ id: `before-${round}`, kind: "generation", epoch: round }]).catch(() => {});
      await other.execute(sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and application_name <> 'darkroom test'`);
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
    await expect
      .poll(() =>
        queues.wake([{ id: "after", kind: "generation", epoch: 1 }]).then(
          () => true,
          () => false,
        ),
      )
      .toBe(true);
    await expect.poll(() => seen, { timeout: 15_000 }).toContain("after");
  } finally {
    process.off("uncaughtException", note);
    await consumer.close();
    await queues.close();
    await backend.close();
  }
  expect(uncaught).toEqual([]);
});

test("a query that takes longer than ten seconds is ended", async () => {
  await expect(db.execute(sql`select pg_sleep(12)`)).rejects.toThrow();
});

test("a connection whose other end is gone without a word is given up, and the next one is used", async () => {
  const { port } = new URL(database.url);
  const open: Socket[] = [];
  const proxy = createServer((near) => {
    const far = connectTo(Number(port), "127.0.0.1");
    open.push(near, far);
    near.on("error", () => {}).pipe(far);
    far.on("error", () => {}).pipe(near);
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const through = new URL(database.url);
  through.port = String((proxy.address() as AddressInfo).port);
  const distant = connect(through.href, { max: 1, name: "distant" });
  try {
    expect((await distant.execute(sql`select 1 as one`)).rows).toEqual([{ one: 1 }]);
    // As behind a firewall that forgot the connection: nothing arrives, and nobody says so.
    for (const socket of open) socket.unpipe().pause();
    await expect(distant.execute(sql`select 1`)).rejects.toThrow();
    expect((await distant.execute(sql`select 1 as one`)).rows).toEqual([{ one: 1 }]);
  } finally {
    await disconnect(distant);
    for (const socket of open) socket.destroy();
    proxy.close();
  }
});
