import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { callbackSecret } from "../src/callback-signing.ts";
import { makeGuardedPost, PostRefused, targetProblem } from "../src/storage/guarded-post.ts";
import { type Backend, startBackend } from "./rig/backend.ts";
import { darkroom } from "./rig/compiled.ts";
import { makeProcesses } from "./rig/processes.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

let backend: Backend;
let spine: Spine;
beforeAll(async () => {
  backend = await startBackend();
  spine = await startSpine({ env: { CALLBACK_ORIGINS: backend.origin } });
});
afterAll(async () => {
  await spine?.stop();
  await backend?.close();
});
afterEach(async () => {
  await spine.sql`update callbacks set next_at = null`;
  backend.received.length = 0;
  backend.answers.length = 0;
});

const submit = (more: Record<string, unknown> = {}) =>
  spine.submit({
    kind: "generation",
    user: "told",
    input: { prompt: "a lamp", width: 256, height: 256 },
    callbackUrl: `${backend.origin}/hooks/darkroom?of=mine`,
    ...more,
  });
const rowOf = async (jobId: string) => {
  const [row] = await spine.sql`
    select *, extract(epoch from next_at - now())::float8 as pause from callbacks where job_id = ${jobId}`;
  if (!row) throw new Error(`job ${jobId} has no callback`);
  return row;
};
const told = (times: number) => expect.poll(() => backend.received.length, { timeout: 20_000 }).toBe(times);
const noted = (jobId: string, what: Record<string, unknown>) =>
  expect.poll(() => rowOf(jobId), { timeout: 20_000 }).toMatchObject(what);

describe("the end of a job", () => {
  test("is told with a signature that standardwebhooks verifies, with metadata and files that open", async () => {
    const { id } = await submit({ metadata: { order: 17 } });
    await told(1);
    const [callback] = backend.genuine(spine);
    expect(callback).toMatchObject({
      type: "job.completed",
      data: { id, status: "completed", metadata: { order: 17 }, settlement: { charged: 1, kept: 1, refunded: 0 } },
    });
    expect(backend.received[0]).toMatchObject({
      path: "/hooks/darkroom?of=mine",
      headers: { "content-type": "application/json" },
    });
    expect((await fetch(callback?.data.resultUrls[0])).status).toBe(200);
    await noted(id, { next_at: null, attempts: 1, last_status: 204, last_error: null, gave_up_at: null });
    expect((await rowOf(id))["delivered_at"]).toBeInstanceOf(Date);
    // Nothing that was changed on the way is genuine.
    const [first] = backend.received;
    backend.received.push({ ...first, text: first?.text.replace("completed", "failed") ?? "" } as typeof first &
      object);
    expect(() => backend.genuine(spine)).toThrow(/No matching signature/);
    expect(() => backend.genuine(spine, "another")).toThrow(/No matching signature/);
  });

  test("is told again after 5 s, with the same id, to a backend that answered 500 and words of any length", async () => {
    backend.answers.push((response) => response.writeHead(500).end("out of order ".repeat(10_000)));
    const { id } = await submit();
    await told(1);
    await noted(id, { attempts: 1, last_status: 500, delivered_at: null });
    const waiting = await rowOf(id);
    expect(waiting["pause"]).toBeGreaterThan(3);
    expect(waiting["last_error"]).toMatch(/^answered 500: out of order/);
    expect(waiting["last_error"].length).toBeLessThanOrEqual(1_024);
    await told(2);
    const [first, second] = backend.genuine(spine);
    expect(second?.id).toBe(first?.id);
    expect(second?.timestamp).toBe(first?.timestamp);
    await noted(id, { attempts: 2, last_status: 204, next_at: null });
  });

  test("is told nobody behind a redirect", async () => {
    backend.answers.push((response) => response.writeHead(307, { location: `${backend.origin}/elsewhere` }).end());
    const { id } = await submit();
    await noted(id, { attempts: 1, last_status: 307, delivered_at: null });
    expect(backend.received.map(({ path }) => path)).toEqual(["/hooks/darkroom?of=mine"]);
  });

  test("is not told again to one who says that it is gone, unless somebody asks for it", async () => {
    backend.answers.push((response) => response.writeHead(410).end());
    const { id } = await submit();
    await noted(id, { attempts: 1, last_status: 410, next_at: null });
    expect((await rowOf(id))["gave_up_at"]).toBeInstanceOf(Date);

    const again = await spine.call("POST", `/api/jobs/${id}/callback`);
    expect(again).toMatchObject({ status: 202, body: { type: "job.completed", lastStatus: 410 } });
    await told(2);
    expect(new Set(backend.genuine(spine).map((each) => each.id))).toEqual(new Set([again.body.id]));
    await noted(id, { gave_up_at: null, next_at: null, last_status: 204 });
  });

  test("is given up after eleven attempts, the last a day after the one before", async () => {
    const { id } = await submit();
    await told(1);
    await noted(id, { last_status: 204 });
    const pauses: unknown[] = [];
    for (let attempts = 1; attempts < 11; attempts++) {
      backend.answers.push((response) => response.writeHead(503).end());
      await spine.sql`
        update callbacks set attempts = ${attempts - 1}, next_at = now(), last_status = null where job_id = ${id}`;
      await noted(id, { last_status: 503, attempts });
      pauses.push(Math.round(Number((await rowOf(id))["pause"]) / 5) * 5);
    }
    expect(pauses).toEqual([5, 30, 120, 600, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400]);
    backend.answers.push((response) => response.writeHead(503).end());
    await spine.sql`update callbacks set next_at = now() where job_id = ${id}`;
    await noted(id, { attempts: 11, next_at: null });
    expect((await rowOf(id))["gave_up_at"]).toBeInstanceOf(Date);
  }, 60_000);

  test("is given up when those who told it vanished each time, the last time too", async () => {
    const { id } = await submit();
    await told(1);
    await noted(id, { last_status: 204 });
    await spine.sql`
      update callbacks set attempts = 11, next_at = now(), delivered_at = null, last_status = null where job_id = ${id}`;
    await noted(id, { next_at: null, attempts: 11, last_error: expect.stringContaining("vanished") });
    expect((await rowOf(id))["gave_up_at"]).toBeInstanceOf(Date);
    expect(backend.received).toHaveLength(1);
  });

  test("is told again by another worker when the first one dies before it could note the answer", async () => {
    const own = await startSpine({ workers: 0, env: { CALLBACK_ORIGINS: backend.origin } });
    const elsewhere = await makeProcesses(own);
    try {
      const { id } = await own.submit({
        kind: "generation",
        user: "told twice",
        input: { prompt: "a lamp", width: 256, height: 256 },
        callbackUrl: `${backend.origin}/twice`,
      });
      const doomed = await elsewhere.start("worker", { FAULT: "deliver.sent=kill" });
      expect(await Promise.race([doomed.ended, new Promise((r) => setTimeout(r, 50_000, "lives"))])).toBe("SIGKILL");
      expect(backend.received).toHaveLength(1);
      const [row] = await own.sql`select *, next_at > now() as lapses from callbacks where job_id = ${id}`;
      expect(row).toMatchObject({ attempts: 1, delivered_at: null, lapses: true });
      await own.sql`update callbacks set next_at = now()`;
      await own.startWorker();
      await told(2);
      const [first, second] = backend.genuine(own);
      expect(second?.id).toBe(first?.id);
    } finally {
      await elsewhere.close();
      await own.stop();
    }
  }, 120_000);
});

