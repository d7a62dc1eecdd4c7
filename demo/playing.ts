import { access } from "node:fs/promises";
import { pathToFileURL } from "node:url";

/** Where Debian, Ubuntu, macOS and CHROMIUM_PATH have it. */
const PLACES = [
  process.env["CHROMIUM_PATH"],
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];
const PLAY_MS = 20_000;

/** The path of a Chromium on this machine; null when there is none. */
export async function findChromium(): Promise<string | null> {
  for (const place of PLACES) {
    const found =
      place &&
      (await access(place).then(
        () => place,
        () => null,
      ));
    if (found) return found;
  }
  return null;
}

/**
 * Plays each film in a real browser until a frame is on the screen. Returns what went wrong, by path; empty when all
 * play. Throws when the browser itself does not start.
 */
export async function playFilms(chromium: string, paths: readonly string[]): Promise<Map<string, string>> {
  const { chromium: launcher } = await import("playwright-core");
  const browser = await launcher.launch({ executablePath: chromium, args: ["--no-sandbox", "--disable-gpu"] });
  const troubles = new Map<string, string>();
  try {
    for (const path of paths) {
      // A page of the file itself: the browser shows a film as it would in a tab.
      const page = await browser.newPage();
      await page.goto(pathToFileURL(path).href);
      const seen = await page.evaluate(`(${PLAY})(${PLAY_MS})`).catch((error: Error) => error.message);
      if (seen !== "played") troubles.set(path, String(seen));
      await page.close();
    }
  } finally {
    await browser.close();
  }
  return troubles;
}

/** Runs in the page: "played", or what was seen instead. */
const PLAY = `async (limitMs) => {
  const film = document.querySelector("video");
  if (!film) return "the browser made no player of it";
  film.muted = true;
  await film.play();
  const until = Date.now() + limitMs;
  while (film.currentTime < 0.1) {
    if (film.error) return film.error.message;
    if (Date.now() > until) return "it did not move";
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const canvas = document.createElement("canvas");
  canvas.width = film.videoWidth;
  canvas.height = film.videoHeight;
  const paper = canvas.getContext("2d");
  paper.drawImage(film, 0, 0);
  return canvas.width > 0 && film.duration > 0 ? "played" : "there is no frame";
}`;
