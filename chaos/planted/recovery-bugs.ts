import type { Bug } from "./bug.ts";

const LEASES = "src/db/leases.ts";

/** What must come back by itself: leases, sweeps, looks, deadlines, cancels, connections. */
export const RECOVERY_BUGS: readonly Bug[] = [
  {
    name: "wake_trusted",
    says: "the queue has acknowledged the wake, so an accepted job needs no time at which the sweep comes",
    patches: [
      {
        file: "migrations/0008_products.sql",
        find: "now() + make_interval(secs => request.deadline_seconds), now() + interval '3 seconds',",
        replace: "now() + make_interval(secs => request.deadline_seconds), null,",
      },
    ],
    scenario: "queue_lost",
    caughtBy: ["stuck"],
  },
  {
    name: "sweep_wakes_nobody",
    says: "the sweep wakes only full batches",
    patches: [
      {
        file: "src/workers/sweep.ts",
        find: "if (due.length === 0) return false;",
        replace: "if (due.length < BATCH) return false;",
      },
    ],
    scenario: "queue_lost",
    caughtBy: ["stuck"],
  },
  {
    name: "sweep_marks_first",
    says: "the sweep marks what is due as done and wakes it then",
    patches: [
      {
        file: LEASES,
        find: "    update jobs set due_at = now() + ",
        replace: "    update jobs set due_at = null::timestamptz + ",
      },
    ],
    scenario: "killed_in_sweep",
    caughtBy: ["stuck"],
  },
  {
    name: "lease_never_lapses",
    says: "a job whose lease somebody holds is never claimed, however long ago that was",
    patches: [
      {
        file: LEASES,
        find: "and (lease_until is null or lease_until < now())\n      for update),",
        replace: "and lease_until is null\n      for update),",
      },
    ],
    scenario: "killed_when_answered",
    caughtBy: ["stuck"],
  },
  {
    name: "look_never_lapses",
    says: "hours where seconds are meant: the looks of a dead worker are taken up again tomorrow",
    patches: [
      {
        file: "src/db/looks.ts",
        find: "update runs set next_look_at = now() + interval '12 seconds'",
        replace: "update runs set next_look_at = now() + interval '12 hours'",
      },
    ],
    scenario: "killed_at_look",
    caughtBy: ["stuck"],
  },
  {
    name: "given_up_for_good",
    says: "a job that is given back with work left undone has no time at which somebody comes back",
    patches: [
      {
        file: LEASES,
        find: `set lease_until = null, worker = null, due_at = \${due.toISOString()}::timestamptz`,
        replace: "set lease_until = null, worker = null, due_at = null",
      },
    ],
    scenario: "thrown_when_prepared",
    caughtBy: ["stuck"],
  },
  {
    name: "deadline_forgotten",
    says: "nothing is due when the deadline of a job has passed",
    patches: [
      {
        file: "src/domain/agenda.ts",
        find: `  if (!job.expiredAt) dues.push({ at: job.deadlineAt, step: { type: "expire" } });\n`,
        replace: "",
      },
      {
        file: "src/domain/agenda.ts",
        find: `  if (!isEnded(job) && !job.expiredAt && job.deadlineAt <= now) return [{ type: "expire" }];\n`,
        replace: "",
      },
    ],
    scenario: "never_accepted",
    caughtBy: ["stuck"],
  },
  {
    name: "cancel_not_sent",
    says: "a canceled job waits for its run, which nobody asks to stop",
    patches: [
      {
        file: "src/domain/agenda.ts",
        find: `else if (run.status === "running" && doomed && !run.cancelSentAt)`,
        replace: `else if (run.status === "running" && doomed && run.cancelSentAt)`,
      },
    ],
    scenario: "canceled",
    caughtBy: ["stuck"],
  },
  {
    name: "canceled_at_once",
    says: "a cancel ends and refunds the job at once, while its run goes on at the provider and is billed",
    patches: [
      {
        file: "src/domain/job.ts",
        find: `  if (isLive(run)) return "live";`,
        replace: `  if (isLive(run)) return job.cancelRequestedAt ? "dead" : "live";`,
      },
    ],
    scenario: "canceled_late",
    caughtBy: ["misbooked"],
  },
  {
    name: "pool_errors_unheard",
    says: "nobody listens to the errors of idle connections",
    patches: [
      {
        file: "src/db/client.ts",
        find: `  pool.on("error", () => {}); // An idle connection was cut; the next query opens another.\n`,
        replace: "",
      },
    ],
    scenario: "sessions_ended",
    caughtBy: ["crashes"],
  },
];
