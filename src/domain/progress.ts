import type { JobStatus } from "./job.ts";
import type { RunStatus } from "./run.ts";

/** What a caller is told about one variant. */
export type VariantStatus = "pending" | "processing" | "completed" | "failed" | "canceled";

interface RunProgress {
  readonly status: RunStatus;
  /** As the provider tells it, 0..1. */
  readonly progress: number | null;
}

/** How far one variant is, 0..1, from its latest run. A running one never shows more than 0.9: it is not stored yet. */
export function variantProgress(run: RunProgress | undefined): number {
  switch (run?.status) {
    case undefined:
      return 0;
    case "submitting":
    case "unknown":
      return 0.05;
    case "running":
      return 0.1 + 0.8 * (run.progress ?? 0);
    case "storing":
      return 0.92;
    default:
      return 1;
  }
}

export function variantStatus(run: RunProgress | undefined, job: JobStatus): VariantStatus {
  if (run?.status === "stored") return "completed";
  if (job === "failed" || job === "canceled" || job === "completed")
    return run?.status === "failed" ? "failed" : "canceled";
  if (!run) return "pending";
  // While the job goes on, a run that ended badly may be bought again.
  return "processing";
}
