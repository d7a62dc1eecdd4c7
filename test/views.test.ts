import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import postgres from "postgres";
import sharp from "sharp";
import { v7 as uuidv7 } from "uuid";
import { afterAll, beforeAll, describe, expect, inject, test } from "vitest";
import type { JobJson } from "../src/job-json.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

/**
 * A deployment whose role owns its tables and is nothing more: no superuser, and not past row-level security. Beside it
 * the roles that such databases have for signed-in users.
 */
const suffix = randomBytes(4).toString("hex");
const [OWNER, SERVICE, EVERYBODY, FRONTEND] = ["owner", "service", "everybody", "frontend"].map(
  (name) => `dr_${name}_${suffix}`,
) as [string, string, string, string];
const DATABASE = `dr_views_${suffix}`;
const ANA = "0198c0de-0000-7000-8000-00000000000a";
const BEA = "0198c0de-0000-7000-8000-00000000000b";

let admin: postgres.Sql;
let spine: Spine;
/** Has every right on every table, as Supabase gives it: what holds him back are the policies alone. */
let everybody: postgres.Sql;
let frontend: postgres.Sql;
const jobs: Record<"image" | "staging" | "edit" | "video" | "failed" | "canceled" | "beas", JobJson> = {} as never;
const tune = uuidv7();

beforeAll(async () => {
  const server = inject("databaseUrl");
  admin = postgres(server, { max: 1, onnotice: () => {} });
  for (const role of [OWNER, SERVICE, EVERYBODY, FRONTEND])
    await admin.unsafe(`create role ${role} login password '${suffix}'`);
  await admin.unsafe(`create database ${DATABASE} owner ${OWNER}`);
  spine = await startSpine({ databaseUrl: urlOf(OWNER) });
  await spine.sql.unsafe(`
    grant select, insert, update, delete on all tables in schema public to ${EVERYBODY};
    grant usage on all sequences in schema public to ${EVERYBODY}`);
  await spine.sql.unsafe(await documentedGrants());
  everybody = postgres(urlOf(EVERYBODY), { max: 1, onnotice: () => {} });
  frontend = postgres(urlOf(FRONTEND), { max: 1, onnotice: () => {} });
  await runJobs();
}, 120_000);

afterAll(async () => {
  await Promise.all([everybody, frontend].map((sql) => sql?.end({ timeout: 5 })));
  await spine?.stop();
  await admin.unsafe(`drop database if exists ${DATABASE} with (force)`);
  for (const role of [OWNER, SERVICE, EVERYBODY, FRONTEND]) await admin.unsafe(`drop role if exists ${role}`);
  await admin.end({ timeout: 5 });
});

function urlOf(role: string): string {
  const url = new URL(inject("databaseUrl"));
  [url.pathname, url.username, url.password] = [`/${DATABASE}`, role, suffix];
  return url.href;
}

/** The lines of docs/README.md, for the roles of this test. */
async function documentedGrants(): Promise<string> {
  const page = await readFile(new URL("../docs/README.md", import.meta.url), "utf8");
  const lines = /```sql\n(.*?)```/s.exec(page)?.[1];
  if (!lines) throw new Error("docs/README.md has no grants");
  return lines.replaceAll("anon, authenticated", FRONTEND).replaceAll("authenticated", FRONTEND);
}

async function runJobs(): Promise<void> {
  const picture = await sharp({ create: { width: 640, height: 480, channels: 3, background: "#8899aa" } })
    .png()
    .toBuffer();
  const form = new FormData();
  form.set("file", new Blob([new Uint8Array(picture)], { type: "image/png" }), "room.png");
  const upload = await spine.call("POST", "/api/uploads", { body: form });
  expect(upload.status, JSON.stringify(upload.body)).toBe(201);
  const image = upload.body.id as string;
  const submit = async (kind: string, input: Record<string, unknown>, user = ANA) =>
    (await spine.submit({ kind, user, input, metadata: { campaign: "spring" } })).id;

  const ids = {
    image: await submit("generation", { prompt: "a fox", images: 2 }),
    staging: await submit("staging", { image }),
    edit: await submit("edit", { image, instruction: "make it blue" }),
    video: await submit("video", { prompt: "a fox runs", seconds: 5 }),
    failed: await submit("generation", { prompt: "a fox [sandbox: fail=model]" }),
    canceled: await submit("generation", { prompt: "a slow fox [sandbox: seconds=600]" }),
    beas: await submit("generation", { prompt: "a bear" }, BEA),
  };
  await spine.call("POST", `/api/jobs/${ids.canceled}/cancel`);
  for (const [name, id] of Object.entries(ids)) jobs[name as keyof typeof jobs] = await spine.ended(id, 60_000);
  await insertTraining();
}

