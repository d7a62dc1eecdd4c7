import { createHash, randomUUID } from "node:crypto";
import { mkdir, rename, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type RequestListener } from "node:http";
import { createRequire } from "node:module";
import { dirname } from "node:path";

/**
 * The object store: a program of its own, `bucket.ts <directory> <port>`, with its files on disk. s3rver writes an
 * object in place, so that a cut upload would leave half of one; no real store does. Here it is whole or not there.
 */
interface S3rver {
  readonly store: {
    getResourcePath(bucket: string, key: string, resource: string): string;
    putMetadata(bucket: string, key: string, metadata: object, md5: string): Promise<void>;
    putObject(object: Upload): Promise<{ size: number; md5: string }>;
  };
  configureBuckets(): Promise<void>;
  callback(): RequestListener;
}

interface Upload {
  readonly bucket: string;
  readonly key: string;
  readonly content: IncomingMessage;
  readonly metadata: object;
}

const [directory, port] = process.argv.slice(2);
const make = createRequire(import.meta.url)("s3rver") as new (options: Record<string, unknown>) => S3rver;
const s3 = new make({ directory, silent: true, configureBuckets: [{ name: "darkroom" }] });
const { store } = s3;
store.putObject = async ({ bucket, key, content, metadata }) => {
  const body = Buffer.concat(await content.toArray()); // Throws when the sender is gone before its last byte.
  const path = store.getResourcePath(bucket, key, "object");
  const fresh = `${path}.${randomUUID()}`;
  const md5 = createHash("md5").update(body).digest("hex");
  await mkdir(dirname(path), { recursive: true });
  await writeFile(fresh, body);
  await store.putMetadata(bucket, key, metadata, md5);
  await rename(fresh, path);
  return { size: body.length, md5 };
};
await s3.configureBuckets();
const answer = s3.callback();
createServer((request, response) => {
  if (request.url === "/health") response.end("ok");
  else answer(request, response);
}).listen(Number(port), "127.0.0.1");
