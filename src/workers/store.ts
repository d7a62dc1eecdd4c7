import { type JobRecord, type NewAsset, timeBy } from "../db/jobs.ts";
import { type Failure, failure } from "../domain/failure.ts";
import type { Run } from "../domain/run.ts";
import { learn } from "../learn.ts";
import { ArchiveRefused } from "../storage/archive-refused.ts";
import { FetchRefused } from "../storage/guarded-fetch.ts";
import { ImageRefused } from "../storage/image.ts";
import { VideoRefused } from "../storage/video.ts";
import { dropInline } from "./inline.ts";
import { storeOutput } from "./outputs.ts";
import type { Services } from "./services.ts";

/** An output that is refused or not there (403, 404) may be so only for a moment: it was made this instant. */
const GIVE_UP_ABSENT_AFTER_ATTEMPTS = 3;
/** Providers delete outputs an hour after the end; trying longer is pointless, giving up earlier is a loss. */
const GIVE_UP_AFTER_ATTEMPTS = 60;
const FIRST_PAUSE_MS = 2_000;
const MOST_PAUSE_MS = 60_000;

/**
 * Brings the outputs of a run into our store. Only then is the run `stored`. Doing it twice writes the same bytes to the
 * same places, and the first to finish is noted.
 */
export async function store(services: Services, record: JobRecord, run: Run): Promise<void> {
  try {
    // Some trainers keep the weights to themselves: what they made can be used there all the same.
    if (run.outputs.length === 0 && run.trainedVersion === null)
      throw new Unusable(failure("output_unavailable", "the provider reported success without an output"));
    const assets: NewAsset[] = [];
    for (const [position, url] of run.outputs.entries())
      assets.push(...(await storeOutput(services, record, run, position, url)));
    await services.reach("store.kept", record.job.id);
    await learn(services, record.job.id, [{ type: "stored", at: timeBy(record), runId: run.id }], { assets });
    await services.reach("store.recorded", record.job.id);
    await forget(services, run);
  } catch (error) {
    // Broken off by us: no fault of the output, and not an attempt.
    if (services.stop.aborted) throw error;
    const attempts = run.storeAttempts + 1;
    const final = finalFailure(error, attempts);
    const last = attempts >= GIVE_UP_AFTER_ATTEMPTS;
    const why = final ?? failure("output_unavailable", error instanceof Error ? error.message : String(error));
    const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** run.storeAttempts, MOST_PAUSE_MS);
    const at = timeBy(record);
    const until = final || last ? null : new Date(at.getTime() + pauseMs);
    services.logger.warn(
      { err: error, job_id: record.job.id, run_id: run.id, again_at: until },
      "could not store an output",
    );
    await learn(services, record.job.id, [{ type: "store_failed", at, runId: run.id, until, failure: why }]);
    if (until === null) await forget(services, run);
  }
}

async function forget(services: Services, run: Run): Promise<void> {
  await dropInline(services, run).catch((error: unknown) =>
    services.logger.warn({ err: error, run_id: run.id }, "an inline output stays: a chore removes it"),
  );
}

class Unusable extends Error {
  readonly failure: Failure;
  constructor(why: Failure) {
    super(why.detail);
    this.failure = why;
  }
}

/** What trying again cannot mend; null for everything else. */
function finalFailure(error: unknown, attempts: number): Failure | null {
  if (error instanceof Unusable) return error.failure;
  if (error instanceof ImageRefused || error instanceof VideoRefused || error instanceof ArchiveRefused)
    return failure("output_invalid", error.message);
  if (error instanceof FetchRefused && isAbsent(error) && attempts < GIVE_UP_ABSENT_AFTER_ATTEMPTS) return null;
  if (error instanceof FetchRefused && !error.retryable)
    return failure(error.code === "too_large" ? "output_invalid" : "output_unavailable", error.message);
  return null;
}

const isAbsent = ({ status }: FetchRefused) => status === 403 || status === 404;
