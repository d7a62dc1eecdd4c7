import { type AccountPlan, variableOf } from "./accounts.ts";
import { type App, kindsOf } from "./domain/app.ts";
import { offeredOf } from "./domain/app-check.ts";
import type { Model } from "./domain/catalogue.ts";
import type { KindName } from "./domain/kinds/kind.ts";
import { isLetIn, isMeant, namesOf, type Routing, routesOn } from "./domain/routing.ts";

/** A routing of an app or of a plan that names an account which this deployment does not have. */
interface RoutingNote extends About {
  readonly app: string;
  readonly account: string;
  /** What is missing, and who serves it without. */
  readonly text: string;
}

/** A routing is of a kind, or of one model by its alias. */
interface About {
  readonly kind?: KindName;
  readonly model?: string;
}

interface RoutingNotes {
  /** For the log: others serve it. */
  readonly notes: readonly RoutingNote[];
  /** Nobody could serve it, each with its remedy; with one of them nothing may start. */
  readonly problems: readonly string[];
}

/** What the apps say of accounts, held against those that there are. A deployment of sandboxes need not have them. */
export function readRoutingNotes(apps: readonly App[], accounts: readonly AccountPlan[]): RoutingNotes {
  const notes: RoutingNote[] = [];
  const problems: string[] = [];
  if (accounts.every(({ baseUrl }) => baseUrl !== null)) return { notes, problems };
  for (const { app, place, about, routing, models } of apps.flatMap(placesOf)) {
    const names = namesOf(routing);
    const missing = names.filter((name) => !accounts.some((account) => isMeant(name, account)));
    const able = accounts.filter(
      (account) => isLetIn(account, routing) && models.some((model) => routesOn(account, model).length > 0),
    );
    if (able.length === 0 && routing.by !== "cost" && routing.others === false) {
      const variables = [...new Set(missing.map(variableOf))].join(" or ");
      problems.push(
        `app ${app}: ${place} lets only ${names.join(", ")} serve it, and none of them can here. ${variables === "" ? "Name" : `Set ${variables}, or name`} somebody else, or take \`others: false\` away.`,
      );
      continue;
    }
    const served = able.length > 0 ? `served by ${able.map(({ name }) => name).join(", ")}` : "nobody serves it";
    for (const account of missing)
      notes.push({
        app,
        ...about,
        account,
        text: `app ${app}: ${place} names ${account}, which is no account here (${variableOf(account)}): ${served}`,
      });
  }
  return { notes, problems };
}

interface Place {
  readonly app: string;
  readonly place: string;
  readonly about: About;
  readonly routing: Routing;
  /** What it decides about. */
  readonly models: readonly Model[];
}

function placesOf(app: App): Place[] {
  const offered = kindsOf(app).map((kind) => ({ kind, models: offeredOf(app, kind) }));
  const all = [...new Set(offered.flatMap(({ models }) => models))];
  const plans = Object.entries(app.plans).map(([name, plan]) => ({ before: `plan ${name}: `, ...plan }));
  return [{ before: "", ...app }, ...plans].flatMap(({ before, routing, modelRouting }) => [
    ...offered.flatMap(({ kind, models }): Place[] => {
      const own = routing?.[kind];
      return own ? [{ app: app.id, place: `${before}routing of ${kind}`, about: { kind }, routing: own, models }] : [];
    }),
    ...Object.entries(modelRouting ?? {}).map(([alias, own]) => ({
      app: app.id,
      place: `${before}modelRouting of ${alias}`,
      about: { model: alias },
      routing: own,
      models: all.filter((model) => model.alias === alias),
    })),
  ]);
}
