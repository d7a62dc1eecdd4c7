import type { Finding } from "./finding.ts";
import type { AssetRow, Delivery, Records } from "./records.ts";

/** Compares what the API tells, what our rows say, what the store's own files are, and what a download brings. */
export function checkOutputs({ assets, objects, deliveries, runs, bill, jobs }: Records): {
  readonly findings: Finding[];
  /** How many variants of a job were delivered with exactly their bytes; no entry: none. */
  readonly whole: ReadonlyMap<string, number>;
} {
  const findings: Finding[] = [];
  const whole = new Map<string, number>();
  const objectOf = new Map(objects.map((object) => [object.key, object]));
  const assetOf = new Map(assets.map((asset) => [asset.key, asset]));

  for (const { jobId, role, ...asset } of assets) {
    const object = objectOf.get(asset.key);
    const file = `${role} ${asset.key}`;
    if (!object) findings.push({ check: "missingOutputs", jobId, detail: `${file} is not in the store` });
    else if (!same(object, asset))
      findings.push({ check: "corruptedOutputs", jobId, detail: `${file} is ${object.sha256}, not ${asset.sha256}` });
  }
  const runOf = new Map(runs.map((run) => [run.id, run]));
  const madeOf = new Map(bill.map(({ id, sha256 }) => [id, sha256]));
  for (const { jobId, runId, role, key, sha256 } of assets) {
    const made = role === "output" ? madeOf.get(runOf.get(runId ?? "")?.providerRunId ?? "") : null;
    if (made && made !== sha256)
      findings.push({ check: "corruptedOutputs", jobId, detail: `${key} is ${sha256}, the provider made ${made}` });
  }
  const takenBack = new Set(jobs.filter(({ status }) => status !== "completed").map(({ id }) => id));
  for (const delivery of deliveries) {
    const { jobId, variant, file } = delivery;
    // What was delivered of a job that failed went back with its credits: the API names it no more.
    if (!file && takenBack.has(jobId)) continue;
    const trouble = troubleOf(delivery, file ? assetOf.get(file.key) : undefined);
    if (trouble) findings.push({ check: trouble.check, jobId, detail: `variant ${variant}: ${trouble.detail}` });
    const object = file && objectOf.get(file.key);
    if (!trouble && object && same(object, file)) whole.set(jobId, (whole.get(jobId) ?? 0) + 1);
  }
  return { findings, whole };
}

function troubleOf(
  { file, downloaded }: Delivery,
  asset: AssetRow | undefined,
): Pick<Finding, "check" | "detail"> | null {
  if (!file) return { check: "missingOutputs", detail: "its run is stored, and the API names no file" };
  if (!asset) return { check: "missingOutputs", detail: `${file.key} is no asset of ours` };
  if (!same(asset, file))
    return { check: "corruptedOutputs", detail: `the API tells ${file.sha256}, the row ${asset.sha256}` };
  if (downloaded === null) return null;
  if ("error" in downloaded) return { check: "missingOutputs", detail: downloaded.error };
  if (!same(downloaded, file))
    return { check: "corruptedOutputs", detail: `${downloaded.sha256} was downloaded, told was ${file.sha256}` };
  return null;
}

type Bytes = Pick<AssetRow, "sha256" | "bytes">;

function same(a: Bytes, b: Bytes): boolean {
  return a.sha256 === b.sha256 && a.bytes === b.bytes;
}

/** What no row knows: an upload whose record was lost with its worker leaves one, which costs a little room. */
export function countStray({ assets, objects }: Pick<Records, "assets" | "objects">): number {
  const known = new Set(assets.map(({ key }) => key));
  return objects.filter(({ key }) => !known.has(key)).length;
}
