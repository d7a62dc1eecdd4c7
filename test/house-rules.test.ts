import { expect, test } from "vitest";
import { findBreaches, readProject } from "../scripts/house-rules.ts";
import { lockProblems } from "../scripts/lock-file.ts";

/** What is found in one planted file. */
function breaches(file: string, text: string): string[] {
  return findBreaches(new Map([[file, text]])).map(({ line, what }) => `${line}: ${what}`);
}

test("the project keeps the rules of the house", async () => {
  const files = await readProject(process.cwd());
  expect(files.size).toBeGreaterThan(50);
  expect(findBreaches(files)).toEqual([]);
});

test.each([
  [
    "src/domain/job.ts",
    'import { connect } from "../db/client.ts";',
    "src/domain/job.ts does not know src/db/client.ts",
  ],
  ["src/domain/job.ts", 'import fs from "node:fs";', "src/domain/ imports no node:fs: it is pure"],
  ["src/domain/kinds/edit.ts", 'import type { Sql } from "postgres";', "src/domain/ imports no postgres: it is pure"],
  ["src/db/jobs.ts", 'import "../queue/queue.ts";', "src/db/jobs.ts does not know src/queue/queue.ts"],
  ["src/queue/queue.ts", 'export * from "../db/jobs.ts";', "src/queue/queue.ts does not know src/db/jobs.ts"],
  ["src/storage/s3.ts", 'const http = await import("../providers/http.ts");', "does not know src/providers/http.ts"],
  ["src/api/jobs.ts", 'import { advance } from "../workers/advance.ts";', "does not know src/workers/advance.ts"],
  ["src/workers/worker.ts", 'import type { App } from "../api/app.ts";', "does not know src/api/app.ts"],
  ["src/metrics.ts", 'import "./api/app.ts";', "src/metrics.ts does not know src/api/app.ts"],
  ["src/api/app.ts", 'import { demo } from "../../apps/demo.ts";', "does not know apps/demo.ts"],
  ["src/compose.ts", 'import "./main.ts";', "nobody imports src/main.ts"],
  ["src/api/app.ts", 'import "../compose.ts";', "nobody imports src/compose.ts"],
  ["src/main.ts", 'import "../sandbox/sandbox.ts";', "src/main.ts does not know sandbox/sandbox.ts"],
  ["sandbox/wire.ts", 'import type { Job } from "../src/domain/job.ts";', "does not know src/domain/job.ts"],
  ["apps/headshots.ts", 'import { connect } from "../src/db/client.ts";', "does not know src/db/client.ts"],
])("%s may not contain %s", (file, text, what) => {
  expect(breaches(file, `// why\n${text}\n`)).toEqual([expect.stringMatching(/^2: /)]);
  expect(breaches(file, text)[0]).toContain(what);
});

test.each([
  ["src/workers/worker.ts", "bullmq"],
  ["src/api/jobs.ts", "pg"],
  ["src/api/jobs.ts", "drizzle-orm/pg-core"],
  ["src/workers/store.ts", "@aws-sdk/client-s3"],
  ["src/storage/s3.ts", "sharp"],
  ["src/storage/photo.ts", "file-type"],
  ["src/workers/archive.ts", "yazl"],
  ["src/storage/photo-set.ts", "yauzl"],
  ["src/workers/outputs.ts", "mediabunny"],
  ["src/api/webhooks.ts", "undici"],
  ["src/providers/fal.ts", "replicate"],
  ["src/workers/worker.ts", "fastify"],
  ["src/workers/health.ts", "@fastify/helmet"],
  ["src/queue/queue.ts", "@bull-board/api/bullMQAdapter"],
  ["src/workers/worker.ts", "prom-client"],
  ["src/compose.ts", "commander"],
])("%s is no home of %s", (file, name) => {
  expect(breaches(file, `import x from "${name}";`)).toEqual([expect.stringContaining("is known only in")]);
});