/** A training as one that ran would have left it. */
async function insertTraining(): Promise<void> {
  const run = uuidv7();
  const { sql } = spine;
  await sql.begin(async (tx) => {
    await tx`
      insert into jobs (id, app_id, user_id, kind, model, status, input, variants, min_success, max_attempts, max_rebuys,
        credits, price_lines, idempotency_key, fingerprint, deadline_at, started_at, ended_at)
      values (${tune}, 'demo', ${ANA}, 'training', 'flux-lora-trainer', 'completed', '{}', 1, 1, 1, 0, 0, '[]',
        ${`training ${suffix}`}, ${Buffer.alloc(32)}, now(), now(), now())`;
    await tx`insert into settlements (job_id, charged, kept, refunded) values (${tune}, 0, 0, 0)`;
    await tx`
      insert into runs (id, job_id, variant, attempt, status, provider, model, input, provider_run_id, expires_at, ended_at)
      values (${run}, ${tune}, 0, 1, 'stored', 'replicate', 'ostris/flux-dev-lora-trainer', '{}', ${`tr-${suffix}`}, now(), now())`;
    await tx`
      insert into assets (id, app_id, role, job_id, run_id, storage_key, sha256, bytes, content_type)
      values (${uuidv7()}, 'demo', 'lora', ${tune}, ${run}, 'apps/demo/jobs/x.safetensors', ${Buffer.alloc(32)}, 1, 'application/octet-stream')`;
    await tx`
      insert into trained_models (id, app_id, user_id, name, status, family, trigger_word, task, resolution, steps, photos,
        quality, provider, ready_at)
      values (${tune}, 'demo', ${ANA}, 'Ana', 'ready', 'flux', 'ANA', 'face', 1024, 1000, 12, 87, 'replicate', now())`;
  });
}

const session = (user: string) => ({ sub: user, app: "demo" });

/** Runs a query as somebody whose token says so; null: nobody is signed in. */
function as<T extends readonly postgres.Row[]>(
  claims: Record<string, unknown> | null,
  query: (sql: postgres.TransactionSql) => Promise<T>,
  role = everybody,
): Promise<T> {
  return role.begin(async (tx) => {
    await tx`select set_config('request.jwt.claims', ${claims ? JSON.stringify(claims) : ""}, true)`;
    return query(tx);
  }) as Promise<T>;
}

const rows = async (table: string, where = "true") =>
  (await spine.sql.unsafe(`select * from ${table} where ${where} order by 1`)).map((row) => ({ ...row }));

const OWN_TABLES = ["accounts", "credit_ledger", "jobs", "runs", "assets", "settlements", "ratings", "trained_models"];
const VIEWS = ["generation_jobs", "images", "videos", "edited_images", "prompts", "tunes", "models"];

describe("a role that owns the tables and is nothing more", () => {
  test("runs jobs of every kind although row-level security is on, and the money adds up", async () => {
    const [role] = await spine.sql`
      select rolsuper or rolbypassrls as powerful from pg_roles where rolname = current_user`;
    expect(role).toEqual({ powerful: false });
    expect(Object.fromEntries(Object.entries(jobs).map(([name, job]) => [name, job.status]))).toEqual({
      image: "completed",
      staging: "completed",
      edit: "completed",
      video: "completed",
      failed: "failed",
      canceled: "canceled",
      beas: "completed",
    });
    expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  });

  test("is needed: another role sees nothing and writes nothing, until it is made a member", async () => {
    await spine.sql.unsafe(`grant select, insert on all tables in schema public to ${SERVICE}`);
    const connected = () => postgres(urlOf(SERVICE), { max: 1, onnotice: () => {} });
    let service = connected();
    try {
      expect(await service`select * from jobs`).toHaveLength(0);
      await expect(
        service`insert into apps (id, name, signup_grant, daily_allowance) values ('x', 'x', 0, 0)`,
      ).rejects.toThrow(/row-level security/);
      await admin.unsafe(`grant ${OWNER} to ${SERVICE}`);
      await service.end({ timeout: 5 });
      service = connected();
      expect(await service`select * from jobs`).toHaveLength(8);
    } finally {
      await service.end({ timeout: 5 });
    }
  });
});

