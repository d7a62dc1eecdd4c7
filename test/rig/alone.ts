import type { Config } from "../../src/config.ts";
import type { Services } from "../../src/workers/services.ts";

/** What workers know of the deployment, for those that a test starts with accounts of its own: nobody calls or is called back. */
export const alone = (config: Config) =>
  ({
    routingFor: () => ({ by: "cost" }),
    webhookUrl: null,
    lostAfterMs: 1_000,
    maxFileBytes: config.MAX_FILE_BYTES,
    prefixOf: (appId) => `apps/${appId}`,
    post: async () => {
      throw new Error("nobody is called back here");
    },
    callbackSecretOf: () => "",
  }) satisfies Partial<Services>;
