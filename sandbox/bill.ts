import { createWriteStream } from "node:fs";
import { timestamp } from "./clock.ts";
import type { FaceName } from "./face.ts";
import { sha256 } from "./id.ts";
import type { Run } from "./run.ts";

/** What one accepted run came to; written the moment it is accepted, whether or not anybody hears of it. */
export interface BillLine {
  /** Which provider's contract it was ordered through. */
  readonly face: FaceName;
  readonly id: string;
  readonly kind: "prediction" | "training";
  readonly model: string;
  readonly version: string;
  status: string;
  readonly created_at: string;
  completed_at: string | null;
  /** SHA-256 of the input's JSON, so that two purchases of the same thing can be told. */
  readonly input_hash: string;
  readonly webhook: string | null;
  billed_seconds: number;
  cost_usd: number;
  /** The last four characters of the token. */
  readonly created_by: string;
}

export interface BillTotal {
  readonly predictions: number;
  readonly trainings: number;
  readonly succeeded: number;
  readonly failed: number;
  readonly canceled: number;
  readonly usd: number;
}

export interface BillSheet {
  readonly lines: BillLine[];
  readonly total: BillTotal;
}

const MAX_LINES = 200_000; // lines kept; totals go on counting

export type Bill = ReturnType<typeof makeBill>;

/** The sandbox's own record of what was bought from it: the other half of every reconciliation. */
export function makeBill(file?: string) {
  const paper = file === undefined ? null : createWriteStream(file, { flags: "a" });
  // A full disk must not take the sandbox down; the bill in memory stays whole.
  paper?.on("error", () => paper.destroy());
  let lines = new Map<string, BillLine>();
  let total = { predictions: 0, trainings: 0, succeeded: 0, failed: 0, canceled: 0, microUsd: 0 };

  const write = (event: "accepted" | "ended", line: BillLine) => {
    if (paper && !paper.destroyed) paper.write(`${JSON.stringify({ event, ...line })}\n`);
  };

  return {
    accept(run: Run): void {
      const line: BillLine = {
        face: run.face,
        id: run.id,
        kind: run.kind,
        model: run.model,
        version: run.version,
        status: run.status,
        created_at: timestamp(run.createdAt),
        completed_at: null,
        input_hash: sha256(JSON.stringify(run.input)),
        webhook: run.webhook,
        billed_seconds: 0,
        cost_usd: 0,
        created_by: run.createdBy,
      };
      lines.set(run.id, line);
      total[run.kind === "training" ? "trainings" : "predictions"] += 1;
      const oldest = lines.keys().next().value;
      if (lines.size > MAX_LINES && oldest !== undefined) lines.delete(oldest);
      write("accepted", line);
    },

    end(run: Run): void {
      const line = lines.get(run.id);
      if (!line) return; // accepted before the last reset
      line.status = run.status;
      line.completed_at = run.completedAt === null ? null : timestamp(run.completedAt);
      const { seconds, microUsd } = charged(run);
      line.billed_seconds = seconds;
      line.cost_usd = microUsd / 1_000_000;
      total.microUsd += microUsd;
      if (run.status === "succeeded") total.succeeded += 1;
      else if (run.status === "failed") total.failed += 1;
      else total.canceled += 1;
      write("ended", line);
    },

    sheet(): BillSheet {
      const { microUsd, ...counts } = total;
      return {
        lines: [...lines.values()].map((line) => ({ ...line })),
        total: { ...counts, usd: microUsd / 1_000_000 },
      };
    },

    /** Runs that are still out leave no line when they end. */
    reset(): void {
      lines = new Map();
      total = { predictions: 0, trainings: 0, succeeded: 0, failed: 0, canceled: 0, microUsd: 0 };
    },

    close(): Promise<void> {
      return new Promise((resolve) => (paper && !paper.destroyed ? paper.end(() => resolve()) : resolve()));
    },
  };
}

/** Official models cost per picture, film, or second of film delivered; all others cost their time, also when they fail or are canceled. */
function charged(run: Run): { seconds: number; microUsd: number } {
  const started = run.startedAt;
  if (started === null || run.completedAt === null) return { seconds: 0, microUsd: 0 };
  const seconds = Math.round(((run.completedAt - started) / 1_000) * 1_000_000) / 1_000_000;
  const delivered = run.status === "succeeded" ? run.outputCount : 0;
  const units = () => {
    switch (run.price.per) {
      case "second":
        return seconds;
      case "output second":
        return delivered * (run.reel?.seconds ?? 0);
      case "image":
      case "video":
        return delivered;
    }
  };
  return { seconds, microUsd: Math.round(units() * run.price.usd * 1_000_000) };
}
