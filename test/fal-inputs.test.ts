import { afterAll, beforeAll, expect, test } from "vitest";
import { type Sandbox, startSandbox } from "../sandbox/sandbox.ts";
import type { Ask } from "../src/domain/ask.ts";
import {
  flux,
  fluxFill,
  fluxFromImage,
  fluxLora,
  fluxLoraFromImage,
  kontext,
  seedance,
  wan,
  wanTurbo,
} from "../src/domain/fal-inputs.ts";
import { fal } from "../src/providers/fal.ts";

const IMAGE = "https://bucket.example.test/room.jpg";
const MASK = "https://bucket.example.test/mask.png";
const paint: Ask = {
  seed: 7,
  safety: true,
  prompt: "a chair",
  width: 832,
  height: 1_216,
  steps: 4,
  guidance: 0,
  format: "webp",
  quality: 80,
  goFast: true,
};
const change: Ask = { seed: 7, safety: false, prompt: "furnish", image: IMAGE, mask: MASK, format: "jpg" };
const film: Ask = { seed: 7, safety: true, prompt: "waves", seconds: 7, aspectRatio: "9:16" };
const lora = { weights: "https://bucket.example.test/l.safetensors", scale: 0.8 };

let sandbox: Sandbox;
beforeAll(async () => {
  sandbox = await startSandbox({ speed: 20 });
});
afterAll(() => sandbox.close());

test.each<[string, Readonly<Record<string, unknown>>]>([
  ["fal-ai/flux/schnell", flux(paint)],
  ["fal-ai/flux/dev", flux({ ...paint, steps: 28, guidance: 3.5, format: "png", goFast: false })],
  ["fal-ai/flux/dev/image-to-image", fluxFromImage({ ...paint, image: IMAGE })],
  ["fal-ai/flux-lora", fluxLora({ ...paint, lora })],
  ["fal-ai/flux-lora", fluxLora(paint)],
  ["fal-ai/flux-lora/image-to-image", fluxLoraFromImage({ ...paint, lora, image: IMAGE })],
  ["fal-ai/flux-pro/kontext", kontext(change)],
  ["fal-ai/flux-pro/v1/fill", fluxFill(change)],
  ["fal-ai/bytedance/seedance/v1/lite/text-to-video", seedance(film)],
  ["fal-ai/bytedance/seedance/v1/lite/image-to-video", seedance({ ...film, image: IMAGE })],
  ["fal-ai/wan-i2v", wan({ ...film, image: IMAGE })],
  ["fal-ai/wan/v2.2-a14b/image-to-video/turbo", wanTurbo({ ...film, image: IMAGE })],
])("%s takes %j as it is, and it survives the wire", async (model, input) => {
  expect(JSON.parse(JSON.stringify(input))).toEqual(input);
  const provider = fal.make({ name: "fal", token: "sandbox-key", baseUrl: `${sandbox.url}/fal` });
  const order = { model, input, runId: "r", version: null, destination: null, webhookUrl: null };
  const sendBefore = new Date(Date.now() + 5_000);
  expect(await provider.submit({ ...order, sendBefore, cancelAfterSeconds: 60 })).toMatchObject({
    outcome: "submitted",
  });
});

test("a picture is made in the size that was asked for, of which fal knows every one", () => {
  expect(flux(paint)).toEqual({
    prompt: "a chair",
    num_images: 1,
    num_inference_steps: 4,
    guidance_scale: 1,
    output_format: "png",
    acceleration: "regular",
    enable_safety_checker: true,
    seed: 7,
    image_size: { width: 832, height: 1_216 },
  });
  expect(flux({ seed: 1, safety: false, prompt: "a" })).toEqual({
    prompt: "a",
    num_images: 1,
    enable_safety_checker: false,
    seed: 1,
    image_size: { width: 1_024, height: 1_024 },
  });
});

test("a trained model is named by the address of its weights", () => {
  expect(fluxLora({ ...paint, lora })["loras"]).toEqual([{ path: lora.weights, scale: 0.8 }]);
  const changed = fluxLoraFromImage({ ...paint, lora, image: IMAGE });
  expect(changed).toMatchObject({ image_url: IMAGE, loras: [{ path: lora.weights }] });
  expect(changed["image_size"]).toBeUndefined();
});

test("a photo of the caller's is changed strictly, and a fill as the app wants", () => {
  expect(kontext(change)).toMatchObject({ image_url: IMAGE, safety_tolerance: "2", output_format: "jpeg" });
  expect(fluxFill(change)).toMatchObject({ image_url: IMAGE, mask_url: MASK, safety_tolerance: "6" });
  expect(fluxFill({ ...change, safety: true })).toMatchObject({ safety_tolerance: "2" });
});

test("a film's seconds are a text, and its shape is the picture's where there is one", () => {
  expect(seedance(film)).toMatchObject({ duration: "7", aspect_ratio: "9:16" });
  expect(seedance({ ...film, image: IMAGE })["aspect_ratio"]).toBeUndefined();
});

test.each([
  [5, 81, 16],
  [6, 97, 16],
  [7, 100, 14],
])("%i s of Wan are %i frames, %i a second: never shorter than what was asked for", (seconds, frames, rate) => {
  const input = wan({ ...film, seconds });
  expect(input).toMatchObject({ num_frames: frames, frames_per_second: rate });
  expect(frames / rate).toBeGreaterThanOrEqual(seconds);
});
