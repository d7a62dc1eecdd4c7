import { setTimeout as sleep } from "node:timers/promises";
import type { Blow, BlowType } from "./blows.ts";
import type { Cluster } from "./cluster.ts";
import type { Member } from "./member.ts";
import type { TcpProxy } from "./proxy.ts";

/** What a slow network adds to each piece. */
const DELAY_MS = 40;

/** A blow that finds nobody up is tried again, for so long. */
const AGAIN_MS = 500;
const PATIENCE_MS = 15_000;

export interface Struck {
  /** Since the nemesis began. */
  readonly atMs: number;
  /** Wall clock, milliseconds: all processes share this machine's. */
  readonly at: number;
  readonly type: BlowType;
  readonly forMs: number;
  /** Whom it struck, where that is one process. */
  readonly pid: number | null;
  /** What was done to whom; null when nobody was there to be struck. */
  readonly what: string | null;
}

/** Deals the blows, each at its time, and tells what became of it. Resolves `seconds` after it began. */
export async function strike(
  cluster: Cluster,
  blows: readonly Blow[],
  seconds: number,
  onStruck: (struck: Struck) => void,
  halted: AbortSignal,
): Promise<void> {
  const startedAt = performance.now();
  const until = (atMs: number) =>
    sleep(Math.max(0, startedAt + atMs - performance.now()), undefined, { signal: halted });
  const left = blows.map((blow) => ({ blow, atMs: blow.atMs }));
  for (let next = left.shift(); next; next = left.shift()) {
    const { blow } = next;
    await until(next.atMs);
    const atMs = Math.round(performance.now() - startedAt);
    const at = Date.now();
    const dealt = await deal(cluster, blow).catch((error: unknown) => {
      throw new Error(`the nemesis could not ${blow.type}: ${error instanceof Error ? error.message : error}`);
    });
    const later = atMs + AGAIN_MS;
    if (dealt === null && later < Math.min(blow.atMs + PATIENCE_MS, seconds * 1_000)) {
      const place = left.findIndex((each) => each.atMs > later);
      left.splice(place === -1 ? left.length : place, 0, { blow, atMs: later });
      continue;
    }
    onStruck({ atMs, at, type: blow.type, forMs: blow.forMs, pid: dealt?.pid ?? null, what: dealt?.what ?? null });
  }
  await until(seconds * 1_000);
}

interface Dealt {
  readonly what: string;
  readonly pid?: number | null;
}

async function deal(cluster: Cluster, { type, target, forMs }: Blow): Promise<Dealt | null> {
  const { apis, workers, postgres, proxies, queue } = cluster;
  const lasting = `for ${forMs} ms`;
  switch (type) {
    case "kill_worker":
      return kill(oneUp(workers, target));
    case "kill_api":
      return kill(oneUp(apis, target));
    case "stop_worker":
      return stop(oneUp(workers, target), forMs);
    case "stop_api":
      return stop(oneUp(apis, target), forMs);
    case "crash_postgres": {
      const pid = postgres.crash(forMs);
      return pid === null ? null : { what: `immediate stop of Postgres (pid ${pid}), down ${lasting}`, pid };
    }
    case "end_sessions": {
      const ended = await cluster.endSessions();
      return ended === null ? null : { what: `${ended} sessions of Postgres terminated` };
    }
    case "flush_queue": {
      const emptied = await queue.empty();
      return emptied === null ? null : { what: `${emptied} emptied` };
    }
    case "kill_redis": {
      const pid = queue.server?.kill(forMs) ?? null;
      return pid === null ? null : { what: `kill -9 Redis (pid ${pid}), down ${lasting}`, pid };
    }
    case "stop_redis": {
      const pid = queue.server?.freeze(forMs) ?? null;
      return pid === null ? null : { what: `SIGSTOP Redis (pid ${pid}) ${lasting}`, pid };
    }
    case "down_provider":
      await cluster.provider.down(forMs);
      return { what: `provider down ${lasting}` };
    case "cut_ingress":
      return cut(proxies.ingress, "the APIs");
    case "cut_postgres":
      return cut(proxies.postgres, "Postgres");
    case "cut_redis":
      return cut(queue.proxy, "Redis");
    case "cut_store":
      return cut(proxies.store, "the object store");
    case "refuse_postgres":
      return { what: `${proxies.postgres.refuse(forMs)} connections cut, Postgres refuses ${lasting}` };
    case "refuse_redis":
      return queue.proxy && { what: `${queue.proxy.refuse(forMs)} connections cut, Redis refuses ${lasting}` };
    case "refuse_store":
      return { what: `${proxies.store.refuse(forMs)} connections cut, the object store refuses ${lasting}` };
    case "freeze_postgres":
      return { what: `${proxies.postgres.freeze(forMs)} connections to Postgres half-open ${lasting}` };
    case "freeze_redis":
      return queue.proxy && { what: `${queue.proxy.freeze(forMs)} connections to Redis half-open ${lasting}` };
    case "freeze_store":
      return { what: `${proxies.store.freeze(forMs)} connections to the object store half-open ${lasting}` };
    case "delay_postgres":
      return { what: `${proxies.postgres.delay(DELAY_MS, forMs)} connections to Postgres slow ${lasting}` };
    case "delay_redis":
      return queue.proxy && { what: `${queue.proxy.delay(DELAY_MS, forMs)} connections to Redis slow ${lasting}` };
    case "delay_store":
      return { what: `${proxies.store.delay(DELAY_MS, forMs)} connections to the object store slow ${lasting}` };
  }
}

function oneUp(members: readonly Member[], target: number): Member | null {
  const first = target % members.length;
  return [...members.slice(first), ...members.slice(0, first)].find((each) => each.isUp()) ?? null;
}

function kill(member: Member | null): Dealt | null {
  const pid = member?.kill() ?? null;
  return pid === null ? null : { what: `kill -9 ${member?.name} (pid ${pid})`, pid };
}

function stop(member: Member | null, forMs: number): Dealt | null {
  const pid = member?.stop(forMs) ?? null;
  return pid === null ? null : { what: `SIGSTOP ${member?.name} (pid ${pid}) for ${forMs} ms`, pid };
}

function cut(proxy: TcpProxy | null, where: string): Dealt | null {
  return proxy && { what: `${proxy.cut()} connections to ${where} cut` };
}
