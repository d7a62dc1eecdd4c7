import { z } from "zod";

const manifestSchema = z.object({ engines: z.object({ node: z.string() }) });
const lockSchema = z.object({
  packages: z.record(
    z.string(),
    z.object({
      resolved: z.string().optional(),
      extraneous: z.boolean().optional(),
      optional: z.boolean().optional(),
      link: z.boolean().optional(),
      integrity: z.string().optional(),
      os: z.array(z.string()).optional(),
      cpu: z.array(z.string()).optional(),
      engines: z.unknown().optional(),
    }),
  ),
});

/**
 * Why `npm ci` would refuse this lock file on another platform, with another registry or another version of npm.
 * npm itself writes such files: it drops or mislabels the parts for platforms other than the one it runs on.
 */
export function lockProblems(lock: unknown, manifest: unknown): string[] {
  const { packages } = lockSchema.parse(lock);
  const problems: string[] = [];
  for (const [path, entry] of Object.entries(packages)) {
    if (path === "") continue;
    if (/^(https?|git)\b/.test(entry.resolved ?? "")) problems.push(`${path}: names the host it was fetched from`);
    if (entry.extraneous) problems.push(`${path}: extraneous`);
    if ((entry.os || entry.cpu) && !entry.optional) problems.push(`${path}: for one platform only, but not optional`);
    if (!entry.integrity && !entry.link) problems.push(`${path}: has no checksum`);
  }
  const { node } = manifestSchema.parse(manifest).engines;
  const locked = manifestSchema.safeParse(packages[""]);
  if (locked.data?.engines.node !== node) problems.push(`engines: package.json wants Node ${node}, the lock file not`);
  return problems;
}