describe("an address for callbacks", () => {
  test.each([
    ["http://example.com/hook", /begin with https/],
    ["https://10.0.0.5/hook", /not public/],
    ["https://127.0.0.1/hook", /not public/],
    ["https://0x7f.1/hook", /not public/],
    ["https://[::1]/hook", /not public/],
    ["https://169.254.169.254/latest/meta-data", /not public/],
    ["https://localhost/hook", /not public/],
    ["https://backend/hook", /not public/],
    ["https://example.com:8443/hook", /port 443/],
    ["https://me:secret@example.com/hook", /user name or password/],
  ])("%s is refused with its field before anything is charged", async (callbackUrl, why) => {
    const { status, body } = await spine.call("POST", "/api/jobs", {
      body: { kind: "generation", user: "nobody", input: { prompt: "x" }, callbackUrl },
      headers: { "idempotency-key": crypto.randomUUID() },
    });
    expect([status, body.code, body.errors[0].pointer]).toEqual([422, "invalid_input", "/callbackUrl"]);
    expect(body.detail).toMatch(why);
    expect(body.detail).toMatch(/Nothing was charged\.$/);
  });

  test("is taken when it is public, or begins with an origin that the operator allows", () => {
    const allowedOrigins = ["http://backend:8080"];
    expect(targetProblem("https://example.com/hook?a=b", { allowedOrigins })).toBeNull();
    expect(targetProblem("http://backend:8080/hook", { allowedOrigins })).toBeNull();
    expect(targetProblem("http://backend:8081/hook", { allowedOrigins })).toMatch(/CALLBACK_ORIGINS/);
    expect(targetProblem("http://backend:8080.evil.example/hook", { allowedOrigins })).not.toBeNull();
  });

  test("whose name leads inside is posted nothing, whatever it looks like", async () => {
    for (const address of ["127.0.0.1", "10.1.2.3", "::1", "169.254.169.254"]) {
      const post = makeGuardedPost({
        allowedOrigins: [],
        resolve: async () => [{ address, family: address.includes(":") ? 6 : 4 }],
      });
      const sending = post("https://looks-public.example/hook", { headers: {}, body: "{}", timeoutMs: 2_000 });
      await expect(sending).rejects.toThrow(PostRefused);
    }
    expect(backend.received).toEqual([]);
  });

  test("that never answers is waited for no longer than the limit", async () => {
    backend.answers.push(() => {});
    const post = makeGuardedPost({ allowedOrigins: [backend.origin] });
    const startedAt = performance.now();
    const sending = post(`${backend.origin}/silent`, { headers: {}, body: "{}", timeoutMs: 500 });
    await expect(sending).rejects.toThrow();
    expect(performance.now() - startedAt).toBeLessThan(5_000);
  });
});

test("a repetition is refused for a job that has not ended, has nobody to tell, or is another app's", async () => {
  const silent = await spine.submit({
    kind: "generation",
    user: "told",
    input: { prompt: "x", width: 256, height: 256 },
  });
  const early = await submit({ input: { prompt: "[sandbox: slow=2]", width: 256, height: 256 } });
  const again = (id: string, key?: string) => spine.call("POST", `/api/jobs/${id}/callback`, key ? { key } : {});
  expect((await again(early.id)).body.detail).toMatch(/told when it ends/);
  await spine.ended(silent.id);
  expect((await again(silent.id)).body.detail).toMatch(/nobody to tell/);
  await spine.ended(early.id);
  expect((await again(early.id, await spine.keyFor("virtual-staging"))).status).toBe(404);
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
});

test("the command line prints the secret that an app's callbacks are signed with", async () => {
  const { out } = await darkroom(["keys", "callback-secret", "demo"], { SIGNING_SECRET: spine.config.SIGNING_SECRET });
  expect(out.trim()).toBe(callbackSecret(spine.config.SIGNING_SECRET, "demo"));
  expect(out).toMatch(/^whsec_[A-Za-z0-9+/]{43}=\n$/);
});
