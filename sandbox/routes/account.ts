import type { FastifyInstance } from "fastify";
import { HARDWARE } from "../catalogue.ts";
import type { Cloud } from "../cloud.ts";

export function accountRoutes({ options }: Cloud) {
  return async (api: FastifyInstance) => {
    api.get("/account", async () => ({
      type: "organization",
      username: options.account,
      name: "Sandbox",
      github_url: null,
      avatar_url: null,
    }));

    api.get("/hardware", async () => HARDWARE.map(({ name, sku }) => ({ name, sku })));

    api.get("/webhooks/default/secret", async () => ({ key: options.webhookSecret }));
  };
}
