import sharp from "sharp";
import { afterEach, describe, expect, test, vi } from "vitest";
import { CATALOGUE, type Model } from "../src/domain/catalogue.ts";
import { ADAPTERS } from "../src/providers/adapters.ts";
import { makeApp } from "./rig/apps.ts";
import { type Spine, startSpine } from "./rig/spine.ts";

vi.setConfig({ testTimeout: 120_000 });

/** Every model that the provider has a route to; trainings have tests of their own. */
const modelsAt = (api: string) =>
  CATALOGUE.filter(({ routes, limits }) => !limits.trains && routes.some((route) => route.api === api));
const own = (model: Model, api: string) =>
  model.routes.some((route) => route.api === api && route.model.startsWith("own/"));

let spine: Spine;
afterEach(() => spine?.stop());

/** With and without a picture, where the model takes both. */
function wishes({ kinds, limits, alias, routes }: Model, api: string, picture: string) {
  const [kind = "generation"] = kinds;
  const film = kind === "video" ? { seconds: limits.seconds?.min ?? 5 } : {};
  const mask = limits.mask ? { mask: picture } : {};
  const words = kind === "edit" || kind === "staging" ? { instruction: "add snow" } : { prompt: `a fox by ${alias}` };
  const input = kind === "staging" ? {} : { ...words, ...film, ...mask };
  const pictures = limits.image === "required" ? [true] : limits.image === "optional" ? [false, true] : [false];
  const canTake = (has: boolean) =>
    routes.some((route) => route.api === api && (route.takes?.image === undefined || route.takes.image === has));
  return pictures.filter(canTake).map((has) => ({
    kind,
    user: "ann",
    model: alias,
    input: has ? { ...input, image: picture } : input,
  }));
}

describe("each route of the catalogue brings what was asked for:", () => {
  test.each(ADAPTERS.map(({ api }) => api))("%s", async (api) => {
    const endpoints = "own/flux-dev@A40=own-flux-a40,own/sdxl@A40=own-sdxl-a40";
    spine = await startSpine({
      apps: [makeApp({ id: "shop", signupGrant: 100_000, safety: "off" })],
      env: { AI_PROVIDER: `sandbox:${api}`, ...(api === "runpod" ? { RUNPOD_ENDPOINTS: endpoints } : {}) },
    });
    const png = sharp({ create: { width: 256, height: 256, channels: 3, background: "grey" } }).png();
    const { body } = await spine.call("POST", "/api/uploads", {
      body: await png.toBuffer(),
      headers: { "content-type": "application/octet-stream" },
    });
    const models = modelsAt(api);
    expect(models.length).toBeGreaterThan(2);
    const jobs = await Promise.all(
      models.flatMap((model) => wishes(model, api, body.id)).map((wish) => spine.submit({ ...wish })),
    );
    let bought = 0;
    for (const { id } of jobs) {
      const { status, failure, model, runs, resultUrls } = await spine.ended(id, 60_000);
      expect({ model, status, failure, files: resultUrls.length > 0 }).toEqual({
        model,
        status: "completed",
        failure: null,
        files: true,
      });
      bought += runs.length;
      expect([model, (runs[0]?.costUsd ?? 0) > 0]).toEqual([model, true]);
      expect(runs[0]?.provider).toMatch(`sandbox_${api}`);
    }
    expect(models.some((model) => own(model, api))).toBe(["runpod", "replicate"].includes(api));
    // Hugging Face's own ids are part of ours: so it is counted.
    expect(spine.sandbox.bill().lines).toHaveLength(bought);
    expect(await spine.audit()).toMatchObject({ drift: 0, unsettled: 0 });
  });
});
