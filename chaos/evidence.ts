import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { sql } from "drizzle-orm";
import type { Cluster } from "./cluster.ts";
import type { Finding } from "./finding.ts";
import type { Records } from "./records.ts";

/** Jobs of which the whole story is kept: the first ones tell it. */
const MOST_JOBS = 20;

/** Writes down, before the database is gone, what is needed to explain the findings. Returns the file's path. */
export async function keepEvidence(
  { db }: Cluster,
  folder: string,
  records: Records,
  findings: readonly Finding[],
): Promise<string> {
  const ids = [...new Set(findings.flatMap(({ jobId }) => jobId ?? []))].slice(0, MOST_JOBS);
  const stories = [];
  for (const id of ids) {
    const read = async (query: ReturnType<typeof sql>) => (await db.execute(query)).rows;
    const [job] = await read(sql`select * from jobs where id = ${id}`);
    const runs = await read(sql`select * from runs where job_id = ${id} order by variant, attempt`);
    const providerIds = new Set(runs.map((run) => run["provider_run_id"]));
    const order = records.orders.find(({ key }) => key === job?.["idempotency_key"]);
    stories.push({
      id,
      findings: findings.filter((each) => each.jobId === id),
      order,
      sendings: records.sendings.filter((each) => each.jobId === id || each.key === order?.key),
      job,
      runs,
      events: await read(sql`select * from job_events where job_id = ${id} order by version`),
      entries: await read(sql`select * from credit_ledger where job_id = ${id} order by id`),
      assets: records.assets.filter((each) => each.jobId === id),
      deliveries: records.deliveries.filter((each) => each.jobId === id),
      bill: records.bill.filter((line) => providerIds.has(line.id) || (order && line.mark === order.mark)),
    });
  }
  const path = join(folder, "evidence.json");
  await writeFile(path, `${JSON.stringify({ findings, struck: records.struck, stories }, null, 2)}\n`);
  return path;
}
