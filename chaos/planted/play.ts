import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "drizzle-orm";
import sharp from "sharp";
import { makeClient } from "../../demo/client.ts";
import { paintRoom } from "../../demo/room.ts";
import type { Sandbox } from "../../sandbox/sandbox.ts";
import { sign } from "../../sandbox/webhook.ts";
import type { Db } from "../../src/db/client.ts";
import { check } from "../check.ts";
import { makeClients } from "../clients.ts";
import type { Cluster } from "../cluster.ts";
import { keepEvidence } from "../evidence.ts";
import type { Finding } from "../finding.ts";
import { openHistory } from "../history.ts";
import { readRecords } from "../records.ts";
import { type Deployment, deploy, type Stage } from "./deployment.ts";
import type { Ground } from "./ground.ts";
import { ordersOf, type Scenario } from "./scenarios.ts";

const ASK_EVERY_MS = 50;
/** A frozen worker goes on after this, even if what it shall miss does not happen: without a bug it may not. */
const THAW_MS = 18_000;
/** Orders are accepted, woken and bought within this, or the scenario is no use. */
const BOUGHT_MS = 45_000;
const PHOTO_SIDE = 256; // pixels

/** One scenario on one build, from an empty database to the verdict. */
export async function play(ground: Ground, scenario: Scenario, stage: Stage): Promise<Finding[]> {
  const { folder, halted } = stage;
  const deployment = await deploy(ground, scenario, stage);
  const history = openHistory(join(folder, "history.jsonl"));
  try {
    const { cluster } = deployment;
    const photo = scenario.orders.some((each) => each.staging) ? await uploadPhoto(cluster, halted) : null;
    const orders = ordersOf(scenario.orders, photo);
    const clients = makeClients(cluster, history, halted);
    let answered = false;
    const submit = async () => {
      await clients.submitAll(orders);
      answered = true;
    };
    await perform(deployment, scenario, submit, halted);

    // Calm: whatever was broken is over.
    const { db } = cluster;
    const until = performance.now() + scenario.patienceSeconds * 1_000;
    while (!(answered && (await isAll(db, "ended")))) {
      if (performance.now() > until) break;
      await sleep(ASK_EVERY_MS, undefined, { signal: halted });
    }
    await sleep((scenario.lingerSeconds ?? 0) * 1_000, undefined, { signal: halted });
    const records = await readRecords(cluster, { orders, sendings: clients.sendings, struck: [] }, halted);
    const findings = check(records);
    if (findings.length > 0) await keepEvidence(cluster, folder, records, findings);
    return findings;
  } finally {
    await history.close();
    await deployment.stop();
  }
}

/** Until the blow is over, and everything up that shall be up. */
async function perform(
  { cluster, sandbox, startWorker, startVictim }: Deployment,
  { strike, thaw, queueLost, act }: Scenario,
  submit: () => Promise<void>,
  halted: AbortSignal,
): Promise<void> {
  const { db } = cluster;
  const go = () => {
    const submitting = submit();
    submitting.catch(() => {}); // Halted: everything else says so, too.
    return submitting;
  };
  if (queueLost) {
    await go();
    // The wake follows the answer: only then is there something to lose.
    await until(() => isAll(db, "woken"), BOUGHT_MS, halted);
    await cluster.queue.empty();
  }
  if (!strike) await startWorker();
  else if (strike.who === "api") {
    const [victim] = await Promise.all([startVictim(), startWorker()]);
    void go();
    await victim.struck;
    return;
  } else {
    const victim = await startVictim();
    if (!queueLost) void go();
    await victim.struck;
    if (strike.how !== "throw") await startWorker();
    const wanted = thaw;
    if (wanted) await until(() => isAll(db, wanted), THAW_MS, halted).catch(() => {});
    victim.thaw();
    return;
  }
  if (!queueLost) void go();
  if (act === undefined) return;
  await until(() => isAll(db, "bought"), BOUGHT_MS, halted);
  if (act === "end sessions") await cluster.endSessions();
  else await forgeWebhook(cluster, sandbox, halted);
}

/** Signed by the provider, and wrong: as a webhook that is late, or was sent for another run, may be. */
async function forgeWebhook({ db, url }: Cluster, sandbox: Sandbox, halted: AbortSignal): Promise<void> {
  const { rows } = await db.execute<{ id: string }>(sql`select provider_run_id as id from runs limit 1`);
  const body = JSON.stringify({ id: rows[0]?.id, status: "failed", error: "so I say" });
  const headers = sign(sandbox.webhookSecret, "msg_forged", Math.floor(Date.now() / 1_000), body);
  const request = { method: "POST", headers: { ...headers, "content-type": "application/json" }, body, signal: halted };
  const answer = await fetch(`${url}/api/webhooks/sandbox`, request);
  if (!answer.ok) throw new Error(`the forged webhook was refused: ${answer.status} ${await answer.text()}`);
}

type State = NonNullable<Scenario["thaw"]> | "woken";

/** There are jobs, and all of them are so far. */
async function isAll(db: Db, state: State): Promise<boolean> {
  const query = {
    ended: sql`select count(*) as jobs, count(ended_at) as those from jobs`,
    woken: sql`select count(*) as jobs, (select count(*) from bullmq.job) as those from jobs`,
    bought: sql`
      select count(*) as jobs, count(*) filter (where exists (
        select 1 from runs where job_id = jobs.id and provider_run_id is not null)) as those from jobs`,
    "bought again": sql`
      select count(*) as jobs, count(*) filter (where exists (
        select 1 from runs where job_id = jobs.id and attempt > 1 and provider_run_id is not null)) as those from jobs`,
  }[state];
  const { rows } = await db.execute<{ jobs: string; those: string }>(query);
  const [row] = rows;
  return row !== undefined && Number(row.jobs) > 0 && row.jobs === row.those;
}

async function until(what: () => Promise<boolean>, withinMs: number, halted: AbortSignal): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await what())) {
    if (performance.now() > deadline) throw new Error(`it did not come so far within ${withinMs / 1_000} s`);
    await sleep(ASK_EVERY_MS, undefined, { signal: halted });
  }
}

async function uploadPhoto({ url, apiKey }: Cluster, halted: AbortSignal): Promise<string> {
  const photo = await sharp(await paintRoom())
    .resize(PHOTO_SIDE)
    .jpeg()
    .toBuffer();
  return makeClient(url, apiKey, halted).upload(photo, "image/jpeg");
}
