import type { Bug } from "./bug.ts";

const STORE = "src/workers/store.ts";
const OUTPUTS = "src/workers/outputs.ts";

/** What is fetched, kept and handed out. */
export const OUTPUT_BUGS: readonly Bug[] = [
  {
    name: "noted_before_kept",
    says: "the run is stored first and its files are written to the store afterwards",
    patches: [
      {
        file: OUTPUTS,
        find: "/** What a model may return is not bounded by what a user may send in. */",
        replace: "export const later: (() => Promise<unknown>)[] = [];\n",
      },
      {
        file: OUTPUTS,
        find: `  await Promise.all([
    storage.put(output.storageKey, bytes, image.contentType),
    storage.put(thumb.storageKey, small.bytes, small.contentType),
  ]);`,
        replace: `  later.push(
    () => storage.put(output.storageKey, bytes, image.contentType),
    () => storage.put(thumb.storageKey, small.bytes, small.contentType),
  );`,
      },
      {
        file: STORE,
        find: `import { storeOutput } from "./outputs.ts";`,
        replace: `import { later, storeOutput } from "./outputs.ts";`,
      },
      {
        file: STORE,
        find: `    await services.reach("store.recorded", record.job.id);`,
        replace: `    await services.reach("store.recorded", record.job.id);
    for (const put of later.splice(0)) await put();`,
      },
    ],
    scenario: "killed_when_stored",
    caughtBy: ["missingOutputs"],
  },
  {
    name: "one_key_for_all",
    says: "the key of a file names neither the variant nor the run: they overwrite each other",
    patches: [
      {
        file: OUTPUTS,
        find: `/\${run.variant}-\${run.id}-\${position}\``,
        replace: `/\${position}\``,
      },
    ],
    scenario: "failures",
    caughtBy: ["corruptedOutputs", "missingOutputs"],
  },
  {
    name: "one_picture_for_all",
    says: "downloads are remembered by job: every variant is the picture of the first",
    patches: [
      {
        file: OUTPUTS,
        find: "/** What a model may return is not bounded by what a user may send in. */",
        replace: "const fetched: Record<string, ReturnType<typeof fetchWithRetry>> = {};\n",
      },
      {
        file: OUTPUTS,
        find: "const { bytes } = await fetchWithRetry(fetchFile, url, { maxBytes: maxFileBytes });",
        replace: `fetched[record.job.id] ??= fetchWithRetry(fetchFile, url, { maxBytes: maxFileBytes });
  const { bytes } = (await fetched[record.job.id]) as Awaited<ReturnType<typeof fetchWithRetry>>;`,
      },
    ],
    scenario: "failures",
    caughtBy: ["corruptedOutputs"],
  },
  {
    name: "torn_is_whole",
    says: "what has arrived of a torn download is the file: refused as a picture, it is not fetched again",
    patches: [
      {
        file: "src/storage/guarded-fetch.ts",
        find: `    const next = await source.next().catch((error: unknown) => {
      throw stop.aborted ? error : classified(error, true);
    });`,
        replace: "    const next = await source.next().catch(() => ({ done: true, value: Buffer.alloc(0) }));",
      },
      {
        file: "src/storage/guarded-fetch.ts",
        find: "  if (length !== null && received !== Number(length)) throw refusedTruncated();\n",
        replace: "",
      },
    ],
    scenario: "misbehaviour",
    caughtBy: ["unexplainedFailures"],
  },
  {
    name: "download_given_up",
    says: "an output that could not be fetched at the first go is lost",
    patches: [
      {
        file: STORE,
        find: "const until = final || last ? null :",
        replace: "const until = final || attempts > 0 || last ? null :",
      },
    ],
    scenario: "misbehaviour",
    caughtBy: ["unexplainedFailures"],
  },
];
