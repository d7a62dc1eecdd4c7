import { isOwn } from "../domain/catalogue.ts";
import type { AdapterOptions } from "./adapter.ts";

/** Where runs of a model are bought. */
export interface Place {
  readonly door: "models" | "deployments";
  /** owner/name. */
  readonly path: string;
  /** The version that the name itself asks for; a deployment has its own, and takes none. */
  readonly pin: string | null;
}

/** What our deployments are called is the account's own. Null: no name, or a deployment that this account does not have. */
export function placeOf(model: string, endpoints: NonNullable<AdapterOptions["endpoints"]>): Place | null {
  if (!isOwn(model)) return splitName(model);
  const own = Object.hasOwn(endpoints, model) ? splitName(endpoints[model] ?? "") : null;
  return own && { door: "deployments", path: own.path, pin: null };
}

/** What to do about a model without a place. */
export function noPlace(model: string, account: string): string {
  if (!isOwn(model)) return `"${model}" is not owner/name or owner/name:version`;
  return `no deployment is configured for "${model}" in the account "${account}": name yours in REPLICATE_DEPLOYMENTS, as ${model}=<owner>/<name>:<dollars a second>`;
}

/** Whether a run's `deployment` is this one. Nobody says whether it comes with its owner, so both are taken. */
export function isCalled(deployment: string | null, { door, path }: Place): boolean {
  const name = deployment?.toLowerCase();
  const whole = path.toLowerCase();
  return door === "deployments" && (name === whole || name === whole.split("/")[1]);
}

/** "owner/name" or "owner/name:version"; null for anything else. */
function splitName(name: string): Place | null {
  const match = /^(\w[\w.-]*)\/(\w[\w.-]*)(?::([\w.-]+))?$/.exec(name);
  return match ? { door: "models", path: `${match[1]}/${match[2]}`, pin: match[3] ?? null } : null;
}
