import { deliveredVariants, isEnded, type Job } from "./job.ts";

/** Credits are integers of one app; what a credit is worth is the app's own affair. */
export interface PriceLine {
  /** What a person reads on the bill. */
  readonly label: string;
  readonly credits: number;
}

/** Frozen on the job when it is accepted; a later price book changes nothing for it. */
export interface Price {
  readonly credits: number;
  readonly lines: readonly PriceLine[];
}

export function price(lines: readonly PriceLine[]): Price {
  const credits = lines.reduce((sum, line) => sum + line.credits, 0);
  if (!Number.isSafeInteger(credits) || credits < 0 || lines.some((line) => !Number.isSafeInteger(line.credits)))
    throw new Error(`a price is a whole number of credits, not ${JSON.stringify(lines)}`);
  return { credits, lines };
}

export interface Settlement {
  readonly charged: number;
  readonly kept: number;
  readonly refunded: number;
}

/**
 * What an ended job costs its user. Nothing delivered, or fewer than the kind's minimum: all back. Otherwise the
 * delivered share is kept, rounded down in the user's favour.
 */
export function settlement(job: Job, charged: number): Settlement {
  if (!isEnded(job)) throw new Error(`job ${job.id} is ${job.status}: only an ended job is settled`);
  const kept = job.status === "completed" ? Math.floor((charged * deliveredVariants(job)) / job.variants) : 0;
  return { charged, kept, refunded: charged - kept };
}
