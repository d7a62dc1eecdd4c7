import type { Logger } from "pino";
import { makeBill } from "./bill.ts";
import { makeClock } from "./clock.ts";
import { makeCourse } from "./course.ts";
import { makeDatasets } from "./dataset.ts";
import { makeDownloads } from "./download.ts";
import { ALL_FACES } from "./faces.ts";
import { makeFaults } from "./faults.ts";
import { makeIntake } from "./intake.ts";
import { type LimitRates, makeLimits } from "./limit.ts";
import { makeLoras } from "./lora.ts";
import { makeModels } from "./models.ts";
import { makePhotos } from "./photo.ts";
import { makeGallery } from "./pictures/gallery.ts";
import { makeRuns } from "./runs.ts";
import { makeShelf } from "./shelf.ts";
import { makeTally } from "./tally.ts";
import { makeUploads } from "./uploads.ts";
import { makeWebhooks } from "./webhooks.ts";

export interface CloudOptions {
  readonly log: Logger;
  /** Divides every duration of the sandbox's own making: runs, boots, pauses between webhook tries. */
  readonly speed: number;
  readonly account: string;
  /** Tokens that are let in; null: any that begins with "r8_". */
  readonly tokens: readonly string[] | null;
  readonly webhookSecret: string;
  /** Signs download links of /v1/files. */
  readonly filesSecret: string;
  readonly webhookRelay: string | null;
  /** How long outputs, logs and inputs are kept after the end of a run. */
  readonly outputTtlMs: number;
  readonly fileTtlMs: number;
  readonly rateLimits: LimitRates | null;
  readonly billFile: string | undefined;
}

const SHELF_BYTES = 2 * 1024 ** 3; // bytes on disk, of uploads and of callers' photos together
const TIDY_MS = 60_000;

export type Cloud = Awaited<ReturnType<typeof makeCloud>>;

/** Everything behind the HTTP door, put together once. */
export async function makeCloud(options: CloudOptions) {
  const { log, speed, account, outputTtlMs } = options;
  const clock = makeClock();
  const faults = makeFaults();
  const bill = makeBill(options.billFile);
  const tally = makeTally();
  const models = makeModels(clock, account, faults);
  const runs = makeRuns(clock, outputTtlMs);
  const shelf = await makeShelf(SHELF_BYTES);
  const uploads = makeUploads(shelf, clock, options.fileTtlMs, account, options.filesSecret);
  const downloads = makeDownloads(uploads);
  const intake = makeIntake({
    photos: makePhotos(downloads),
    loras: makeLoras(downloads, models),
    datasets: makeDatasets(downloads),
    shelf,
  });
  const voices = new Map(
    ALL_FACES.flatMap((face) => {
      const voice = face.voice({ clock, options });
      return voice ? [[face.name, voice] as const] : [];
    }),
  );
  const webhooks = makeWebhooks({ faults, speed, log, voices, relay: options.webhookRelay });
  const course = makeCourse({ clock, speed, faults, webhooks, bill, intake, models });
  const gallery = makeGallery(shelf);
  const limits = makeLimits(options.rateLimits);
  const tidying = setInterval(() => runs.removeData(), TIDY_MS).unref();

  return {
    options,
    log,
    clock,
    faults,
    bill,
    tally,
    models,
    runs,
    uploads,
    webhooks,
    course,
    gallery,
    limits,

    async close(): Promise<void> {
      clearInterval(tidying);
      await Promise.all([course.close(), webhooks.close(), downloads.close(), bill.close()]);
      await shelf.close();
    },
  };
}
