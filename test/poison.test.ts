import { afterAll, beforeAll, expect, test } from "vitest";
import { makeProcesses, type Processes } from "./rig/processes.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

let spine: Spine;
let processes: Processes;
beforeAll(async () => {
  spine = await startSpine({ workers: 0 });
  processes = await makeProcesses(spine);
});
afterAll(async () => {
  await processes?.close();
  await spine?.stop();
});

test("a job that kills its worker three times is set aside with its refund and evidence; others do not feel it", async () => {
  const poison = await spine.submit({ kind: "generation", user: "eve", input: { prompt: "poison" } });
  const neighbours = [];
  for (let number = 0; number < 6; number++)
    neighbours.push(
      await spine.submit({ kind: "generation", user: `ann-${number}`, input: { prompt: `neighbour ${number}` } }),
    );

  // Whoever comes to keep its output dies of it, and is started again, as a container host does it.
  let deaths = 0;
  while (deaths < 3) {
    const program = await processes.start("worker", { FAULT: `store.fetched@${poison.id}=kill` });
    expect(await program.ended).toBe("SIGKILL");
    deaths++;
  }
  await processes.start("worker", { FAULT: `store.fetched@${poison.id}=kill` });

  const job = await spine.ended(poison.id, 60_000);
  expect(job).toMatchObject({
    status: "failed",
    failure: { code: "set_aside" },
    settlement: { charged: 1, kept: 0, refunded: 1 },
  });
  const events = await spine.sql`
    select type, detail from job_events where job_id = ${poison.id} and type in ('taken_over', 'set_aside') order by version`;
  expect(events.map((event) => event["type"])).toEqual(["taken_over", "taken_over", "taken_over", "set_aside"]);
  // The evidence names three different processes.
  const pids = events.slice(0, 3).map((event) => Number(String(event["detail"].worker).split(":")[1]));
  expect(pids).toEqual(processes.started.slice(0, 3).map((program) => program.pid));
  // The worker that set it aside lives.
  expect(processes.started[3]?.isRunning()).toBe(true);

  for (const { id } of neighbours) expect((await spine.ended(id, 30_000)).status).toBe("completed");
  expect(await spine.audit()).toEqual({ drift: 0, unsettled: 0, unexplainedRuns: [] });
}, 150_000);
