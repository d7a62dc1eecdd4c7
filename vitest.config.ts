import { defineConfig } from "vitest/config";
import { findChromium, findRedis } from "./test/rig/programs.ts";

/**
 * Two cores here and in CI, and most tests wait: a fourth worker only makes the others' waits longer. Files share the
 * modules of their worker, which loading them anew for each of a hundred files would cost two minutes of. No retries: a
 * flaky test is a bug.
 */
const limits = {
  maxWorkers: 3,
  isolate: false,
  testTimeout: 30_000,
  hookTimeout: 60_000,
  retry: 0,
  pool: "forks" as const,
};

/** What misses is said, or refused, by the global setup. */
const hasRedis = findRedis() !== null;
const hasChromium = findChromium() !== null;

export default defineConfig({
  test: {
    ...limits,
    globalSetup: "./test/rig/global-setup.ts",
    projects: [
      {
        test: {
          ...limits,
          name: "postgres",
          include: ["test/**/*.test.ts"],
          exclude: ["test/browser/**"],
          env: { QUEUE_BACKEND: "postgres" },
        },
      },
      {
        test: {
          ...limits,
          name: "redis",
          include: hasRedis ? ["test/queue/**/*.test.ts"] : [],
          env: { QUEUE_BACKEND: "redis" },
        },
      },
      {
        test: {
          ...limits,
          name: "browser",
          include: hasChromium ? ["test/browser/**/*.test.ts"] : [],
          env: { QUEUE_BACKEND: "postgres" },
        },
      },
    ],
  },
});
