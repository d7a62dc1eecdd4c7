import { photo } from "../rig/pictures.ts";
import type { Answer, Spine } from "../rig/spine.ts";

/** What the products' backends do alike: JSON in and out with their API key, and asking until something is so. */
export interface Client {
  get(path: string): Promise<Answer>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Answer>;
  /** Uploads a drawn photo, always the same for a number, and returns its id. */
  upload(number: number, width?: number, height?: number): Promise<string>;
  /** Asks until `isDone` of the answer's body. */
  poll(ask: () => Promise<Answer>, isDone: (body: Answer["body"]) => boolean, ms?: number): Promise<Answer["body"]>;
  grant(user: string, credits: number): Promise<void>;
  /** What a user can spend. */
  available(user: string): Promise<number>;
}

export function clientOf(spine: Spine): Client {
  const client: Client = {
    get: (path) => spine.call("GET", path),
    post: (path, body, headers = {}) => spine.call("POST", path, { body, headers }),
    async upload(number, width = 640, height = 640) {
      const headers = { "content-type": "application/octet-stream" };
      const answer = await spine.call("POST", "/api/uploads", {
        body: await photo(number, { width, height }),
        headers,
      });
      if (answer.status !== 201) throw new Error(JSON.stringify(answer.body));
      return answer.body.id;
    },
    async poll(ask, isDone, ms = 30_000) {
      const deadline = Date.now() + ms;
      for (;;) {
        const { body } = await ask();
        if (isDone(body)) return body;
        if (Date.now() > deadline) throw new Error(`not there after ${ms} ms: ${JSON.stringify(body)}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    },
    async grant(user, credits) {
      const headers = { "idempotency-key": crypto.randomUUID() };
      const { status, body } = await client.post(
        `/api/credits/${encodeURIComponent(user)}/grants`,
        { credits },
        headers,
      );
      if (status !== 201) throw new Error(JSON.stringify(body));
    },
    async available(user) {
      const { status, body } = await client.get(`/api/credits/${encodeURIComponent(user)}`);
      if (status !== 200) throw new Error(JSON.stringify(body));
      return body.available;
    },
  };
  return client;
}

/** The bytes behind a signed address. */
export async function download(url: string): Promise<Buffer> {
  const response = await fetch(url);
  if (response.status !== 200) throw new Error(`${url}: ${response.status}`);
  return Buffer.from(await response.arrayBuffer());
}
