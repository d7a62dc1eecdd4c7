import type { App } from "../src/domain/app.ts";

/** The app that `npm run dev` and `npm run demo` use. Copy this file to add your own. */
export const demo: App = {
  id: "demo",
  name: "Darkroom demo",
  signupGrant: 200,
  dailyAllowance: 0,
  kinds: ["generation", "staging"],
  prices: { generation: { perMegapixel: 1 }, staging: { perVariant: 20 } },
};
