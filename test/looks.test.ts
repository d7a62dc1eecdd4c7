import { afterAll, beforeAll, expect, test } from "vitest";
import { makeLogger, makeParts } from "../src/compose.ts";
import type { Look } from "../src/domain/provider.ts";
import type { Account } from "../src/domain/routing.ts";
import { makeBulkheads } from "../src/workers/bulkheads.ts";
import { readCircumstances } from "../src/workers/circumstances.ts";
import { watch } from "../src/workers/watch.ts";
import { alone } from "./rig/alone.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

let spine: Spine;
let parts: ReturnType<typeof makeParts>;
beforeAll(async () => {
  spine = await startSpine({ workers: 0 });
  parts = makeParts(spine.config, makeLogger({ LOG_LEVEL: "silent" }, "test"), "test");
});
afterAll(async () => {
  await parts?.close();
  await spine?.stop();
});

const RUNNING: Look = { status: "running", progress: null };

/** A watch of two accounts, each with its own way to answer a look. */
function startWatch(look: Record<"hangs" | "answers", Account["look"]>) {
  const [real] = parts.providers;
  return watch({
    ...parts,
    providers: [
      { ...real, name: "hangs", look: look.hangs },
      { ...real, name: "answers", look: look.answers },
    ],
    stop: new AbortController().signal,
    circumstances: readCircumstances(parts.db),
    bulkheads: makeBulkheads(1),
    ...alone(spine.config),
  });
}

test("an account whose looks hang keeps half of the places at most: those at another are made", async () => {
  const { id: jobId } = await spine.submit({
    kind: "generation",
    user: "ann",
    input: { prompt: "all of them are out" },
  });
  // More of the one than there are places, and all of them before the other's.
  await spine.sql`
    insert into runs (id, job_id, variant, attempt, status, provider, model, input, provider_run_id, sent_at, expires_at, next_look_at)
    select gen_random_uuid(), ${jobId}::uuid, n, 1, 'running', case when n <= 300 then 'hangs' else 'answers' end, 'm', '{}',
      'run-' || n, now(), now() + interval '1 hour', now() - make_interval(secs => 400 - n)
    from generate_series(1, 320) n`;
  let hanging = 0;
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const answered = new Set<string>();
  const loop = startWatch({
    async hangs() {
      hanging += 1;
      await held;
      return RUNNING;
    },
    async answers({ providerRunId }) {
      answered.add(providerRunId);
      return RUNNING;
    },
  });
  try {
    await expect.poll(() => answered.size, { timeout: 15_000 }).toBe(20);
    expect(hanging).toBeGreaterThan(90);
    expect(hanging).toBeLessThanOrEqual(100);
  } finally {
    release();
    await loop.stop();
  }
});