test("every table has row-level security, and every view reads as whoever asks", async () => {
  const relations = await spine.sql`
    select c.relname as name, c.relkind as kind, c.relrowsecurity as secured,
           coalesce('security_invoker=true' = any (c.reloptions), false) as invoker
    from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') order by 1`;
  expect(relations.filter((each) => (each["kind"] === "v" ? !each["invoker"] : !each["secured"]))).toEqual([]);
  expect(relations.filter((each) => each["kind"] === "v").map((each) => each["name"])).toEqual(
    [...VIEWS, "ledger_drift"].sort(),
  );
  const policies = await spine.sql`select distinct tablename as name, cmd from pg_policies order by 1`;
  expect(policies.map(({ name, cmd }) => [name, cmd])).toEqual([...OWN_TABLES].sort().map((name) => [name, "SELECT"]));
});

describe("the products' tables", () => {
  const pathOf = (url: string | undefined) => decodeURIComponent(new URL(url ?? "").pathname).replace(/^\/files\//, "");

  test("generation_jobs has the columns of S3 and S4, and their words for the status", async () => {
    const of = Object.fromEntries((await rows("generation_jobs")).map((row) => [row["id"], row]));
    const { staging, failed, canceled, image, beas } = jobs;
    expect(of[staging.id]).toMatchObject({
      app_id: "demo",
      user_id: ANA,
      operation_type: "staging",
      status: "completed",
      cost: "40",
      error_message: null,
      metadata: { campaign: "spring" },
      creditsUsed: "40",
      replicateJobId: staging.runs.map((run) => run.providerRunId).join(","),
    });
    expect(of[staging.id]?.["replicateJobId"]).toMatch(/^[a-z0-9]+,[a-z0-9]+$/);
    expect(of[staging.id]?.["resultUrls"]).toEqual(staging.resultUrls.map(pathOf));
    expect(of[staging.id]?.["result_url"]).toBe(pathOf(staging.resultUrls[0]));
    expect(of[staging.id]?.["completed_at"]?.toISOString()).toBe(staging.endedAt);
    expect(of[failed.id]).toMatchObject({ status: "failed", error_message: failed.failure?.code, creditsUsed: "0" });
    expect(of[failed.id]).toMatchObject({ resultUrls: [], result_url: null, cost: "1" });
    expect(of[canceled.id]).toMatchObject({ status: "failed", error_message: "canceled", creditsUsed: "0" });
    expect(of[image.id]).toMatchObject({ status: "completed", cost: "2", creditsUsed: "2" });
    expect(of[beas.id]?.["user_id"]).toBe(BEA);
    expect(Object.keys(of)).toHaveLength(8);
  });

  test("images, videos and edited_images have one row for each output", async () => {
    const images = await rows("images");
    expect(images.map((row) => row["job_id"]).sort()).toEqual([jobs.image.id, jobs.image.id, jobs.beas.id].sort());
    const anas = images.filter((row) => row["user_id"] === ANA).map((row) => row["url"]);
    expect(anas.sort()).toEqual(jobs.image.resultUrls.map(pathOf));
    expect(images[0]).toMatchObject({ app_id: "demo", prompt: "a fox", width: 1024, height: 1024 });
    expect(await rows("videos")).toMatchObject([
      { job_id: jobs.video.id, prompt: "a fox runs", duration_seconds: 5, url: pathOf(jobs.video.resultUrls[0]) },
    ]);
    const [input] = await rows("assets", "role = 'input'");
    expect(await rows("edited_images")).toMatchObject([
      {
        job_id: jobs.edit.id,
        prompt: "make it blue",
        input_image_url: input?.["storage_key"],
        output_image_url: pathOf(jobs.edit.resultUrls[0]),
      },
    ]);
  });

  test("prompts and tunes have the columns of S2, and Replicate's words for the status", async () => {
    const prompts = Object.fromEntries((await rows("prompts")).map((row) => [row["id"], row]));
    expect(Object.keys(prompts).sort()).toEqual([jobs.image.id, jobs.failed.id, jobs.canceled.id, jobs.beas.id].sort());
    expect(prompts[jobs.image.id]).toMatchObject({
      user_id: ANA,
      tune_id: null,
      prompt: "a fox",
      status: "succeeded",
      model_type: "flux-schnell",
      provider: jobs.image.runs[0]?.provider,
      replicate_prediction_id: jobs.image.runs.map((run) => run.providerRunId).join(","),
      image_urls: jobs.image.resultUrls.map(pathOf),
      generation_config: { width: 1024, height: 1024, num_outputs: 2 },
    });
    expect([jobs.failed.id, jobs.canceled.id].map((id) => prompts[id]?.["status"])).toEqual(["failed", "canceled"]);
    expect(await rows("tunes")).toMatchObject([
      {
        id: tune,
        user_id: ANA,
        replicate_training_id: `tr-${suffix}`,
        provider: "replicate",
        model_type: "flux-lora",
        status: "succeeded",
        trigger_word: "ANA",
        model_url: "apps/demo/jobs/x.safetensors",
        training_config: { max_train_steps: 1000, resolution: 1024 },
      },
    ]);
  });

  test("models has S1's words for the status, and the quality as a part of one", async () => {
    expect(await rows("models")).toMatchObject([
      { id: tune, userId: ANA, status: "READY", progress: 100, qualityScore: 0.87, totalPhotos: 12 },
    ]);
    const told = async (status: string, job: string) => {
      await spine.sql`
        update jobs set status = ${job}, ended_at = case when ${job} in ('completed', 'failed', 'canceled') then now() end,
          failure_code = case when ${job} = 'failed' then 'provider_failed' end where id = ${tune}`;
      await spine.sql`update trained_models set status = ${status} where id = ${tune}`;
      const [model] = await rows("models");
      const [own] = await rows("tunes");
      return [model?.["status"], own?.["status"]];
    };
    expect(await told("training", "pending")).toEqual(["PROCESSING", "starting"]);
    expect(await told("training", "processing")).toEqual(["TRAINING", "processing"]);
    expect(await told("failed", "failed")).toEqual(["ERROR", "failed"]);
    expect(await told("failed", "canceled")).toEqual(["ERROR", "canceled"]);
    expect(await told("deleted", "completed")).toEqual(["DELETED", undefined]);
    expect(await told("ready", "completed")).toEqual(["READY", "succeeded"]);
  });
});

describe("a signed-in user", () => {
  const count = async (claims: Record<string, unknown> | null, relation: string) =>
    (await as(claims, (sql) => sql.unsafe(`select * from ${relation}`))).length;
  const counts = async (claims: Record<string, unknown> | null, relations: readonly string[]) =>
    Object.fromEntries(await Promise.all(relations.map(async (name) => [name, await count(claims, name)] as const)));
  const none = (relations: readonly string[]) => Object.fromEntries(relations.map((name) => [name, 0]));

  test("sees his own rows, in the views too, and none of another's", async () => {
    await spine.sql`insert into ratings (job_id, variant, score) values (${jobs.image.id}, 0, 5) on conflict do nothing`;
    const ofUser = async (table: string, where: string) => [table, (await rows(table, where)).length] as const;
    const jobsOf = (user: string) => `job_id in (select id from jobs where user_id = '${user}')`;
    for (const user of [ANA, BEA]) {
      const own = Object.fromEntries(
        await Promise.all([
          ...["accounts", "credit_ledger", "jobs", "trained_models"].map((name) => ofUser(name, `user_id = '${user}'`)),
          ...["runs", "settlements", "ratings"].map((name) => ofUser(name, jobsOf(user))),
          // Ana's three jobs were made from one picture.
          ofUser("assets", `${jobsOf(user)} or role = 'input' and '${user}' = '${ANA}'`),
          ...VIEWS.map((name) => ofUser(name, `${name === "models" ? `"userId"` : "user_id"} = '${user}'`)),
        ]),
      );
      expect(await counts(session(user), [...OWN_TABLES, ...VIEWS])).toEqual(own);
      expect(own["jobs"]).toBe(user === ANA ? 7 : 1);
      expect(own["generation_jobs"]).toBe(user === ANA ? 7 : 1);
    }
    const found = await as(session(BEA), (sql) => sql`select * from jobs where id = ${jobs.image.id}`);
    expect(found).toHaveLength(0);
  });

  test("sees nothing without a session, as nobody of ours, or signed in to another app", async () => {
    const all = [...OWN_TABLES, ...VIEWS];
    for (const claims of [null, {}, { role: "anon" }, session("nobody"), { sub: ANA, app: "other" }])
      expect(await counts(claims, all)).toEqual(none(all));
  });

  test("sees nothing of what is for the service only", async () => {
    const tables = await spine.sql`
      select relname as name from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'`;
    const service = tables.map((each) => each["name"] as string).filter((name) => !OWN_TABLES.includes(name));
    expect(service).toContain("api_keys");
    expect(await counts(session(ANA), service)).toEqual(none(service));
    expect(await count(session(ANA), "ledger_drift")).toBe(0);
  });

  test("writes nothing, whatever he was granted, and not by the functions either", async () => {
    const ana = session(ANA);
    const changed = await as(ana, (sql) => sql`update accounts set balance = 1000000 returning 1`);
    expect(changed).toHaveLength(0);
    expect(await as(ana, (sql) => sql`delete from jobs returning 1`)).toHaveLength(0);
    for (const call of [
      "insert into accounts (app_id, user_id) values ('demo', 'new')",
      `select post_entry('demo', '${ANA}', 'grant', 'balance', 1000, null, null, 'mine', '{}')`,
      `select refund_credits('${ANA}', 1000, 'mine', '{"app": "demo"}')`,
      `select atomic_charge_credits('${ANA}', 'image', 1, 'x', '{"app": "demo"}')`,
      `select check_rate_limit('user:x', 'request', 1, 60, '{"app": "demo"}')`,
    ])
      await expect(
        as(ana, (sql) => sql.unsafe(call)),
        call,
      ).rejects.toThrow();
    expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
  });

  test("with the documented grants reads the views and his runs, and not what a run cost", async () => {
    const read = (query: string) => as(session(ANA), (sql) => sql.unsafe(query), frontend);
    for (const view of VIEWS) expect((await read(`select * from ${view}`)).length, view).toBeGreaterThan(0);
    const anas = await spine.sql`select id from runs where job_id in (select id from jobs where user_id = ${ANA})`;
    expect(await read("select id, status, provider_run_id from runs")).toHaveLength(anas.length);
    expect((await read("select id, status, input from jobs")).length).toBeGreaterThan(0);
    for (const column of ["callback_url", "worker", "failure_detail"])
      await expect(read(`select ${column} from jobs`), column).rejects.toThrow(/permission denied/);
    await expect(read("select cost_micro_usd from runs")).rejects.toThrow(/permission denied/);
    await expect(read("select * from api_keys")).rejects.toThrow(/permission denied/);
  });

  test("is found by indexes, in the tables and in the views", async () => {
    for (const relation of [...OWN_TABLES, ...VIEWS]) {
      const plan = await as(session(ANA), async (sql) => {
        await sql`set local enable_seqscan = off`;
        return sql.unsafe(`explain (costs off) select * from ${relation}`);
      });
      const text = plan.map((row) => row["QUERY PLAN"]).join("\n");
      expect(text, relation).not.toMatch(/Seq Scan/);
      if (relation !== "accounts") expect(text, relation).toMatch(/Index Cond/);
    }
  });

  test("is of the app that his token names, which he cannot write himself, or of the only one", async () => {
    expect(await count({ sub: ANA, app_metadata: { app: "demo" } }, "jobs")).toBe(7);
    // The deployment has several apps.
    expect(await count({ sub: ANA }, "jobs")).toBe(0);
    expect(await count({ sub: ANA, user_metadata: { app: "demo" } }, "jobs")).toBe(0);
    const bySetting = await as({ sub: ANA }, async (sql) => {
      await sql`select set_config('darkroom.app', 'demo', true)`;
      return sql`select * from jobs`;
    });
    expect(bySetting).toHaveLength(7);
    await spine.sql`delete from plans where app_id <> 'demo'`;
    await spine.sql`delete from apps where id <> 'demo'`;
    expect(await count({ sub: ANA }, "jobs")).toBe(7);
    expect(await count({ sub: ANA, app: "other" }, "jobs")).toBe(0);
  });
});
