import type { Bug } from "./bug.ts";

const STORE = "src/workers/store.ts";

/** What is fetched, kept and handed out. */
export const OUTPUT_BUGS: readonly Bug[] = [
  {
    name: "noted_before_kept",
    says: "the run is stored first and its files are written to the store afterwards",
    patches: [
      {
        file: STORE,
        find: "/** What a model may return is not bounded by what a user may send in. */",
        replace: "const later: (() => Promise<unknown>)[] = [];\n",
      },
      {
        file: STORE,
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
        file: STORE,
        find: `const name = \`\${run.variant}-\${run.id}-\${position}\`;`,
        replace: `const name = \`\${position}\`;`,
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
        file: STORE,
        find: "/** What a model may return is not bounded by what a user may send in. */",
        replace: "const fetched: Record<string, ReturnType<typeof fetchWithRetry>> = {};\n",
      },
      {
        file: STORE,
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
        find: `  for await (const chunk of body as AsyncIterable<Buffer>) {
    received += chunk.length;
    if (received > maxBytes) throw tooLarge();
    chunks.push(chunk);
  }
  if (length !== null && received !== Number(length)) throw refusedTruncated();`,
        replace: `  body.on("error", () => {});
  await new Promise((resolve) => {
    body.on("data", (chunk: Buffer) => {
      received += chunk.length;
      chunks.push(chunk);
    });
    body.on("close", resolve);
  });
  if (received > maxBytes) throw tooLarge();`,
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
