import { type ApiServices, makeApp } from "./app.ts";

/**
 * The OpenAPI description as it is committed in docs/openapi.json. The routes are only described, never called, so the
 * services behind them may be missing.
 */
export async function makeOpenApi(): Promise<string> {
  const limits = { maxBytes: 1, maxPixels: 1 };
  const described = {
    limits,
    logger: undefined,
    publicUrl: "http://localhost:3000",
    version: "0",
    storage: { open: () => null },
  };
  const app = await makeApp(described as unknown as ApiServices);
  await app.ready();
  const text = `${JSON.stringify(app.swagger(), null, 2)}\n`;
  await app.close();
  return text;
}
