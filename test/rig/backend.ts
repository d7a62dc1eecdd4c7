import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Webhook } from "standardwebhooks";
import { callbackSecret } from "../../src/callback-signing.ts";
import type { Spine } from "./spine.ts";

export interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

/** What an app's own server would be: it notes what it is told, and answers as the test says. */
export interface Backend {
  readonly origin: string;
  readonly received: Received[];
  /** Answers the requests to come, in their order; after that 204. */
  readonly answers: ((response: ServerResponse) => void)[];
  /** What was told with a signature of that app, checked as the receiver would; throws when it is not genuine. */
  // biome-ignore lint/suspicious/noExplicitAny: a test reads what a receiver would see, and asserts it.
  genuine(spine: Spine, app?: string): { type: string; timestamp: string; data: any; id: string }[];
  close(): Promise<void>;
}

export async function startBackend(): Promise<Backend> {
  const received: Received[] = [];
  const answers: ((response: ServerResponse) => void)[] = [];
  const server = createServer(async (request, response) => {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    received.push({ path: request.url ?? "", headers: request.headers, text: Buffer.concat(pieces).toString() });
    const answer = answers.shift();
    if (answer) answer(response);
    else response.writeHead(204).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received,
    answers,
    genuine(spine, app = "demo") {
      const webhook = new Webhook(callbackSecret(spine.config.SIGNING_SECRET, app));
      return received.map(({ text, headers }) => {
        const told = webhook.verify(text, headers as Record<string, string>);
        return { ...(told as { type: string; timestamp: string; data: unknown }), id: String(headers["webhook-id"]) };
      });
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
