import { demo } from "../../apps/demo.ts";
import { type App, type Plan, UNLIMITED } from "../../src/domain/app.ts";

/** An app of the tests with one plan, "default", whose fields may be given. Its prices are those of the demo. */
export function makeApp(over: Partial<App> & Pick<App, "id">, plan: Partial<Plan> = {}): App {
  return {
    ...demo,
    name: over.id,
    signupGrant: 0,
    plans: { default: { ...UNLIMITED, ...plan } },
    storagePrefix: `apps/${over.id}`,
    ...over,
  };
}
