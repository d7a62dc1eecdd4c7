import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** One delivery, as it arrived. */
export interface Letter {
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: string;
  /** performance.now() */
  readonly at: number;
}

/** Our side of the webhooks: takes everything, and keeps it by the path it came to. */
export interface Hook {
  readonly url: string;
  /** What came to the path of this URL so far. */
  letters(webhookUrl: string): readonly Letter[];
  close(): Promise<void>;
}

export async function startHook(): Promise<Hook> {
  const letters = new Map<string, Letter[]>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const path = new URL(request.url ?? "/", "http://hook").pathname;
      const headers = Object.fromEntries(
        Object.entries(request.headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : value]),
      );
      const letter = { headers, body: Buffer.concat(chunks).toString("utf8"), at: performance.now() };
      letters.set(path, [...(letters.get(path) ?? []), letter]);
      response.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    letters: (webhookUrl) => letters.get(new URL(webhookUrl).pathname) ?? [],
    close() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
