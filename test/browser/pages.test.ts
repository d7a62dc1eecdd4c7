import { type Browser, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { findChromium } from "../rig/programs.ts";
import { type Spine, startSpine } from "../rig/spine.ts";

let spine: Spine;
let browser: Browser;
let page: Page;
/** What a person would find in the console: errors, and what the page's policy blocked. */
let complaints: string[];

beforeAll(async () => {
  spine = await startSpine();
  browser = await chromium.launch({
    executablePath: findChromium() ?? "",
    args: [
      "--no-sandbox",
      "--disable-dev-shm-usage",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-component-update",
    ],
  });
});
afterAll(async () => {
  await browser?.close();
  await spine?.stop();
});
beforeEach(async () => {
  complaints = [];
  const context = await browser.newContext({
    httpCredentials: { username: "admin", password: "admin of the tests" },
    viewport: { width: 1280, height: 900 },
  });
  page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
});
afterEach(async () => {
  await page.context().close();
  expect(complaints).toEqual([]);
});

const look = async (name: string) => {
  const folder = process.env["SCREENSHOTS"];
  if (folder) await page.screenshot({ path: `${folder}/${name}.png` });
};

describe("in a browser", () => {
  test("the documentation lists the routes and lets one be read", async () => {
    await page.goto(`${spine.api.url}/docs`);
    await page.getByText("Submit a job", { exact: true }).click();
    await page.getByText("Charges the user's credits and accepts the job in one commit").waitFor();
    await look("docs");
  });

  test("the board shows a queue for each kind, and offers no button that changes one", async () => {
    const { id } = await spine.submit({ kind: "generation", user: "ann", input: { prompt: "seen on the board" } });
    await spine.ended(id);
    await page.goto(`${spine.api.url}/queues`);
    await page
      .getByRole("link", { name: /generation/ })
      .first()
      .waitFor();
    await page
      .getByRole("link", { name: /staging/ })
      .first()
      .waitFor();
    await page.waitForLoadState("networkidle");
    await look("queues");
    await page
      .getByRole("link", { name: /generation/ })
      .first()
      .click();
    await page.waitForLoadState("networkidle");
    await look("queue");
    expect(await page.getByRole("button", { name: /pause|retry|clean|promote|empty|obliterate/i }).count()).toBe(0);
  });

  test("a result's address shows the picture on any product's page", async () => {
    const { id } = await spine.submit({ kind: "generation", user: "ann", input: { prompt: "a mountain lake" } });
    const [url] = (await spine.ended(id)).resultUrls;
    await page.setContent(`<img src="${url}">`);
    await page.waitForLoadState("networkidle");
    const width = await page.evaluate(
      () =>
        (globalThis as unknown as { document: { images: { naturalWidth: number }[] } }).document.images[0]
          ?.naturalWidth,
    );
    expect(width).toBe(1024);
  });
});
