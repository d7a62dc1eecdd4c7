import { z } from "zod";
import type { NewTrainedModel } from "../db/accept.ts";
import { type Asset, photoFacts, savePhotoFacts } from "../db/assets.ts";
import type { FileRef } from "../domain/kinds/kind.ts";
import { photoField, type TrainingInput } from "../domain/kinds/training.ts";
import type { Fitted } from "../domain/request.ts";
import { ServiceError } from "../errors.ts";
import { judgePhoto, type PhotoFacts, type PhotoVerdict, type Remark } from "../storage/photo.ts";
import { detectTask, duplicatesOf, setQuality } from "../storage/photo-set.ts";
import type { ApiServices } from "./app.ts";
import { keepImage, readFile } from "./inputs.ts";

const remark = z.object({ code: z.string(), detail: z.string() });

/** What is said of one photo of a training set. */
export const photoAnswer = z.object({
  photo: z.int().describe("0-based, as sent."),
  verdict: z.enum(["taken", "repaired", "refused"]).describe("repaired: turned upright, or converted to sRGB."),
  id: z.uuid().nullable().describe("The upload's id, to be named in input.photos; null where it could not be kept."),
  problems: z.array(remark).describe("Why it is refused, and what to do."),
  notes: z.array(remark).describe("What is repaired, or worth knowing."),
});
export type PhotoAnswer = z.output<typeof photoAnswer>;

export interface PhotoSet {
  /** Of those that were kept, by the name of the input field. */
  readonly files: Readonly<Record<string, Asset>>;
  readonly photos: readonly PhotoAnswer[];
  readonly facts: readonly PhotoFacts[];
}

/** A photo, judged; its asset is null where it could not be kept. */
export interface Judged {
  readonly asset: Asset | null;
  readonly verdict: PhotoVerdict;
}

/** Fetched and judged at the same time; each holds one photo in memory. */
const AT_ONCE = 3;

/**
 * Judges every photo of a set, whether or not another one is refused, so that one answer says all that is wrong with it.
 * Throws ServiceError file_refused with the verdicts when any is refused; nothing is charged before.
 */
export async function judgePhotos(
  services: ApiServices,
  appId: string,
  refs: Readonly<Record<string, FileRef>>,
): Promise<PhotoSet> {
  const set = verdictsOf(await judgeRefs(services, appId, refs));
  const refused = set.photos.filter(({ verdict }) => verdict === "refused");
  if (refused.length > 0) throw refusedPhotos(set.photos, refused);
  return set;
}

export async function judgeRefs(
  services: ApiServices,
  appId: string,
  refs: Readonly<Record<string, FileRef>>,
): Promise<Judged[]> {
  const fields = Object.values(refs);
  const judged: Judged[] = new Array(fields.length);
  let next = 0;
  const work = async () => {
    for (let at = next++; at < fields.length; at = next++)
      judged[at] = await judgeRef(services, appId, fields[at] as FileRef);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return judged;
}

/** With what can be said only of the set: which of them show the same. */
export function verdictsOf(judged: readonly Judged[]): PhotoSet {
  const twins = duplicatesAmong(judged.map(({ verdict }) => verdict));
  const photos = judged.map(({ asset, verdict }, photo): PhotoAnswer => {
    const twin = twins.get(photo);
    const problems: Remark<string>[] = [...verdict.problems];
    if (twin !== undefined)
      problems.push({
        code: "duplicate",
        detail: `It shows the same as photo ${twin + 1}. Leave it out, or send another one.`,
      });
    const repaired = verdict.notes.some(({ code }) => REPAIRED.has(code));
    const taken = repaired ? "repaired" : "taken";
    return {
      photo,
      verdict: problems.length > 0 ? "refused" : taken,
      id: asset?.id ?? null,
      problems,
      notes: [...verdict.notes],
    };
  });
  const files = Object.fromEntries(judged.flatMap(({ asset }, at) => (asset ? [[photoField(at), asset]] : [])));
  return { files, photos, facts: judged.flatMap(({ verdict }) => verdict.facts ?? []) };
}

const REPAIRED = new Set(["cmyk", "rotated", "alpha"]);

/** Of those that could be read, by their index among all. */
function duplicatesAmong(verdicts: readonly PhotoVerdict[]): Map<number, number> {
  const readable = verdicts.flatMap(({ facts }, index) => (facts ? [{ facts, index }] : []));
  const found = duplicatesOf(readable.map(({ facts }) => facts));
  return new Map(
    [...found].map(([later, earlier]) => [readable[later]?.index ?? later, readable[earlier]?.index ?? earlier]),
  );
}

async function judgeRef(services: ApiServices, appId: string, ref: FileRef): Promise<Judged> {
  const file = await readFile(services, appId, ref);
  if ("refused" in file) {
    const problems = [{ code: file.code as PhotoVerdict["problems"][number]["code"], detail: file.refused }];
    return { asset: null, verdict: { ok: false, problems, notes: [], facts: null } };
  }
  const known = file.asset && photoFacts<PhotoVerdict>(file.asset);
  return known ? { asset: file.asset, verdict: known } : judgeBytes(services, appId, await file.read(), file.asset);
}

/** Keeps the photo as an upload, unless it is one already or cannot be read. The same bytes are judged once. */
export async function judgeBytes(
  services: ApiServices,
  appId: string,
  bytes: Buffer,
  asset: Asset | null = null,
): Promise<Judged> {
  const { maxBytes, maxPixels } = services.limits;
  const verdict = await judgePhoto(bytes, { maxBytes, maxPixels });
  if (!verdict.facts) return { asset, verdict };
  const kept = asset ?? (await keepImage(services, appId, bytes, ""));
  await savePhotoFacts(services.db, kept.id, verdict);
  return { asset: kept, verdict };
}

function refusedPhotos(photos: readonly PhotoAnswer[], refused: readonly PhotoAnswer[]): ServiceError {
  const fields = refused.flatMap(({ photo, problems }) =>
    problems.map(({ detail }) => ({ pointer: `/input/photos/${photo}`, detail })),
  );
  const words = fields.map(({ pointer, detail }) => `${pointer}: ${detail}`).join("; ");
  return new ServiceError(
    "file_refused",
    `${refused.length} of ${photos.length} photos cannot be used: ${words} Nothing was charged.`,
    { fields, facts: { reason: "photos_refused", photos } },
  );
}

/** The training as it will be done, with what was detected, and the model that it will make. */
export function trainedBy(
  fitted: Fitted,
  facts: readonly PhotoFacts[],
): { input: TrainingInput; model: NewTrainedModel } {
  const asked = fitted.input as TrainingInput;
  const task = asked.task ?? detectTask(facts).task;
  const family = fitted.model.limits.trains;
  if (!family) throw new Error(`the model ${fitted.model.alias} trains nothing`);
  const input = { ...asked, task };
  return {
    input,
    model: {
      name: input.name,
      family,
      triggerWord: input.triggerWord,
      task,
      resolution: input.resolution ?? 1_024,
      steps: input.steps,
      photos: facts.length,
      quality: setQuality(facts),
    },
  };
}
