import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import type { Cluster } from "./cluster.ts";
import type { Order } from "./orders.ts";

/** An answer takes milliseconds; a stopped or starting API is asked again. */
const ANSWER_MS = 10_000;
const AGAIN_MS = 300;

/** One sending of one order, as its client saw it. */
export interface Sending {
  readonly key: string;
  readonly at: string;
  /** `lost`: no answer, or one that says to send it again. */
  readonly outcome: "acknowledged" | "refused" | "lost";
  readonly jobId: string | null;
  /** The price that was told. */
  readonly credits: number | null;
  /** What was answered, or why there is no answer. */
  readonly answer: string;
}

const acknowledged = z.object({ id: z.uuid(), price: z.object({ credits: z.int() }) });

/** The clients' own record: what they sent and what they were told, whatever the service believes. */
export interface Clients {
  readonly sendings: readonly Sending[];
  /** Resolves when every order has a definite answer; rejects when halted. */
  submitAll(orders: readonly Order[]): Promise<void>;
}

export function makeClients({ api, apiKey, sandbox }: Cluster, halted: AbortSignal): Clients {
  const sendings: Sending[] = [];

  async function send(order: Order): Promise<Sending> {
    const at = new Date().toISOString();
    const signal = AbortSignal.any([halted, AbortSignal.timeout(ANSWER_MS)]);
    const headers = {
      authorization: `Bearer ${apiKey}`,
      "content-type": "application/json",
      "idempotency-key": order.key,
    };
    const request = { method: "POST", headers, body: JSON.stringify(order.body), signal };
    const said = await fetch(`${api.url}/api/jobs`, request).then(
      async (answer) => ({ status: answer.status, text: await answer.text().catch(() => null) }),
      (error: Error) => ({ status: null, text: error.cause instanceof Error ? error.cause.message : error.message }),
    );
    const sending = { key: order.key, at, ...meaningOf(said.status, said.text) };
    sendings.push(sending);
    return sending;
  }

  /** As a backend does it that knows that it may repeat: the same key until somebody says yes or no. */
  async function untilDefinite(order: Order): Promise<void> {
    while ((await send(order)).outcome === "lost") await sleep(AGAIN_MS, undefined, { signal: halted });
  }

  return {
    sendings,
    async submitAll(orders) {
      await Promise.all(
        orders.map(async (order) => {
          await sleep(order.atMs, undefined, { signal: halted });
          if (order.rule) await addRule(sandbox, order, halted);
          const senders = order.sends === "twice at once" ? [0, 1] : [0];
          await Promise.all(senders.map(() => untilDefinite(order)));
          if (order.sends === "again when answered") await untilDefinite(order);
        }),
      );
    },
  };
}

function meaningOf(status: number | null, text: string | null): Omit<Sending, "key" | "at"> {
  const answer = `${status ?? "no answer"} ${text ?? "torn"}`.slice(0, 500);
  const lost = { outcome: "lost", jobId: null, credits: null, answer } as const;
  // 503 and 500 say themselves that the same key may be sent again.
  if (status === null || text === null || status >= 500) return lost;
  if (status >= 400) return { ...lost, outcome: "refused" };
  const job = acknowledged.parse(JSON.parse(text));
  return { outcome: "acknowledged", jobId: job.id, credits: job.price.credits, answer: `${status}` };
}

/** Tells the sandbox what to do to this order, before anybody can buy for it. */
async function addRule(sandbox: string, { mark, rule }: Order, halted: AbortSignal): Promise<void> {
  const answer = await fetch(`${sandbox}/_sandbox/faults`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...rule, match: { promptContains: mark } }),
    signal: AbortSignal.any([halted, AbortSignal.timeout(ANSWER_MS)]),
  });
  if (!answer.ok) throw new Error(`the sandbox refused the rule ${rule?.fault}: ${await answer.text()}`);
}
