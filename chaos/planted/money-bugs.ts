import type { Bug } from "./bug.ts";

/** Where the accept_jobs and the settle_job are that count. */
const ACCEPT = "migrations/0008_products.sql";
const SETTLE = ACCEPT;
const CHARGE = "        account := debit(account, request.credits, request.id, request.kind, '{}');\n";

/** Acceptance, charges and settlements. */
export const MONEY_BUGS: readonly Bug[] = [
  {
    name: "key_looked_up_first",
    says: "the API looks the Idempotency-Key up and then inserts; no unique index is there to say no",
    patches: [
      { file: "migrations/0003_jobs.sql", find: "  unique (app_id, idempotency_key),\n", replace: "" },
      {
        file: ACCEPT,
        find: "      on conflict on constraint jobs_app_id_idempotency_key_key do nothing;",
        replace: ";",
      },
      {
        file: "src/api/jobs.ts",
        find: "const replay = isCostly(body) ? await replayOf(services, app, key, body) : null;",
        replace: "const replay = await replayOf(services, app, key, body);",
      },
    ],
    scenario: "repeats",
    caughtBy: ["duplicateJobs"],
  },
  {
    name: "charged_before_looked",
    says: "the charge comes before the insert that may turn out to be a replay: each repetition is charged",
    patches: [
      { file: ACCEPT, find: CHARGE, replace: "" },
      {
        file: ACCEPT,
        find: "      insert into jobs (id, app_id, user_id, kind,",
        replace: `${CHARGE.slice(2)}      insert into jobs (id, app_id, user_id, kind,`,
      },
    ],
    scenario: "repeats",
    caughtBy: ["duplicateCharges"],
  },
  {
    name: "replay_refused",
    says: "the fingerprint of a request holds the time, so that no repetition is ever the same request",
    patches: [
      {
        file: "src/api/ordering.ts",
        find: "    fingerprint: sentFingerprint(body),",
        replace: "    fingerprint: fingerprint({ ...body, at: Date.now() }),",
      },
    ],
    scenario: "repeats",
    caughtBy: ["strangeRefusals"],
  },
  {
    name: "charged_afterwards",
    says: "the charge has a transaction of its own, after the one that accepts the job",
    patches: [
      { file: ACCEPT, find: CHARGE, replace: "" },
      {
        file: "src/api/accepting.ts",
        find: `for (const { request } of group) await reach("accept.committed", request.id);`,
        replace: `for (const { request } of group) await reach("accept.committed", request.id);
      for (const [index, { request }] of group.entries())
        if (answers[index]?.outcome === "accepted")
          await db.$client.query("select debit(lock_account($1, $2), $3, $4, $5, '{}')", [
            request.appId,
            request.userId,
            request.credits,
            request.id,
            request.kind,
          ]);`,
      },
    ],
    scenario: "api_killed_after_commit",
    caughtBy: ["duplicateCharges"],
  },
  {
    name: "acknowledged_before_commit",
    says: "the caller is answered first, and the group is written a moment later",
    patches: [
      {
        file: "src/api/accepting.ts",
        find: "      waiting.push({ request, resolve, reject });",
        replace: `      waiting.push({ request, resolve, reject });
      resolve({ outcome: "accepted", jobId: request.id, available: 0, retryAfter: null, detail: null });`,
      },
      { file: "src/api/accepting.ts", find: "setImmediate(pump);", replace: "setTimeout(pump, 20);" },
    ],
    scenario: "api_killed_before_commit",
    caughtBy: ["lost"],
  },
  {
    name: "balance_clamped",
    says: "too few credits are no refusal any more: the balance stops at 0 instead",
    patches: [
      {
        file: ACCEPT,
        find: "if outcome is null and account.balance + account.allowance >= request.credits then\n      insert into",
        replace: "if outcome is null then\n      insert into",
      },
      {
        file: "migrations/0002_ledger.sql",
        find: "balance = balance + case when p_bucket = 'balance' then p_amount else 0 end,",
        replace: "balance = greatest(0, balance + case when p_bucket = 'balance' then p_amount else 0 end),",
      },
    ],
    scenario: "poor",
    caughtBy: ["ledgerDrift"],
  },
  {
    name: "all_or_nothing",
    says: "whoever did not get every image gets all credits back, and keeps the images",
    patches: [
      {
        file: "src/domain/pricing.ts",
        find: `job.status === "completed" ? Math.floor((charged * deliveredVariants(job)) / job.variants) : 0`,
        replace: "deliveredVariants(job) === job.variants ? charged : 0",
      },
    ],
    scenario: "failures",
    caughtBy: ["wrongSettlements"],
  },
  {
    name: "refund_past_the_ledger",
    says: "what is not kept is added to the balance, without an entry",
    patches: [
      {
        file: SETTLE,
        find: `  if give_back(job.app_id, job.user_id, p_job, job.credits - p_kept, job.kind || ' ' || job.status, '{}')
     <> job.credits - p_kept then`,
        replace: `  update accounts set balance = balance + job.credits - p_kept where app_id = job.app_id and user_id = job.user_id;
  if job is null then`,
      },
    ],
    scenario: "failures",
    caughtBy: ["ledgerDrift"],
  },
  {
    name: "refunded_twice",
    says: "a failed variant is refunded at once, and again in the settlement; the index of one refund per job is gone",
    patches: [
      {
        file: "migrations/0002_ledger.sql",
        find: "create unique index credit_ledger_job on",
        replace: "create index credit_ledger_job on",
      },
      {
        file: "src/db/jobs.ts",
        find: "    const ended = isEnded(job) && !isEnded(before.job);",
        replace: `    for (const run of job.runs)
      if (run.status === "failed" && job.variants > 1)
        if (before.job.runs.find((each) => each.id === run.id)?.status !== "failed")
          await tx.execute(sql\`select give_back(\${before.appId}, \${before.userId}, \${jobId},
            \${before.credits / job.variants}::bigint, 'variant failed', '{}'::jsonb)\`);
    const ended = isEnded(job) && !isEnded(before.job);`,
      },
    ],
    scenario: "failures",
    caughtBy: ["wrongSettlements"],
  },
  {
    name: "settled_afterwards",
    says: "whoever sees that a job has ended settles it, in a transaction of its own",
    patches: [
      {
        file: "src/db/jobs.ts",
        find: `      await tx.execute(sql\`select settle_job(\${jobId}, \${settlement(job, before.credits).kept})\`);\n`,
        replace: "",
      },
      {
        file: "src/db/jobs.ts",
        find: "async function writeJob(",
        replace: `export async function settle(db: Db, { job, credits }: JobRecord): Promise<void> {
  await db.execute(sql\`select settle_job(\${job.id}, \${settlement(job, credits).kept})\`);
}

async function writeJob(`,
      },
      { file: "src/workers/advance.ts", find: "loadJob, timeBy }", replace: "loadJob, settle, timeBy }" },
      {
        file: "src/workers/advance.ts",
        find: "record = await loadJob(db, jobId);",
        replace: `record = await loadJob(db, jobId);
      if (record && isEnded(record.job)) await settle(db, record);`,
      },
      {
        file: "src/workers/watch.ts",
        find: `import { type Applied, timeBy } from "../db/jobs.ts";`,
        replace: `import { type Applied, settle, timeBy } from "../db/jobs.ts";`,
      },
      {
        file: "src/workers/watch.ts",
        find: "  const after = await learn(services, due.jobId, [event]);",
        replace: `  const after = await learn(services, due.jobId, [event]);
  if (after.ended) await settle(services.db, after);`,
      },
    ],
    scenario: "killed_when_stored",
    caughtBy: ["unsettled"],
  },
  {
    name: "settled_again",
    says: "every fact about an ended job settles it, and the primary key of settlements is an ordinary column",
    patches: [
      {
        file: "migrations/0003_jobs.sql",
        find: "  job_id uuid primary key references jobs,",
        replace: "  job_id uuid not null references jobs,",
      },
      {
        file: SETTLE,
        find: "values (p_job, job.credits, p_kept, job.credits - p_kept) on conflict do nothing;",
        replace: "values (p_job, job.credits, p_kept, job.credits - p_kept);",
      },
      {
        file: "src/db/jobs.ts",
        find: "    if (job === before.job) return { ...before, changed: false, ended: false };",
        replace: `    if (isEnded(job) && isEnded(before.job))
      await tx.execute(sql\`select settle_job(\${jobId}, \${settlement(job, before.credits).kept})\`);
    if (job === before.job) return { ...before, changed: false, ended: false };`,
      },
    ],
    scenario: "frozen_when_kept",
    caughtBy: ["wrongSettlements"],
  },
];
