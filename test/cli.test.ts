import { spawn } from "node:child_process";
import { expect, inject, test } from "vitest";
import { darkroom } from "./rig/compiled.ts";

test("a wrong environment ends the api and the worker with code 78 and every problem", async () => {
  for (const command of ["api", "worker", "doctor"]) {
    const { code, err } = await darkroom([command], { PORT: "x" });
    expect(code).toBe(78);
    for (const name of ["PORT", "DATABASE_URL", "AI_PROVIDER", "SIGNING_SECRET"]) expect(err).toContain(name);
    expect(err).not.toContain("    at "); // No stack: it is not a bug.
  }
});

test("the sandbox is refused in production", async () => {
  const child = spawn(process.execPath, ["--import", "tsx", "sandbox/main.ts"], {
    env: { PATH: process.env["PATH"] ?? "", NODE_ENV: "production" },
    timeout: 20_000,
  });
  expect(await new Promise((resolve) => child.once("close", resolve))).toBe(78);
});

test(".env.example and the OpenAPI description are what the code would write", async () => {
  expect(await darkroom(["env-example", "--check"])).toMatchObject({ code: 0 });
  expect(await darkroom(["openapi", "--check"])).toMatchObject({ code: 0 });
});

test("an unknown command says what there is", async () => {
  const { code, err } = await darkroom(["fly"]);
  expect(code).not.toBe(0);
  expect(err).toMatch(/unknown command/);
});

test("a worker on a database that was never migrated ends at once and says what to do", async () => {
  const url = new URL(inject("databaseUrl"));
  const { code, err } = await darkroom(["worker"], {
    DATABASE_URL: url.href,
    AI_PROVIDER: "sandbox",
    SANDBOX_URL: "http://127.0.0.1:1",
    SIGNING_SECRET: "a secret of the tests that is long enough",
    HEALTH_PORT: "0",
  });
  expect(code).toBe(78);
  expect(err).toMatch(/npm run migrate/);
});
