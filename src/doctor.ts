import { makeLogger, makeParts } from "./compose.ts";
import type { Config } from "./config.ts";
import { CATALOGUE, routeOf } from "./domain/catalogue.ts";
import { type Check, check, checkReadiness } from "./health.ts";

/** Tries everything that a deployment needs, and says of each what is wrong and what to do. */
export async function examine(config: Config): Promise<Check[]> {
  const parts = makeParts(config, makeLogger({ LOG_LEVEL: "silent" }, "doctor"), "doctor");
  try {
    const checks = await checkReadiness(parts.db, parts.queues);
    checks.push(await check(`storage (${parts.storage.name})`, () => parts.storage.check()));
    for (const provider of parts.providers)
      for (const model of CATALOGUE) {
        const route = routeOf(model, provider.api);
        if (!route) continue;
        checks.push(
          await check(`${provider.name}: ${model.alias}`, async () => {
            const resolved = await provider.resolve(route.model);
            if (resolved.outcome !== "resolved")
              throw new Error(`${resolved.failure.code}: ${resolved.failure.detail}`);
          }),
        );
      }
    checks.push(
      await check("webhooks", async () => {
        if (!config.PUBLIC_URL.startsWith("https://") && config.NODE_ENV === "production")
          throw new Error(
            `PUBLIC_URL is ${config.PUBLIC_URL}: providers call back to https only, so every run is asked for`,
          );
      }),
    );
    return checks;
  } finally {
    await parts.close();
  }
}
