import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { readAccounts } from "../src/accounts.ts";
import { maskPath } from "../src/api/mask-path.ts";
import { ConfigError, envExample, readConfig } from "../src/config.ts";
import { findModel } from "../src/domain/catalogue.ts";
import { routesOn } from "../src/domain/routing.ts";

const fine = {
  DATABASE_URL: "postgres://u:p@localhost/db",
  AI_PROVIDER: "sandbox",
  SANDBOX_URL: "http://127.0.0.1:1",
  SIGNING_SECRET: "0123456789abcdef0123456789abcdef",
};

function problems(env: Record<string, string>): readonly string[] {
  try {
    readConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
}

describe("the environment", () => {
  test("that is fine is read with its defaults", () => {
    expect(readConfig(fine)).toMatchObject({
      PORT: 3000,
      PUBLIC_URL: "http://localhost:3000",
      STORAGE_PROVIDER: "local",
      WORKER_KINDS: ["training", "generation", "staging", "edit", "video"],
    });
  });

  test("that is wrong is answered with every problem at once, each with its remedy", () => {
    const found = problems({
      PORT: "many",
      DATABASE_URL: "mysql://x",
      AI_PROVIDER: "magic",
      S3_REGION: "eu",
      STORAGE_PROVIDER: "s3",
      SIGNING_SECRET: "short",
    });
    for (const name of [
      "PORT",
      "DATABASE_URL",
      "AI_PROVIDER",
      "SIGNING_SECRET",
      "S3_BUCKET",
      "S3_ACCESS_KEY_ID",
      "S3_SECRET_ACCESS_KEY",
    ])
      expect(found.filter((problem) => problem.startsWith(name))).toHaveLength(1);
    expect(found.find((problem) => problem.startsWith("SIGNING_SECRET"))).toMatch(/openssl rand/);
  });

  test("of production refuses the sandbox, and wants a public https address", () => {
    const found = problems({ ...fine, NODE_ENV: "production" });
    expect(found.some((problem) => /AI_PROVIDER is sandbox, and that is refused/.test(problem))).toBe(true);
    expect(found.some((problem) => problem.startsWith("PUBLIC_URL"))).toBe(true);
    expect(
      problems({
        ...fine,
        NODE_ENV: "production",
        AI_PROVIDER: "replicate",
        REPLICATE_API_TOKEN: "r8_x",
        PUBLIC_URL: "http://x.example",
      }),
    ).toEqual([expect.stringMatching(/PUBLIC_URL must be https/)]);
  });

  test("may use the names that existing products use, and files for secrets", async () => {
    const file = join(await mkdtemp(join(tmpdir(), "darkroom-config-")), "token");
    await writeFile(file, "r8_from_a_file\n");
    const { AI_PROVIDER: _, SANDBOX_URL: __, ...rest } = fine;
    const config = readConfig({
      ...rest,
      AI_PRIMARY_PROVIDER: "replicate",
      REPLICATE_API_KEY_FILE: file,
      WAVESPEED_API_TOKEN: "w1",
      WAVESPEED_API_TOKEN_3: "w3",
      HUGGINGFACE_API_TOKEN_2: "hf_2",
      NEXT_PUBLIC_APP_URL: "https://app.example/",
      STORAGE_PROVIDER: "aws",
      AWS_S3_BUCKET: "b",
      AWS_ACCESS_KEY_ID: "k",
      AWS_SECRET_ACCESS_KEY: "s",
      AWS_REGION: "eu-west-1",
    });
    expect(config).toMatchObject({
      AI_PROVIDER: ["replicate"],
      REPLICATE_API_TOKEN: ["r8_from_a_file"],
      WAVESPEED_API_KEY: ["w1", "", "w3"],
      HF_TOKEN: ["", "hf_2"],
      PUBLIC_URL: "https://app.example",
      STORAGE_PROVIDER: "s3",
      S3_BUCKET: "b",
      S3_REGION: "eu-west-1",
    });
    expect(problems({ ...fine, SIGNING_SECRET: "", SIGNING_SECRET_FILE: "/nowhere" })).toEqual(
      expect.arrayContaining([expect.stringMatching(/cannot be read/)]),
    );
  });

  test("names who is asked first once, whichever name of the variable it uses", () => {
    const both = { ...fine, AI_PROVIDER: "sandbox, sandbox:fal" };
    expect(problems({ ...both, AI_PRIMARY_PROVIDER: "sandbox,sandbox:fal" })).toEqual([]);
    expect(problems({ ...both, AI_PRIMARY_PROVIDER: "sandbox" })).toEqual([
      "AI_PROVIDER is sandbox,sandbox:fal, and AI_PRIMARY_PROVIDER, another name of it, is sandbox: who is asked first? Leave one of them out.",
    ]);
  });

  test("with an empty variable is as without it", () => {
    expect(readConfig({ ...fine, REDIS_URL: "", PORT: "" })).toMatchObject({ PORT: 3000 });
  });

  test("that names a deployment at Replicate has an account for it, with its price, and models that no other has", () => {
    const env = { ...fine, AI_PROVIDER: "replicate_own", REPLICATE_API_TOKEN: "r8_x" };
    const { accounts } = readAccounts(
      readConfig({ ...env, REPLICATE_DEPLOYMENTS: "own/flux-dev=acme/my-flux:0.001525" }),
    );
    expect(accounts).toEqual([
      expect.objectContaining({
        name: "replicate_own",
        token: "r8_x",
        endpoints: { "own/flux-dev": "acme/my-flux" },
        models: ["own/flux-dev"],
        secondMicroUsd: expect.closeTo(1_525, 3),
      }),
      expect.objectContaining({ name: "replicate", endpoints: null }),
    ]);
    const model = findModel("generation", "flux-dev");
    const names = accounts.map((account) => model && routesOn(account, model).map((route) => route.model));
    expect(names).toEqual([["own/flux-dev"], ["black-forest-labs/flux-dev"]]);
    expect(problems(env)).toEqual([
      expect.stringMatching(/replicate_own, and there is no such account: .*REPLICATE_DEP/),
    ]);
  });

  test.each([
    ["own/flux-dev=acme/my-flux", /^REPLICATE_DEPLOYMENTS is not usable \(each as own\/flux-dev=<owner>\/<name>:/],
    ["own/flux-dev=acme/my-flux:0.0", /^REPLICATE_DEPLOYMENTS is not usable/],
    ["own/sdxl=acme/my-sdxl:0.001", /^REPLICATE_DEPLOYMENTS names own\/sdxl, .* one of own\/flux-dev\./],
    ["own/flux-dev=acme/a:0.001,own/flux-dev=acme/b:0.001", /^REPLICATE_DEPLOYMENTS names own\/flux-dev twice/],
  ])("with the deployments %s is refused, with what to write", (REPLICATE_DEPLOYMENTS, says) => {
    const env = { ...fine, AI_PROVIDER: "replicate", REPLICATE_API_TOKEN: "r8_x" };
    expect(problems({ ...env, REPLICATE_DEPLOYMENTS })).toEqual([expect.stringMatching(says)]);
  });

  test("is described whole in .env.example", () => {
    const text = envExample();
    for (const name of Object.keys(readConfig(fine))) expect(text).toContain(`${name}=`);
  });
});

test("a log line holds neither a run's secret nor a file's signature", () => {
  expect(maskPath("/api/webhooks/replicate/0199-run/s3cr3t-token")).toBe("/api/webhooks/replicate/0199-run/…");
  expect(maskPath("/files/apps/x.png?expires=1&signature=abc")).toBe("/files/apps/x.png");
  expect(maskPath("/api/jobs?user=ann")).toBe("/api/jobs");
});
