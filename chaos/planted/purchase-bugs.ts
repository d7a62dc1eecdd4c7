import type { Bug } from "./bug.ts";

const SUBMIT = "src/workers/submit.ts";
const REPLICATE = "src/providers/replicate.ts";

/** What is sent to the provider, how often, and what its answers are taken for. */
export const PURCHASE_BUGS: readonly Bug[] = [
  {
    name: "sent_before_intent",
    says: "the order is sent first and written down when the answer is there",
    patches: [
      { file: SUBMIT, find: `  await services.reach("submit.prepared", record.job.id);\n`, replace: "" },
      {
        file: SUBMIT,
        find: "  const committed = await learn(services, record.job.id, events, { epoch: record.epoch });",
        replace: `  const sendBefore = new Date(Date.now() + SEND_WINDOW_MS);
  const answer = await provider.submit(toOrder(services, run, sendBefore, prepared.timeoutSeconds));
  await services.reach("submit.prepared", record.job.id);
  const committed = await learn(services, record.job.id, events, { epoch: record.epoch });`,
      },
      {
        file: SUBMIT,
        find: `  const sendBefore = new Date(committed.readOn + run.sendBefore.getTime() - committed.now.getTime());
  const answer = await provider.submit(toOrder(services, run, sendBefore, prepared.timeoutSeconds));`,
        replace: "",
      },
    ],
    scenario: "killed_before_intent",
    caughtBy: ["orphans"],
  },
  {
    name: "zombie_intends",
    says: "an intent needs no lease and no open variant, and runs_live is an ordinary index: each of the three is enough",
    patches: [
      { file: SUBMIT, find: "events, { epoch: record.epoch });", replace: "events);" },
      {
        file: "src/domain/job.ts",
        find: `  if (variantState(job, intended.variant) !== "open") return job;\n`,
        replace: "",
      },
      {
        file: "migrations/0003_jobs.sql",
        find: "create unique index runs_live on runs",
        replace: "create index runs_live on runs",
      },
    ],
    scenario: "frozen_before_intent",
    caughtBy: ["duplicatePaidRuns"],
  },
  {
    name: "zombie_sends",
    says: "the time to send is counted from the sending, and absence from the intent: either one alone would hold",
    patches: [
      {
        file: "src/providers/http.ts",
        find: "const windowMs = limits.sendBefore.getTime() - clock().getTime();",
        replace: "const windowMs = Math.max(TOTAL_MS, limits.sendBefore.getTime() - clock().getTime());",
      },
      {
        file: "src/providers/http.ts",
        find: "clock().getTime() < limits.sendBefore.getTime() && performance.now() < closesAt",
        replace: "performance.now() < closesAt",
      },
      {
        file: "src/domain/absence.ts",
        find: "return new Date(sendBefore.getTime() + graceMs);",
        replace: "return new Date(sendBefore.getTime() - SEND_WINDOW_MS);",
      },
    ],
    scenario: "frozen_before_sending",
    caughtBy: ["duplicatePaidRuns"],
  },
  {
    name: "lost_is_postponed",
    says: "an answer that did not come is taken for an order that was not accepted",
    patches: [
      {
        file: REPLICATE,
        find: `if (sent.sent === "unknown") return { outcome: "lost", detail: sent.detail };`,
        replace: `if (sent.sent === "unknown") return postponed("provider_unavailable", sent.detail, UNAVAILABLE_RETRY_MS);`,
      },
    ],
    scenario: "answers_lost",
    caughtBy: ["orphans"],
  },
  {
    name: "error_page_is_postponed",
    says: "a 502 of some proxy is taken for the provider's word that it has not accepted",
    patches: [
      {
        file: REPLICATE,
        find: "  // A page of some proxy in between proves nothing about the provider, and neither does a 408, whoever says it.",
        replace: `  if (status >= 500) return postponed("provider_unavailable", words(body), UNAVAILABLE_RETRY_MS);`,
      },
    ],
    scenario: "answers_lost",
    caughtBy: ["orphans"],
  },
  {
    name: "garbage_is_accepted",
    says: "a 200 is an acceptance, whether or not its id can be read",
    patches: [
      {
        file: REPLICATE,
        find: `if (created.success) return { outcome: "submitted", providerRunId: created.data.id };`,
        replace: `return { outcome: "submitted", providerRunId: created.data?.id ?? "unreadable" };`,
      },
    ],
    scenario: "answers_lost",
    caughtBy: ["unbilled"],
  },
  {
    name: "post_retried",
    says: "the HTTP layer sends a create again when the connection broke",
    patches: [
      {
        file: "src/providers/http.ts",
        find: "  return exchange(senders, call, call.totalMs ?? TOTAL_MS, windowMs, mayWrite);",
        replace: `  const send = () => exchange(senders, call, call.totalMs ?? TOTAL_MS, windowMs, mayWrite);
  const sent = await send();
  return sent.sent === "unknown" ? send() : sent;`,
      },
    ],
    scenario: "answers_lost",
    caughtBy: ["orphans"],
  },
  {
    name: "absent_at_once",
    says: "one reading of the list is proof, and the wait for its lag has the wrong sign",
    patches: [
      {
        file: "src/domain/absence.ts",
        find: "return readings >= LEAST_READINGS && readAt.getTime() >= quietFrom.getTime() + lostAfterMs;",
        replace: "return readings >= LEAST_READINGS - 1 && readAt.getTime() >= quietFrom.getTime() - lostAfterMs;",
      },
    ],
    scenario: "list_lags",
    caughtBy: ["orphans", "duplicatePaidRuns"],
  },
  {
    name: "list_read_from_later",
    says: "the allowance for the provider's clock has the wrong sign: the list is read from a minute after the sending",
    patches: [
      {
        file: REPLICATE,
        find: "const since = sentAt.getTime() - CLOCK_SKEW_MS;",
        replace: "const since = sentAt.getTime() + CLOCK_SKEW_MS;",
      },
    ],
    scenario: "answers_lost",
    caughtBy: ["orphans"],
  },
  {
    name: "adopts_strangers",
    says: "a listed run is ours when some of its input is what was sent, not all",
    patches: [
      {
        file: "src/providers/replicate-prediction.ts",
        find: "return Object.entries(sent).every(",
        replace: "return Object.entries(sent).some(",
      },
    ],
    scenario: "answers_lost",
    caughtBy: ["strangeRuns"],
  },
  {
    name: "vanished_is_postponed",
    says: "an order that its dead sender may have sent is taken for one that was not accepted",
    patches: [
      {
        file: "src/domain/run.ts",
        find: `return run.status === "submitting" && !run.sendBefore && !run.providerRunId;`,
        replace: `return run.status === "submitting" && !run.providerRunId;`,
      },
    ],
    scenario: "killed_when_answered",
    caughtBy: ["orphans"],
  },
  {
    name: "missing_forgotten",
    says: "what was presumed lost is not looked for any more",
    patches: [
      {
        file: "src/db/jobs.ts",
        find: "    return old && isMissing(old) ? undefined : new Date(now.getTime() + MISSING_LOOK_MS);",
        replace: `    if (old && isMissing(old)) return undefined;
    return run.providerRunId ? new Date(now.getTime() + MISSING_LOOK_MS) : null;`,
      },
    ],
    scenario: "shown_late",
    caughtBy: ["orphans"],
  },
  {
    name: "refusals_retried",
    says: "what the safety filter holds back is bought again and again",
    patches: [
      {
        file: "src/domain/failure.ts",
        find: "  content_refused: {\n    retryable: false,",
        replace: "  content_refused: {\n    retryable: true,",
      },
    ],
    scenario: "failures",
    caughtBy: ["duplicatePaidRuns"],
  },
  {
    name: "throttled_is_refused",
    says: "a 429 is only one when it has a Retry-After header",
    patches: [
      {
        file: REPLICATE,
        find: "if (status === 429) return",
        replace: `if (status === 429 && reply.headers["retry-after"] !== undefined) return`,
      },
    ],
    scenario: "misbehaviour",
    caughtBy: ["unexplainedFailures"],
  },
  {
    name: "newborn_is_gone",
    says: "seconds where milliseconds are meant: a run that the provider does not show yet is given up",
    patches: [
      {
        file: "src/workers/watch.ts",
        find: "const NEWBORN_MS = 120_000;",
        replace: "const NEWBORN_MS = 120;",
      },
      {
        file: "src/workers/watch.ts",
        find: "const GONE_AGAIN_MS = 30_000;",
        replace: "const GONE_AGAIN_MS = 30;",
      },
    ],
    scenario: "misbehaviour",
    caughtBy: ["unexplainedFailures"],
  },
  {
    name: "webhook_believed",
    says: "what a signed webhook says of the end of a run is taken for the truth",
    patches: [
      {
        file: "src/api/webhooks.ts",
        find: `import { ServiceError } from "../errors.ts";`,
        replace: `import { failure } from "../domain/failure.ts";
import { ServiceError } from "../errors.ts";
import { learn } from "../learn.ts";`,
      },
      {
        file: "src/api/webhooks.ts",
        find: `    await reach("webhook.noted", runId ?? "");`,
        replace: `    if (noted && delivery.status === "failed") {
      const { rows } = await db.$client.query("select job_id from runs where id = $1", [runId]);
      const why = failure("provider_failed", "so the webhook says");
      await learn(services, rows[0].job_id, [{ type: "failed", at: new Date(), runId, failure: why }]);
    }
    await reach("webhook.noted", runId ?? "");`,
      },
    ],
    scenario: "forged_webhook",
    caughtBy: ["unexplainedFailures"],
  },
];
