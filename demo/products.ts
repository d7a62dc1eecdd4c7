import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { apps } from "../apps/all.ts";
import { connect, type Db, disconnect } from "../src/db/client.ts";
import { ledgerDrift } from "../src/db/credits.ts";
import { createKey } from "../src/db/keys.ts";
import { type App, kindsOf } from "../src/domain/app.ts";
import type { KindName } from "../src/domain/kinds/kind.ts";
import { type Client, type Job, makeClient, readBill } from "./client.ts";
import type { Addresses } from "./cluster.ts";
import { type SavedFile, saveFiles } from "./folder.ts";
import { photo } from "./photo.ts";
import { isEnded } from "./progress.ts";
import { paintRoom } from "./room.ts";

/** Every kind of job for every app, bought for real from whoever sells here: what the price books' examples name. */

const USER = "ada";
/** More than the dearest of everything costs. */
const PURSE = 20_000;
const ASK_EVERY_MS = 300;
const PHOTOS = 5;
/** A generation with what the app's training made. */
const OWN_MODEL = "own model";

export interface Visit {
  readonly app: string;
  readonly what: string;
  readonly job: Job;
  readonly files: readonly SavedFile[];
}

export interface Visits {
  readonly visits: readonly Visit[];
  readonly ledger: Awaited<ReturnType<typeof ledgerDrift>>;
  /** The ids that the sandbox billed. */
  readonly bill: readonly string[];
}

interface Uploads {
  readonly room: string;
  readonly mask: string;
  readonly photos: readonly string[];
}

interface Errand {
  readonly what: string;
  readonly body: Record<string, unknown>;
}

export async function visitProducts(
  addresses: Addresses,
  folder: string,
  halted: AbortSignal,
  onVisit: (visit: Visit) => void,
): Promise<Visits> {
  const db = connect(addresses.database, { max: 2, name: "demo" });
  try {
    const onEnd = inTurn(onVisit);
    const visits = (await Promise.all(apps.map((app) => visit(app, db, addresses, folder, halted, onEnd)))).flat();
    const bill = addresses.sandbox ? await readBill(addresses.sandbox) : [];
    return { visits, ledger: await ledgerDrift(db), bill };
  } finally {
    await disconnect(db);
  }
}

/** With null: there will be none. */
type OnEnd = (app: App, what: string, visit: Visit | null) => void;

/** Tells each as soon as those before it were told: by apps and their kinds, whichever ends first. */
function inTurn(onVisit: (visit: Visit) => void): OnEnd {
  const line = apps.flatMap((app) => [...kindsOf(app), OWN_MODEL].map((what) => `${app.id} ${what}`));
  const ended = new Map<string, Visit | null>();
  let told = 0;
  return (app, what, visit) => {
    ended.set(`${app.id} ${what}`, visit);
    for (let next = line[told]; next !== undefined && ended.has(next); next = line[++told]) {
      const due = ended.get(next);
      if (due) onVisit(due);
    }
  };
}

async function visit(
  app: App,
  db: Db,
  addresses: Addresses,
  folder: string,
  halted: AbortSignal,
  onEnd: OnEnd,
): Promise<Visit[]> {
  const client = makeClient(addresses.api, await createKey(db, app.id, "demo"), halted);
  await client.grant(USER, PURSE, `demo-${app.id}`);
  const uploads = await uploadAll(client);
  const run = async ({ what, body }: Errand): Promise<Visit> => {
    const { id } = await client.submit(body, randomUUID());
    let job = await client.job(id);
    while (!isEnded(job.status)) {
      await sleep(ASK_EVERY_MS, undefined, { signal: halted });
      job = await client.job(id);
    }
    const files = await saveFiles(client, job, `${app.id}-${what.replaceAll(" ", "-")}`, folder);
    const done = { app: app.id, what, job, files };
    onEnd(app, what, done);
    return done;
  };
  const first = await Promise.all(kindsOf(app).map((kind) => run(errandFor(app, kind, uploads))));
  const trained = first.find(({ what, job }) => what === "training" && job.status === "completed");
  if (!trained || !kindsOf(app).includes("generation")) {
    onEnd(app, OWN_MODEL, null);
    return first;
  }
  const input = { prompt: "a portrait in front of the sea", trainedModel: trained.job.id };
  return [...first, await run({ what: OWN_MODEL, body: { kind: "generation", user: USER, input } })];
}

/** The first worked example of the kind that the default plan can have, with real files. */
function errandFor(app: App, kind: KindName, { room, mask, photos }: Uploads): Errand {
  const example = app.prices[0].examples.find(
    (each) => each.kind === kind && (each.plan === undefined || each.plan === app.defaultPlan),
  );
  const input: Record<string, unknown> = { ...PLAIN[kind], ...example?.input };
  if ("image" in input) input["image"] = room;
  if ("mask" in input) input["mask"] = mask;
  if ("photos" in input) input["photos"] = photos;
  return { what: kind, body: { kind, user: USER, ...(example?.model ? { model: example.model } : {}), input } };
}

/** Where a book has no example that fits. */
const PLAIN: Readonly<Record<KindName, Record<string, unknown>>> = {
  generation: { prompt: "a lighthouse on a rocky coast at golden hour" },
  staging: { image: "" },
  edit: { image: "", instruction: "make it evening, with warm lamps" },
  video: { prompt: "waves roll towards a lighthouse, drifting clouds" },
  training: { photos: [] },
};

async function uploadAll(client: Client): Promise<Uploads> {
  const room = await paintRoom();
  const photos = await Promise.all(Array.from({ length: PHOTOS }, async (_, number) => photo(number)));
  const [roomId, maskId, ...photoIds] = await Promise.all([
    client.upload(room, "image/jpeg"),
    client.upload(await maskOf(room), "image/png"),
    ...photos.map((each) => client.upload(each, "image/jpeg")),
  ]);
  return { room: roomId ?? "", mask: maskId ?? "", photos: photoIds };
}

/** White in the middle: there it is to be repainted. */
async function maskOf(room: Buffer): Promise<Buffer> {
  const { default: sharp } = await import("sharp");
  const { width, height } = await sharp(room).metadata();
  const middle = await sharp({
    create: { width: width >> 1, height: height >> 1, channels: 3, background: "white" },
  })
    .png()
    .toBuffer();
  return sharp({ create: { width, height, channels: 3, background: "black" } })
    .composite([{ input: middle }])
    .png()
    .toBuffer();
}
