import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { ProviderUnreachable } from "../../src/domain/provider.ts";
import { type Bench, print } from "./bench.ts";
import { type Case, it } from "./case.ts";

const FOLDER = fileURLToPath(new URL("recorded/", import.meta.url));

/** One file of recorded/<api>/: answers of the real provider, and what is to be read in them. */
const Recording = z.strictObject({
  /** What somebody has seen, byte for byte, or what the documentation says that it would look like. */
  kind: z.enum(["recording", "documented"]).default("documented"),
  /** Where the answers come from. */
  source: z.string().min(10),
  /** A sentence that goes on from the provider's name. */
  says: z.string(),
  /** What the adapter is asked; a submit orders the sample. */
  ask: z.enum(["submit", "look"]),
  /** Of the run that is looked at. */
  providerRunId: z.string().default("recorded"),
  /** Of the model, where the ask names another than the sample. */
  model: z.string().optional(),
  /** The first whose method and end of path fit is the answer; without a query. */
  answers: z.array(
    z.strictObject({
      method: z.enum(["GET", "POST", "PUT", "DELETE"]),
      path: z.string(),
      status: z.number().int(),
      headers: z.record(z.string(), z.string()).default({}),
      /** JSON, or the bytes as text. */
      body: z.unknown(),
    }),
  ),
  /** What the adapter answers, or a part of it; "unreachable" where it must say that this is no answer. */
  expect: z.union([z.record(z.string(), z.unknown()), z.literal("unreachable")]),
});
type Recording = z.output<typeof Recording>;

/** The cases of recorded/<api>/, in the order of their names. */
export async function recordedCases(api: string): Promise<readonly Case[]> {
  const folder = `${FOLDER}${api}/`;
  if (!existsSync(folder)) return [];
  const names = (await readdir(folder)).filter((name) => name.endsWith(".json")).sort();
  return await Promise.all(
    names.map(async (name) => {
      const recording = Recording.parse(JSON.parse(await readFile(folder + name, "utf8")));
      const as = recording.kind === "recording" ? "as recorded" : "as documented";
      return it(`${as}: ${recording.says}`, (bench) => replay(bench, recording));
    }),
  );
}

async function replay(bench: Bench, recording: Recording): Promise<void> {
  bench.wire.stand(({ method, path }, response) => {
    const at = path.split("?")[0] ?? "";
    const found = recording.answers.find((one) => one.method === method && at.endsWith(one.path));
    // What was not recorded does not exist.
    const { status, headers, body } = found ?? { status: 404, headers: {}, body: "not recorded" };
    const text =
      typeof body === "string" ? body : JSON.stringify(body).replaceAll("{origin}", bench.at(bench.wire.url));
    response.writeHead(status, { "content-type": "application/json", ...headers }).end(text);
    return true;
  });
  const order = bench.order(recording.model === undefined ? {} : { model: recording.model });
  const asked =
    recording.ask === "submit"
      ? bench.provider.submit(order)
      : bench.provider.look(bench.ref(order, recording.providerRunId));
  const said: unknown = await asked.catch((error: unknown) => error);
  if (recording.expect === "unreachable") {
    assert.ok(said instanceof ProviderUnreachable, print(said));
    return;
  }
  if (said instanceof Error) throw said;
  assert.deepEqual(part(said, recording.expect), recording.expect, `the answer was ${print(said)}`);
}

/** As much of a value as another one speaks of. */
function part(value: unknown, of: unknown): unknown {
  if (typeof of !== "object" || of === null || Array.isArray(of) || typeof value !== "object" || value === null)
    return value;
  const members = Object.fromEntries(Object.entries(value));
  return Object.fromEntries(Object.entries(of).map(([key, it]) => [key, part(members[key], it)]));
}
