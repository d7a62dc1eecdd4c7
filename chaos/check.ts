import { checkEnds } from "./ends.ts";
import type { Finding } from "./finding.ts";
import { groupBy } from "./groups.ts";
import { checkMoney, SIGNUP_GRANT } from "./money.ts";
import { checkOutputs } from "./outputs.ts";
import { checkPurchases } from "./purchases.ts";
import type { Records } from "./records.ts";
import { checkTraffic } from "./traffic.ts";

/** Joins four records that were written by four parties: the clients, the database, the provider and the object store. */
export function check(records: Records): Finding[] {
  const { findings, whole } = checkOutputs(records);
  return [
    ...checkClients(records),
    ...findings,
    ...checkMoney(records, whole),
    ...checkPurchases(records),
    ...checkEnds(records),
    ...checkTraffic(records),
    ...records.crashes.map((detail) => ({ check: "crashes", jobId: null, detail }) as const),
  ];
}

function checkClients({ orders, sendings, jobs }: Records): Finding[] {
  const found: Finding[] = [];
  const byId = new Map(jobs.map((job) => [job.id, job]));
  const held = groupBy(jobs, ({ key }) => key);
  const sent = groupBy(sendings, ({ key }) => key);
  const keys = new Set(orders.map(({ key }) => key));
  const wanted = new Map<string, number>();
  for (const { body, credits } of orders) wanted.set(body.user, (wanted.get(body.user) ?? 0) + credits);
  for (const job of jobs) {
    if (!keys.has(job.key))
      found.push({ check: "duplicateJobs", jobId: job.id, detail: `nobody sent the key ${job.key}` });
    if (!job.ended) found.push({ check: "stuck", jobId: job.id, detail: `is ${job.status}` });
  }
  for (const { key, body } of orders) {
    const mine = sent.get(key) ?? [];
    const told = new Set(mine.flatMap(({ jobId }) => jobId ?? []));
    if (mine.every((each) => each.outcome === "lost"))
      found.push({ check: "stuck", jobId: null, detail: `${key} was sent ${mine.length} times without an answer` });
    const there = held.get(key)?.map(({ id }) => id) ?? [];
    for (const id of told)
      if (byId.get(id)?.key !== key) found.push({ check: "lost", jobId: id, detail: `was acknowledged for ${key}` });
    if (new Set([...told, ...there]).size > 1)
      found.push({ check: "duplicateJobs", jobId: null, detail: `${key}: ${[...told, ...there].join(", ")}` });
    // Too few credits are a reason only for whom ordered more than a new user has; an ended job cannot be canceled.
    const poor = (wanted.get(body.user) ?? 0) > SIGNUP_GRANT;
    for (const { action, answer } of mine.filter((each) => each.outcome === "refused"))
      if (!answer.startsWith("409 ") && action === "cancel")
        found.push({ check: "strangeRefusals", jobId: null, detail: `cancel of ${key}: ${answer}` });
      else if (!(answer.startsWith("402 ") && poor) && action === "submit")
        found.push({ check: "strangeRefusals", jobId: null, detail: `${key}: ${answer}` });
  }
  return found;
}
