import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { jobSchema } from "../src/job-json.ts";

const TIMEOUT_MS = 10_000;
/** A request that found nobody, or a database that is behind, is sent again for this long. All of ours may be repeated. */
const PATIENCE_MS = 10_000;
const PAUSE_MS = 300;

export type Job = z.output<typeof jobSchema>;

const uploaded = z.object({ id: z.string(), width: z.int(), height: z.int(), sha256: z.string() });
const credits = z.object({
  available: z.int(),
  entries: z.array(z.object({ type: z.string(), amount: z.int(), job: z.string().nullable() })),
});
export type Credits = z.output<typeof credits>;
const problem = z.object({ code: z.string(), detail: z.string() });

/** What a backend needs of the API, as a backend would write it. */
export interface Client {
  /** Returns the upload's id. */
  upload(bytes: Buffer, contentType: string): Promise<string>;
  submit(order: unknown, idempotencyKey: string): Promise<Job>;
  job(id: string): Promise<Job>;
  credits(user: string): Promise<Credits>;
  /** Once for each key. */
  grant(user: string, amount: number, key: string): Promise<void>;
  download(url: string): Promise<Buffer>;
}

export function makeClient(api: string, key: string, stopped: AbortSignal): Client {
  async function send(url: string, init: RequestInit = {}): Promise<Response> {
    const until = Date.now() + PATIENCE_MS;
    for (;;) {
      const signal = AbortSignal.any([stopped, AbortSignal.timeout(TIMEOUT_MS)]);
      const answer = await fetch(url, { ...init, signal }).catch((error: unknown) => {
        if (stopped.aborted || Date.now() > until) throw error;
        return null;
      });
      if (answer?.ok) return answer;
      const mayPass = answer === null || answer.status === 503;
      if (!mayPass || Date.now() > until) throw await refusal(url, init.method ?? "GET", answer);
      await sleep(PAUSE_MS, undefined, { signal: stopped });
    }
  }

  const ask = async (method: string, path: string, headers: Record<string, string> = {}, body?: string | Buffer) => {
    const init = {
      method,
      headers: { authorization: `Bearer ${key}`, ...headers },
      ...(body === undefined ? {} : { body }),
    };
    return (await send(`${api}${path}`, init)).json();
  };

  return {
    upload: async (bytes, contentType) =>
      uploaded.parse(await ask("POST", "/api/uploads", { "content-type": contentType }, bytes)).id,
    submit: async (order, idempotencyKey) => {
      const headers = { "content-type": "application/json", "idempotency-key": idempotencyKey };
      return jobSchema.parse(await ask("POST", "/api/jobs", headers, JSON.stringify(order)));
    },
    job: async (id) => jobSchema.parse(await ask("GET", `/api/jobs/${id}`)),
    credits: async (user) => credits.parse(await ask("GET", `/api/credits/${user}?limit=100`)),
    grant: async (user, amount, key) => {
      const headers = { "content-type": "application/json", "idempotency-key": key };
      await ask("POST", `/api/credits/${user}/grants`, headers, JSON.stringify({ credits: amount }));
    },
    // A signed address needs no key, as for the browser of an end user.
    download: async (url) => Buffer.from(await (await send(url)).arrayBuffer()),
  };
}

async function refusal(url: string, method: string, answer: Response | null): Promise<Error> {
  const what = `${method} ${new URL(url).pathname}`;
  if (!answer) return new Error(`${what}: nobody answered for ${PATIENCE_MS / 1_000} s`);
  const text = await answer.text().catch(() => "");
  const said = problem.safeParse(parsed(text));
  return new Error(
    `${what}: ${answer.status} ${said.success ? `${said.data.code}: ${said.data.detail}` : text.slice(0, 300)}`,
  );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const bill = z.object({ lines: z.array(z.object({ id: z.string(), status: z.string() })) });

/** The ids of everything that the sandbox says was bought from it. */
export async function readBill(sandbox: string): Promise<string[]> {
  const answer = await fetch(`${sandbox}/_sandbox/bill`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  return bill.parse(await answer.json()).lines.map((line) => line.id);
}
