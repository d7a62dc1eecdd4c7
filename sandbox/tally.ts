import { FACES, type FaceName } from "./face.ts";

/** What became of the requests that ask for something to be made, at one face. */
export interface Creates {
  /** Arrived, whatever came of it. */
  readonly asked: number;
  /** How many were answered with which status; what is missing to `asked` was cut off, or is being answered. */
  readonly answers: Readonly<Record<string, number>>;
}

/** Below a face's prefix: the paths that a POST buys something at. All else is asking, canceling, or uploading. */
const DOORS: Readonly<Record<FaceName, { readonly prefix: string; readonly path: RegExp }>> = {
  replicate: { prefix: "/v1/", path: /(^|\/)(predictions|trainings)$/ },
  runpod: { prefix: "/runpod/", path: /\/run(sync)?$/ },
  fal: { prefix: "/fal/", path: /^queue\// },
  wavespeed: { prefix: "/wavespeed/", path: /^api\/v3\/(?!predictions(\/|$)|media\/|model\/)/ },
  huggingface: { prefix: "/huggingface/", path: /^(hf-inference|together|fal-ai)\// },
  poe: { prefix: "/poe/", path: /^chat\/completions$/ },
};

/** Counts requests for something to be made, also those that were refused, and those that nobody answered. */
export function makeTally() {
  let counts = fresh();

  return {
    /** At which face this would buy something; null: at none. */
    doorOf(method: string, url: string): FaceName | null {
      const path = url.split("?")[0] ?? "";
      if (method !== "POST") return null;
      return FACES.find((face) => isDoor(face, path)) ?? null;
    },
    ask(face: FaceName): void {
      counts[face].asked += 1;
    },
    answer(face: FaceName, status: number): void {
      const { answers } = counts[face];
      answers[status] = (answers[status] ?? 0) + 1;
    },
    counts: (): Readonly<Record<FaceName, Creates>> => structuredClone(counts),
    reset(): void {
      counts = fresh();
    },
  };
}

function isDoor(face: FaceName, path: string): boolean {
  const { prefix, path: door } = DOORS[face];
  return path.startsWith(prefix) && door.test(path.slice(prefix.length));
}

function fresh(): Record<FaceName, { asked: number; answers: Record<string, number> }> {
  const none = () => ({ asked: 0, answers: {} });
  return {
    replicate: none(),
    runpod: none(),
    fal: none(),
    wavespeed: none(),
    huggingface: none(),
    poe: none(),
  };
}