test("who may know each other does", () => {
  expect(breaches("src/main.ts", 'import "./api/app.ts"; import "../apps/all.ts"; import "commander";')).toEqual([]);
  expect(breaches("src/compose.ts", 'import "./workers/worker.ts";')).toEqual([]);
  expect(breaches("src/workers/advance.ts", 'import "../db/jobs.ts"; import "../errors.ts"; import "pino";')).toEqual(
    [],
  );
  expect(breaches("src/workers/health.ts", 'import { fastify } from "fastify";')).toEqual([]);
  expect(breaches("test/all.test.ts", 'import "../src/main.ts"; import "bullmq";')).toEqual([]);
  expect(breaches("sandbox/pictures/picture.ts", 'import "sharp"; import "../wire.ts";')).toEqual([]);
  expect(breaches("src/storage/photo.ts", 'import "sharp";')).toEqual([]);
  expect(breaches("src/storage/archive.ts", 'import "yazl"; import "yauzl";')).toEqual([]);
  expect(breaches("src/storage/video.ts", 'import "mediabunny";')).toEqual([]);
  expect(breaches("sandbox/film.ts", 'import "mediabunny";')).toEqual([]);
  expect(breaches("sandbox/dataset.ts", 'import "yauzl";')).toEqual([]);
});

const [SELECT, LOG] = ["sel" + "ect", "conso" + "le.log"];

test("SQL outside of src/db is found, English is not", () => {
  const query = `const rows = await sql\`${SELECT} id, status from jobs where id = \${id}\`;`;
  expect(breaches("src/api/jobs.ts", query)).toEqual(["1: SQL lives in src/db and migrations"]);
  expect(breaches("src/workers/sweep.ts", 'run("update jobs set status = 1");')).toHaveLength(1);
  expect(breaches("src/workers/sweep.ts", 'run("INSERT INTO entries VALUES (1)");')).toHaveLength(1);
  expect(breaches("src/db/jobs.ts", query)).toEqual([]);
  expect(breaches("src/api/jobs.ts", `// ${SELECT} id from jobs\nsay("${SELECT} one from the list");`)).toEqual([]);
});

test("long files, empty names, unfinished work, machine paths, registry hosts and prints are found", () => {
  expect(breaches("src/api/long.ts", "x;\n".repeat(400))).toEqual([]);
  expect(breaches("src/api/long.ts", "x;\n".repeat(401))).toHaveLength(1);
  expect(breaches("test/long.test.ts", "x;\n".repeat(900))).toEqual([]);
  for (const name of ["src/api/url-helper.ts", "test/utils.ts", "src/queue/QueueManager.ts"])
    expect(breaches(name, "")).toHaveLength(1);
  for (const word of ["TO" + "DO", "FIX" + "ME"]) expect(breaches("README.md", `later\n${word}: this`)).toHaveLength(1);
  for (const path of ["/ro" + "ot/x", "/Use" + "rs/ann/x", "/ho" + "me/ann/x", "/wo" + "rk/main"])
    expect(breaches("docs/run.md", `cd ${path}`)).toHaveLength(1);
  expect(breaches("docs/run.md", "https://example.com/work/maintenance and /home/node/app")).toEqual([]);
  expect(breaches(".npmrc", `registry=https://regis${"try.npm"}js.org/`)).toHaveLength(1);
  expect(breaches("src/api/app.ts", `${LOG}("here");`)).toHaveLength(1);
  expect(breaches("scripts/check.ts", `${LOG}("here");`)).toEqual([]);
});

test("a lock file that another platform or registry would refuse is found", () => {
  const manifest = { engines: { node: ">=20.19" } };
  const good = { integrity: "sha512-x" };
  const problems = (entry: object, root: object = manifest) =>
    lockProblems({ packages: { "": root, "node_modules/x": { ...good, ...entry } } }, manifest);
  expect(problems({})).toEqual([]);
  expect(problems({ os: ["darwin"], optional: true })).toEqual([]);
  expect(problems({ os: ["darwin"] })).toEqual(["node_modules/x: for one platform only, but not optional"]);
  expect(problems({ extraneous: true })).toEqual(["node_modules/x: extraneous"]);
  expect(problems({ resolved: "https://example.com/x.tgz" })).toHaveLength(1);
  expect(problems({ integrity: "" })).toEqual(["node_modules/x: has no checksum"]);
  expect(problems({}, { engines: { node: ">=18" } })).toHaveLength(1);
});
