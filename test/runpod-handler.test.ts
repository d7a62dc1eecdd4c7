import { execFile, spawn, spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { failureOf } from "../src/providers/runpod-job.ts";

/** The handler is Python because RunPod's worker is; without an interpreter these are skipped, and say so. */
const hasPython = spawnSync("python3", ["--version"]).status === 0;
const FOLDER = "examples/runpod-handler";

interface Job {
  readonly id: string;
  readonly input: Readonly<Record<string, unknown>>;
}
interface Handled {
  /** Null: it ended without one. */
  readonly answer: {
    readonly error?: string;
    readonly images?: { readonly data: string; readonly type: string }[];
  } | null;
  readonly code: number | null;
  readonly stderr: string;
}

describe.skipIf(!hasPython)("our handler for RunPod", () => {
  /** A bucket that knows conditional writes, which s3rver does not. */
  const objects = new Map<string, Buffer>();
  const writes: string[] = [];
  let pictures: Promise<void> = Promise.resolve();
  let server: Server;
  let environment: NodeJS.ProcessEnv;

  beforeAll(async () => {
    server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk) => chunks.push(chunk));
      request.on("end", async () => {
        const { pathname, searchParams } = new URL(request.url ?? "", "http://bucket");
        const key = pathname.replace(/^\/runs-bucket\//, "");
        const signed = request.headers.authorization ?? searchParams.get("X-Amz-Signature");
        const answer = (status: number, body: Buffer | string = "") => response.writeHead(status).end(body);
        if (!signed || !pathname.startsWith("/runs-bucket/")) return answer(403);
        if (request.method === "GET") return answer(objects.has(key) ? 200 : 404, objects.get(key));
        if (request.headers["if-none-match"] === "*" && objects.has(key)) return answer(412);
        if (key.endsWith(".png")) await pictures;
        objects.set(key, Buffer.concat(chunks));
        writes.push(key);
        return answer(200);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    environment = {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      PYTHONDONTWRITEBYTECODE: "1",
      S3_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      S3_BUCKET: "runs-bucket",
      S3_ACCESS_KEY_ID: "key",
      S3_SECRET_ACCESS_KEY: "secret",
    };
  });
  afterAll(() => server.close());
  beforeEach(() => {
    objects.clear();
    writes.length = 0;
  });

  /** One worker, as RunPod would start it, with one job. */
  function handle(job: Job, env = environment): Promise<Handled> {
    return new Promise((resolve) => {
      const child = spawn("python3", [`${FOLDER}/handler.py`, "--local"], { env });
      let stdout = "";
      let stderr = "";
      child.stdout.on("data", (text) => {
        stdout += text;
      });
      child.stderr.on("data", (text) => {
        stderr += text;
      });
      child.on("close", (code) => resolve({ answer: stdout === "" ? null : JSON.parse(stdout), code, stderr }));
      child.stdin.end(JSON.stringify(job));
    });
  }

  const intent = (seconds = 60) => ({
    id: randomUUID(),
    not_after: new Date(Date.now() + seconds * 1_000).toISOString(),
  });
  const job = (id: string, to: unknown, rest: object = {}): Job => ({
    id,
    input: { prompt: "a chair", seed: 7, intent: to, ...rest },
  });
  /** No picture is stored until the returned function is called. */
  const holdPictures = () => {
    let release = () => {};
    pictures = new Promise((resolve) => {
      release = resolve;
    });
    return release;
  };
  const claimedBy = (id: string) => JSON.parse(objects.get(`claims/${id}`)?.toString() ?? "{}").job;

  test("holds back what its safety checker marks, in words that are known as a refusal, unless the order turns it off", () => {
    const checked = (order: object, score: number) => {
      const classify = `lambda image: [{"label": "normal", "score": 0.0}, {"label": "nsfw", "score": ${score}}]`;
      const code = `import sys; sys.path.insert(0, "${FOLDER}"); from painters import checked; print(checked("picture", ${classify}, __import__("json").loads(sys.argv[1])))`;
      return spawnSync("python3", ["-c", code, JSON.stringify(order)], { encoding: "utf8", env: environment });
    };
    expect(checked({}, 0.2).stdout).toBe("picture\n");
    expect(checked({ safety: false }, 0.99).stdout).toBe("picture\n");
    for (const order of [{}, { safety: true }]) {
      const { stderr, status } = checked(order, 0.99);
      expect(status).toBe(1);
      expect(failureOf(stderr.trimEnd().split("\n").at(-1) ?? "")).toBe("content_refused");
    }
  });

  test("claims its intent, paints, stores the output under the intent, and answers a URL to it", async () => {
    const to = intent();
    const { answer } = await handle(job("job-1", to));
    expect(writes).toEqual([`claims/${to.id}`, `runs/${to.id}/0.png`, `runs/${to.id}/answer`]);
    expect(claimedBy(to.id)).toBe("job-1");
    expect(answer?.images).toHaveLength(1);
    expect(answer?.images?.[0]).toMatchObject({ type: "s3_url", filename: "0.png" });
    const picture = Buffer.from(await (await fetch(answer?.images?.[0]?.data ?? "")).arrayBuffer());
    expect(picture.subarray(1, 4).toString()).toBe("PNG");
  });

  test("of two concurrent orders of one intent one runs, and the other says who does", async () => {
    const to = intent();
    // Whoever has won is still at work while the other one is told.
    const release = holdPictures();
    const both = ["job-1", "job-2"].map((id) => handle(job(id, to)));
    const { answer } = await Promise.race(both);
    expect(answer?.error).toContain(`intent refused (taken): job ${claimedBy(to.id)} began it at `);
    release();
    const painted = (await Promise.all(both)).filter((each) => each.answer?.images);
    expect(painted).toHaveLength(1);
    expect(writes.filter((key) => key.endsWith(".png"))).toHaveLength(1);
  });

  test("a later order of the same intent gets what the first one stored", async () => {
    const to = intent();
    await handle(job("job-1", to));
    const { answer } = await handle(job("job-2", to, { die: true }));
    expect(answer?.images?.[0]?.data).toContain(`/runs/${to.id}/0.png?`);
    expect(writes).toHaveLength(3);
  });

  test("an order that comes too late is refused, and leaves no claim", async () => {
    const { answer } = await handle(job("job-1", intent(-1)));
    expect(answer?.error).toMatch(/^intent refused \(late\): it was not to begin after 2/);
    expect(writes).toEqual([]);
  });

  test("a worker that dies after its claim leaves a claim that says so to every other job", async () => {
    const to = intent();
    expect(await handle(job("job-1", to, { die: true }))).toMatchObject({ answer: null, code: 137 });
    expect(writes).toEqual([`claims/${to.id}`]);
    const { answer } = await handle(job("job-2", to));
    expect(answer?.error).toMatch(/^intent refused \(taken\): job job-1 began it at 2.* has stored no answer/);
    expect(answer?.error).toContain("its worker died");
    expect(writes).toHaveLength(1);
  });

  test("the same job, given to a second worker after the first one died, goes on", async () => {
    const to = intent();
    await handle(job("job-1", to, { die: true }));
    const { answer } = await handle(job("job-1", to));
    expect(answer?.images).toHaveLength(1);
    expect(writes.filter((key) => key.startsWith("claims/"))).toHaveLength(1);
  });

  test.each<[string, unknown]>([
    ["none", undefined],
    ["a path for an id", { id: "../claims", not_after: "2030-01-01T00:00:00Z" }],
    ["no time", { id: "a" }],
    ["a time that is none", { id: "a", not_after: "soon" }],
  ])("an order is refused whose intent is malformed: %s", async (_name, to) => {
    expect((await handle(job("job-1", to))).answer?.error).toMatch(/^Invalid input: intent/);
    expect(writes).toEqual([]);
  });

  test("names what is missing in its environment", async () => {
    const { answer, stderr, code } = await handle(job("job-1", intent()), { ...environment, S3_BUCKET: "" });
    expect([answer, code]).toEqual([null, 1]);
    expect(stderr).toContain("Set S3_BUCKET");
  });

  test("fails aloud when the bucket refuses, without having painted", async () => {
    const { code, stderr } = await handle(job("job-1", intent(), { die: true }), {
      ...environment,
      S3_BUCKET: "other",
    });
    expect(code).toBe(1);
    expect(stderr).toContain("answered 403: the credentials need");
  });

  test("signs as Amazon's own examples are signed", async () => {
    const program = `
import sys
sys.path.insert(0, "${FOLDER}")
from bucket import sign
secret, now, host = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524T000000Z", "examplebucket.s3.amazonaws.com"
empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
headers = {"host": host, "range": "bytes=0-9", "x-amz-content-sha256": empty, "x-amz-date": now}
print(sign("GET", "/test.txt", {}, headers, empty, now, "us-east-1", secret))
query = {"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request",
  "X-Amz-Date": now, "X-Amz-Expires": "86400", "X-Amz-SignedHeaders": "host"}
print(sign("GET", "/test.txt", query, {"host": host}, "UNSIGNED-PAYLOAD", now, "us-east-1", secret))
`;
    const { stdout } = await promisify(execFile)("python3", ["-B", "-c", program]);
    expect(stdout.trim().split("\n")).toEqual([
      "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
      "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    ]);
  });
});
