import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { startSandbox } from "../sandbox/sandbox.ts";
import type { Config } from "../src/config.ts";
import { freePort } from "../src/db/embedded.ts";
import { doctorReport, examine, type Finding } from "../src/doctor.ts";
import { darkroom } from "./rig/compiled.ts";
import { asEnv, type Spine, startSpine } from "./rig/spine.ts";

vi.setConfig({ testTimeout: 60_000 });

let spine: Spine;
beforeAll(async () => {
  const apis = ["runpod", "fal", "wavespeed", "huggingface", "poe"];
  const AI_PROVIDER = ["sandbox", ...apis.map((api) => `sandbox:${api}`)].join(",");
  spine = await startSpine({ workers: 0, env: { AI_PROVIDER } });
});
afterAll(async () => {
  await spine?.stop();
});

const doctor = (over: Partial<Config> = {}) => examine({ ...spine.config, ...over });
const line = (findings: readonly Finding[], name: string) => findings.find((each) => each.name === name);
const broken = (findings: readonly Finding[]) => findings.filter(({ ok }) => ok === false);

test("of a deployment that is in order nothing is broken, and nothing was bought", async () => {
  const findings = await doctor();
  expect(broken(findings)).toEqual([]);
  expect(findings).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ name: "database", ok: true }),
      expect.objectContaining({ name: "migrations", ok: true }),
      expect.objectContaining({ name: "queue", ok: true }),
      expect.objectContaining({ name: "storage (local)", ok: true }),
      expect.objectContaining({ name: "sandbox: token", ok: true, detail: "valid, of organization sandbox" }),
      expect.objectContaining({ name: "sandbox: flux-schnell", ok: true }),
      expect.objectContaining({ name: "sandbox_wavespeed: balance", ok: true, detail: "$1000.00 left" }),
      expect.objectContaining({ name: "sandbox: webhook secret", ok: true }),
      expect.objectContaining({ name: "sandbox_wavespeed: webhook secret", ok: true }),
      expect.objectContaining({ name: "sandbox_fal: webhook secret", ok: true }),
      ...spine.config.AI_PROVIDER.map((name) =>
        expect.objectContaining({ name: `${name.replace(":", "_")}: clock`, ok: true }),
      ),
      expect.objectContaining({ name: "webhooks", ok: null }),
      expect.objectContaining({ name: "webhook address", ok: true }),
    ]),
  );
  expect(spine.sandbox.bill().lines).toEqual([]);
  const report = doctorReport(findings).split("\n");
  expect(report).toHaveLength(findings.length + 1);
  expect(report.at(-1)).toBe("nothing is broken");
});

test("a token that is refused is named once, with what to do", async () => {
  const strict = await startSandbox({ tokens: ["another"] });
  const findings = await doctor({ SANDBOX_URL: strict.url, AI_PROVIDER: ["sandbox"] });
  await strict.close();
  expect(line(findings, "sandbox: token")).toMatchObject({ ok: false, remedy: expect.stringContaining("valid token") });
  expect(line(findings, "sandbox: models")).toMatchObject({ ok: null });
  expect(line(findings, "sandbox: flux-schnell")).toBeUndefined();
});

test("a provider that cannot be reached, a model that is gone", async () => {
  const nowhere = await doctor({ SANDBOX_URL: `http://127.0.0.1:${await freePort()}`, AI_PROVIDER: ["sandbox"] });
  expect(line(nowhere, "sandbox: token")).toMatchObject({ ok: false, remedy: expect.stringContaining("reaches") });
  expect(line(nowhere, "sandbox: clock")).toMatchObject({ ok: false, detail: expect.stringContaining("ECONNREFUSED") });

  const rule = spine.sandbox.faults.add({ fault: "vanished", match: { model: "black-forest-labs/flux-schnell" } });
  const findings = await doctor({ AI_PROVIDER: ["sandbox"] });
  spine.sandbox.faults.remove(rule.id);
  expect(broken(findings).map(({ name }) => name)).toEqual(["sandbox: flux-schnell"]);
  expect(line(findings, "sandbox: flux-schnell")?.detail).toMatch(/^model_not_found/);
});

test("an address behind which there is nobody, somebody else, or an API with another secret", async () => {
  const only = { AI_PROVIDER: ["sandbox"] };
  const secret = await doctor({ ...only, SIGNING_SECRET: "another secret of the tests, long enough" });
  expect(broken(secret)).toMatchObject([
    { name: "webhook address", remedy: expect.stringContaining("SIGNING_SECRET") },
  ]);
  const stranger = await doctor({ ...only, PUBLIC_URL: spine.sandbox.url });
  expect(line(stranger, "public address")).toMatchObject({ ok: null, detail: expect.stringMatching(/answered \d/) });
  const nobody = await doctor({ ...only, PUBLIC_URL: `https://127.0.0.1:${await freePort()}` });
  expect(broken(nobody)).toMatchObject([{ name: "public address", detail: expect.stringContaining("ECONNREFUSED") }]);
  expect(line(nobody, "webhook address")).toBeUndefined();
});

test("on the command line it says what is broken, and ends with exit code 1", async () => {
  const run = (more: Record<string, string>) => darkroom(["doctor"], { ...asEnv(spine.config), ...more });
  expect(await run({})).toMatchObject({ code: 0, out: expect.stringMatching(/^✔ configuration .*\n/) });
  const nowhere = `postgres://nobody@127.0.0.1:${await freePort()}/none`;
  const { code, out } = await run({ DATABASE_URL: nowhere, REDIS_URL: spine.config.REDIS_URL ?? "" });
  expect(code).toBe(1);
  expect(out).toMatch(/✖ database .*→ Start Postgres, or correct DATABASE_URL/);
  expect(out).toMatch(/✔ sandbox: token/);
}, 120_000);
