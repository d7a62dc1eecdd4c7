import { readdirSync, readFileSync } from "node:fs";

/** Linux tells CPU time in hundredths of a second, whatever the kernel's own clock is. */
const TICKS_PER_SECOND = 100;

/** CPU seconds of a process so far; null where there is no /proc. */
export function cpuOf(pid: number): number | null {
  const stat = readStat(pid);
  return stat && (stat.own + stat.waitedFor) / TICKS_PER_SECOND;
}

/** The same with its children, also those that ended: Postgres is one process per connection. */
export function cpuOfFamily(pid: number): number | null {
  const parent = readStat(pid);
  if (!parent) return null;
  let ticks = parent.own + parent.waitedFor;
  for (const name of readdirSync("/proc")) {
    const stat = /^\d+$/.test(name) ? readStat(Number(name)) : null;
    if (stat?.parent === pid) ticks += stat.own;
  }
  return ticks / TICKS_PER_SECOND;
}

export function cpuOfThisProcess(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000_000;
}

function readStat(pid: number): { parent: number; own: number; waitedFor: number } | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The program's name is in brackets and may hold anything; what is counted stands behind it.
    const fields = text
      .slice(text.lastIndexOf(")") + 2)
      .split(" ")
      .map(Number);
    const [, parent = 0, , , , , , , , , , user = 0, system = 0, childUser = 0, childSystem = 0] = fields;
    return { parent, own: user + system, waitedFor: childUser + childSystem };
  } catch {
    return null; // Ended meanwhile, or no Linux.
  }
}
