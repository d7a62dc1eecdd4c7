import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import type { Cluster } from "./cluster.ts";
import type { History } from "./history.ts";
import type { Order } from "./orders.ts";

/** An answer takes milliseconds; a stopped or starting API is asked again, ever more patiently. */
const ANSWER_MS = 10_000;
const AGAIN_MS = { first: 300, most: 3_000 };

/** One call of one client, as it saw it: a submission of its order, or a cancel. */
export interface Sending {
  readonly action: "submit" | "cancel";
  readonly key: string;
  /** `lost`: no answer, or one that says to send it again. */
  readonly outcome: "acknowledged" | "refused" | "lost";
  readonly jobId: string | null;
  /** The price that was told. */
  readonly credits: number | null;
  /** What was answered, or why there is no answer. */
  readonly answer: string;
  /** Nobody sells at the moment, and when to come again; absent: nothing was said of that. */
  readonly retryAfterMs?: number;
}

const acknowledged = z.object({ id: z.uuid(), price: z.object({ credits: z.int() }) });

/** The clients' own record: what they sent and what they were told, whatever the service believes. */
export interface Clients {
  readonly sendings: readonly Sending[];
  /** Resolves when every order has a definite answer; rejects when halted. */
  submitAll(orders: readonly Order[]): Promise<void>;
}

export function makeClients({ url, apiKey, provider }: Cluster, history: History, halted: AbortSignal): Clients {
  const sendings: Sending[] = [];
  let calls = 0;

  async function call(action: Sending["action"], order: Order, path: string, body: object): Promise<Sending> {
    const number = ++calls;
    const { key } = order;
    history.note({ call: number, type: "invoke", action, key, path, body });
    const signal = AbortSignal.any([halted, AbortSignal.timeout(ANSWER_MS)]);
    const headers = { authorization: `Bearer ${apiKey}`, "content-type": "application/json", "idempotency-key": key };
    const request = { method: "POST", headers, body: JSON.stringify(body), signal };
    const said = await fetch(`${url}${path}`, request).then(
      async (answer) => ({
        status: answer.status,
        text: await answer.text().catch(() => null),
        retryAfter: answer.headers.get("retry-after"),
      }),
      (error: Error) => {
        const text = error.cause instanceof Error ? error.cause.message : error.message;
        return { status: null, text, retryAfter: null };
      },
    );
    const isPaused = said.status === 503 && said.text?.includes("provider_paused") && said.retryAfter !== null;
    const waits = isPaused ? { retryAfterMs: Number(said.retryAfter) * 1_000 } : {};
    const sending: Sending = { action, key, ...meaningOf(said.status, said.text), ...waits };
    sendings.push(sending);
    const type = { acknowledged: "ok", refused: "refused", lost: "unknown" }[sending.outcome];
    const { jobId, credits, answer } = sending;
    history.note({ call: number, type, action, key, jobId, credits, answer });
    return sending;
  }

  /** As a backend does it that knows that it may repeat: the same again until somebody says yes or no. */
  async function untilDefinite(...what: Parameters<typeof call>): Promise<Sending> {
    for (let pauseMs = AGAIN_MS.first; ; pauseMs = Math.min(pauseMs * 1.5, AGAIN_MS.most)) {
      const sending = await call(...what);
      if (sending.outcome !== "lost") return sending;
      await sleep(sending.retryAfterMs ?? pauseMs, undefined, { signal: halted });
    }
  }

  async function place(order: Order): Promise<void> {
    await sleep(order.atMs, undefined, { signal: halted });
    // Before anybody can buy for it.
    if (order.rule) await provider.addRule(order.rule, order.mark);
    const submit = () => untilDefinite("submit", order, "/api/jobs", order.body);
    const [{ jobId }] = await Promise.all([submit(), order.sends === "twice at once" ? submit() : null]);
    if (order.sends === "again when answered") await submit();
    if (order.cancelAfterMs === null || jobId === null) return;
    await sleep(order.cancelAfterMs, undefined, { signal: halted });
    await untilDefinite("cancel", order, `/api/jobs/${jobId}/cancel`, {});
  }

  return {
    sendings,
    submitAll: async (orders) => void (await Promise.all(orders.map(place))),
  };
}

function meaningOf(status: number | null, text: string | null): Omit<Sending, "key" | "action"> {
  const answer = `${status ?? "no answer"} ${text ?? "torn"}`.slice(0, 500);
  const lost = { outcome: "lost", jobId: null, credits: null, answer } as const;
  // 503 and 500 say themselves that the same key may be sent again.
  if (status === null || text === null || status >= 500) return lost;
  if (status >= 400) return { ...lost, outcome: "refused" };
  const job = acknowledged.parse(JSON.parse(text));
  return { outcome: "acknowledged", jobId: job.id, credits: job.price.credits, answer: `${status}` };
}
