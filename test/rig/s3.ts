import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import type { S3StorageOptions } from "../../src/storage/s3.ts";

/** s3rver has no types; this is what is used of it. */
interface S3rver {
  run(): Promise<AddressInfo>;
  close(): Promise<void>;
}
const S3rver = createRequire(import.meta.url)("s3rver") as new (options: Record<string, unknown>) => S3rver;

/** An S3 server with the empty bucket "photos", whose files lie in the folder. */
export async function startS3(directory: string): Promise<{ options: S3StorageOptions; close(): Promise<void> }> {
  const server = new S3rver({
    address: "127.0.0.1",
    port: 0,
    silent: true,
    directory,
    configureBuckets: [{ name: "photos" }],
  });
  const { port } = await server.run();
  const options = {
    bucket: "photos",
    region: "us-east-1",
    endpoint: `http://127.0.0.1:${port}`,
    accessKeyId: "S3RVER",
    secretAccessKey: "S3RVER",
    forcePathStyle: true,
  };
  return { options, close: () => server.close() };
}
