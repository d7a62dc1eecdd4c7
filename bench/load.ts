import { createHistogram } from "node:perf_hooks";
import { Client } from "undici";

export interface Load {
  readonly origin: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly clients: number;
  readonly seconds: number;
  body(): string;
  idempotencyKey(): string;
}

export interface Driven {
  readonly accepted: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Of the answers that were not 202: how many, and the first of them. */
  readonly refused: number;
  readonly firstRefusal: string | null;
}

/**
 * POSTs jobs over kept-alive connections, one request under way on each. When the time is over nothing new is sent and
 * every answer is waited for: an answer that was cut off would be a job that nobody counted.
 */
export async function drive(load: Load): Promise<Driven> {
  const latencies = createHistogram();
  const clients = Array.from({ length: load.clients }, () => new Client(load.origin, { pipelining: 1 }));
  let accepted = 0;
  let refused = 0;
  let firstRefusal: string | null = null;
  const from = performance.now();
  const until = from + load.seconds * 1_000;
  try {
    await Promise.all(
      clients.map(async (client) => {
        while (performance.now() < until) {
          const sent = performance.now();
          const { status, text } = await post(client, load);
          latencies.record(Math.max(1, Math.round((performance.now() - sent) * 1_000)));
          if (status === 202) accepted++;
          else {
            refused++;
            firstRefusal ??= `${status} ${text}`;
          }
        }
      }),
    );
    const seconds = (performance.now() - from) / 1_000;
    const [p50Ms, p99Ms] = [latencies.percentile(50) / 1_000, latencies.percentile(99) / 1_000];
    return { accepted, seconds, p50Ms, p99Ms, refused, firstRefusal };
  } finally {
    await Promise.all(clients.map((client) => client.close()));
  }
}

/** Without the streams of `request`: they would cost the load generator more CPU than the API has. */
function post(client: Client, load: Load): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    let status = 0;
    let chunks: Buffer[] = [];
    client.dispatch(
      {
        method: "POST",
        path: "/api/jobs",
        headers: { ...load.headers, "content-type": "application/json", "idempotency-key": load.idempotencyKey() },
        body: load.body(),
      },
      {
        onRequestStart() {},
        onResponseStart(_controller, code) {
          status = code;
          chunks = [];
        },
        onResponseData(_controller, chunk) {
          if (status !== 202) chunks.push(chunk);
        },
        onResponseEnd: () => resolve({ status, text: Buffer.concat(chunks).toString("utf8") }),
        onResponseError: (_controller, error) => reject(error),
      },
    );
  });
}
