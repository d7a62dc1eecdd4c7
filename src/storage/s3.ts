import { randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import {
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  PutObjectCommand,
  S3Client,
  S3ServiceException,
} from "@aws-sdk/client-s3";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";
import pRetry from "p-retry";
import { checkKey, checkTtl } from "./key.ts";
import { FileNotFound, type Storage } from "./storage.ts";

export interface S3StorageOptions {
  readonly bucket: string;
  /** "auto" for R2. */
  readonly region: string;
  /** For R2, MinIO and others; without it AWS. Signed URLs point to it, so readers must be able to reach it. */
  readonly endpoint?: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** True for MinIO and whatever else does not resolve `bucket.host`. */
  readonly forcePathStyle: boolean;
  /** Put before every key, so that several deployments may share a bucket: "darkroom" or "darkroom/". */
  readonly prefix?: string;
}

/** One request, body included; 100 MB at 1 MB/s. What is larger gets longer, at the same speed. */
const REQUEST_MS = 100_000;
const BYTES_PER_MS = 1_000;
const CONNECT_MS = 5_000;
/** A socket that says nothing for so long is dead. */
const IDLE_MS = 20_000;
/** Every call here may be repeated, so the client may try again by itself. */
const ATTEMPTS = 3;
/** Between the attempts with a file; doubled. */
const FIRST_DELAY_MS = 500;

/** S3, Cloudflare R2, MinIO, and what else speaks their protocol. */
export function makeS3Storage(options: S3StorageOptions): Storage {
  const { bucket } = options;
  const prefix = options.prefix ? `${checkKey(options.prefix.replace(/\/$/, ""))}/` : "";
  const at = (key: string) => ({ Bucket: bucket, Key: `${prefix}${checkKey(key)}` });

  const client = new S3Client({
    region: options.region,
    ...(options.endpoint ? { endpoint: options.endpoint } : {}),
    credentials: { accessKeyId: options.accessKeyId, secretAccessKey: options.secretAccessKey },
    forcePathStyle: options.forcePathStyle,
    // The default checksums are answered with 501 by R2 and others, and corrupt what is streamed to them.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    maxAttempts: ATTEMPTS,
    requestHandler: {
      connectionTimeout: CONNECT_MS,
      requestTimeout: REQUEST_MS,
      throwOnRequestTimeout: true,
      socketTimeout: IDLE_MS,
    },
  });

  const storage: Storage = {
    name: "s3",

    async put(key, body, contentType) {
      await client.send(new PutObjectCommand({ ...at(key), Body: body, ContentType: contentType }));
    },

    async putFile(key, path, contentType) {
      const place = at(key);
      const { size } = await stat(path);
      const requestTimeout = Math.max(REQUEST_MS, Math.ceil(size / BYTES_PER_MS));
      // The client does not try again by itself with a stream, for it is used up. Each attempt here gets a new one.
      const attempt = async () => {
        const body = createReadStream(path);
        try {
          const command = new PutObjectCommand({ ...place, Body: body, ContentLength: size, ContentType: contentType });
          await client.send(command, { requestTimeout });
        } finally {
          body.destroy();
        }
      };
      const shouldRetry = ({ error }: { error: Error }) => mayWorkLater(error);
      await pRetry(attempt, { retries: ATTEMPTS - 1, factor: 2, minTimeout: FIRST_DELAY_MS, shouldRetry });
    },

    async get(key) {
      let found: GetObjectCommandOutput;
      try {
        found = await client.send(new GetObjectCommand(at(key)));
      } catch (error) {
        if (codeOf(error) === "NoSuchKey") throw new FileNotFound(`There is no file ${key}.`);
        throw error;
      }
      if (!(found.Body instanceof Readable) || found.ContentLength === undefined) {
        throw new Error(`The store answered ${key} without a body or its length`);
      }
      return {
        body: found.Body,
        bytes: found.ContentLength,
        contentType: found.ContentType ?? "application/octet-stream",
      };
    },

    async exists(key) {
      try {
        await client.send(new HeadObjectCommand(at(key)));
        return true;
      } catch (error) {
        if (!(error instanceof S3ServiceException) || error.$metadata.httpStatusCode !== 404) throw error;
      }
      // An answer without a body does not tell a missing file from a missing bucket; this one does.
      return storage.get(key).then(
        ({ body }) => {
          body.destroy();
          return true;
        },
        (error) => {
          if (error instanceof FileNotFound) return false;
          throw error;
        },
      );
    },

    async delete(key) {
      await client.send(new DeleteObjectCommand(at(key)));
    },

    async url(key, ttlSeconds) {
      checkTtl(ttlSeconds);
      return getSignedUrl(client, new GetObjectCommand(at(key)), { expiresIn: ttlSeconds });
    },

    async check() {
      const key = `check/${randomUUID()}.txt`;
      let step = "write (s3:PutObject)";
      try {
        await storage.put(key, Buffer.from(key), "text/plain");
        step = "read (s3:GetObject)";
        const stored = await storage.get(key);
        if ((await text(stored.body)) !== key) throw new Error("what was read back is not what was written");
        step = "delete (s3:DeleteObject)";
        await storage.delete(key);
        // Without the right to list, S3 answers "forbidden" where a file is missing, and we could not tell the two apart.
        step = "see that a file is missing (s3:ListBucket)";
        await storage.get(key).then(
          (ghost) => ghost.body.destroy(),
          (error) => {
            if (!(error instanceof FileNotFound)) throw error;
          },
        );
      } catch (error) {
        throw new Error(faultOf(error, step, options), { cause: error });
      }
    },
  };
  return storage;
}

/** No answer, one that says "later", or a server in trouble; not a refusal, and not a file that is missing here. */
function mayWorkLater(error: Error): boolean {
  const status = error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined;
  if (status !== undefined) return status >= 500 || status === 408 || status === 429;
  return !("syscall" in error && "path" in error);
}

/** What is wrong, and what to do about it, in one line an operator can act on. */
function faultOf(error: unknown, step: string, { bucket, region, endpoint }: S3StorageOptions): string {
  const where = endpoint ?? `AWS S3 in ${region}`;
  const code = codeOf(error);
  switch (code) {
    case "InvalidAccessKeyId":
    case "SignatureDoesNotMatch":
    // R2's answer to an access key id of the wrong length.
    case "InvalidArgument":
    case "Unauthorized":
      return `${where} does not accept the credentials (${code}). Set the access key id and its secret anew; both must come from this account.`;
    case "RequestTimeTooSkewed":
      return `${where} refuses our clock (${code}). Set this machine's time.`;
    case "AccessDenied":
    case "Forbidden":
      return `The credentials may not ${step} in the bucket "${bucket}". Grant that right to their owner.`;
    case "NoSuchBucket":
      return `The bucket "${bucket}" does not exist at ${where}. Create it, or correct its name.`;
    case "PermanentRedirect":
    case "AuthorizationHeaderMalformed":
    case "IllegalLocationConstraintException":
    case "InvalidRegionName":
      return `The bucket "${bucket}" is not in the region "${region}" (${code}). Set the bucket's own region; for R2 "auto".`;
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return `The name in ${where} cannot be resolved (${code}). Correct the endpoint; where "bucket.host" does not resolve, use path style.`;
    case "ECONNREFUSED":
    case "ECONNRESET":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "TimeoutError":
    case "ETIMEDOUT":
      return `${where} cannot be reached (${code}). Correct the endpoint and its port, and check that this host may connect to it.`;
    default: {
      const words = error instanceof Error ? error.message : String(error);
      return `The bucket "${bucket}" at ${where} could not ${step}: ${code ?? "error"}, ${words}. Check the endpoint, the region and the credentials.`;
    }
  }
}

/** S3's word where it answered, Node's where it was not reached. */
function codeOf(error: unknown): string | null {
  if (error instanceof S3ServiceException) return error.name;
  if (!(error instanceof Error)) return null;
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  if ("code" in error && typeof error.code === "string") return error.code;
  return error.name;
}
