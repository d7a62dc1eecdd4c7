import { CATALOGUE, type CatalogueEntry, type Program, TRAINED } from "./catalogue.ts";
import { type Clock, timestamp } from "./clock.ts";
import type { Faults, Target } from "./faults.ts";
import { schemaOf } from "./field.ts";
import { sha256 } from "./id.ts";
import { invalidVersion, notFound, Problem } from "./problem.ts";

export interface Version {
  readonly id: string;
  readonly createdAt: number;
  readonly program: Program;
}

export interface Model {
  readonly owner: string;
  readonly name: string;
  readonly description: string;
  readonly visibility: "public" | "private";
  readonly hardware: string;
  readonly official: boolean;
  readonly createdAt: number;
  /** Newest first. */
  readonly versions: Version[];
  runCount: number;
}

/** What a run is made of. */
export interface Chosen {
  readonly model: Model;
  /** As shown on the run: 64 hex digits or "hidden". */
  readonly version: string;
  readonly program: Program;
}

const MAX_OWN_MODELS = 1_000; // models an account
const MAX_VERSIONS = 1_000; // versions a model

export type Models = ReturnType<typeof makeModels>;

/** The models that can be run: those of the catalogue, and what the account made. */
export function makeModels(clock: Clock, account: string, faults: Faults) {
  const models = new Map<string, Model>(
    CATALOGUE.map((entry) => [`${entry.owner}/${entry.name}`, published(entry, clock)]),
  );
  const byVersion = new Map<string, { model: Model; version: Version }>();
  for (const model of models.values()) {
    for (const version of model.versions) byVersion.set(version.id, { model, version });
  }

  function get(owner: string, name: string): Model {
    const model = models.get(`${owner}/${name}`);
    if (!model || faults.strike("vanished", asTarget(model))) throw notFound();
    return model;
  }

  /** Not counted as a strike: nobody asked for this model by name. */
  const isHere = (model: Model) => !faults.stands("vanished", asTarget(model));

  return {
    get,

    list(): Model[] {
      return [...models.values()].filter(isHere).sort((a, b) => b.createdAt - a.createdAt);
    },

    /** By the door of official models: what is not one of them is not there. */
    official(owner: string, name: string): Chosen {
      const model = get(owner, name);
      const version = model.versions[0];
      if (!model.official || !version) throw notFound();
      return { model, version: "hidden", program: version.program };
    },

    /** By "owner/name" for official models, by "owner/name:version" or the version alone for all. */
    choose(reference: string): Chosen {
      const [path = "", hash] = reference.includes("/") ? reference.split(":", 2) : ["", reference];
      if (hash === undefined) {
        const model = models.get(path);
        const version = model?.versions[0];
        if (!model?.official || !version || faults.strike("vanished", asTarget(model))) throw invalidVersion();
        return { model, version: "hidden", program: version.program };
      }
      const found = byVersion.get(hash);
      if (!found || (path !== "" && path !== `${found.model.owner}/${found.model.name}`)) throw invalidVersion();
      const { model, version } = found;
      if (faults.strike("vanished", asTarget(model))) throw invalidVersion();
      return { model, version: model.official ? "hidden" : version.id, program: version.program };
    },

    create(wanted: {
      owner: string;
      name: string;
      visibility: "public" | "private";
      hardware: string;
      description: string;
    }): Model {
      if (wanted.owner !== account) {
        const detail = `You do not have permission to create a model for "${wanted.owner}": this token belongs to "${account}".`;
        throw new Problem(403, { title: "Permission denied", detail, status: 403 });
      }
      const key = `${wanted.owner}/${wanted.name}`;
      if (models.has(key)) {
        const detail = "A model with that name and owner already exists.";
        throw new Problem(409, { title: "Conflict", detail, status: 409 });
      }
      if (models.size >= MAX_OWN_MODELS + CATALOGUE.length) {
        const detail = `You have reached the limit of ${MAX_OWN_MODELS} models.`;
        throw new Problem(422, { title: "Limit reached", detail, status: 422 });
      }
      const model: Model = { ...wanted, official: false, createdAt: clock.now(), versions: [], runCount: 0 };
      models.set(key, model);
      return model;
    },

    remove(owner: string, name: string): void {
      const model = get(owner, name);
      if (model.owner !== account || model.visibility !== "private" || model.versions.length > 0) {
        const detail = "Only private models of your own that have no versions can be deleted.";
        throw new Problem(403, { detail, status: 403 });
      }
      models.delete(`${owner}/${name}`);
    },

    removeVersion(owner: string, name: string, id: string): void {
      const model = get(owner, name);
      const index = model.versions.findIndex((version) => version.id === id);
      if (index < 0) throw notFound();
      if (model.owner !== account) throw new Problem(403, { detail: "You do not own this model.", status: 403 });
      model.versions.splice(index, 1);
      byVersion.delete(id);
    },

    /** The model that a training is to write to; it must exist and belong to the account. */
    destination(reference: string): Model {
      const model = models.get(reference);
      if (model?.owner !== account || !isHere(model))
        throw notFound("The specified training destination does not exist");
      return model;
    },

    /** The newest version of "owner/name", or the one of this id. */
    version(path: string, id?: string): Version | undefined {
      const model = models.get(path);
      if (!model || !isHere(model)) return undefined;
      return id === undefined ? model.versions[0] : model.versions.find((version) => version.id === id);
    },

    /** Adds what a training made. The same training always makes the same version. Null when the model is gone. */
    addTrained(destination: string, trainingId: string): string | null {
      const model = models.get(destination);
      if (!model || model.versions.length >= MAX_VERSIONS) return null;
      const version: Version = { id: sha256(`version of ${trainingId}`), createdAt: clock.now(), program: TRAINED };
      model.versions.unshift(version);
      byVersion.set(version.id, { model, version });
      return version.id;
    },
  };
}

function asTarget({ owner, name }: Model): Target {
  return { face: "replicate", model: `${owner}/${name}`, text: "", own: [] };
}

function published(entry: CatalogueEntry, clock: Clock): Model {
  const createdAt = clock.now();
  const { owner, name, description, official, versions } = entry;
  return {
    owner,
    name,
    description,
    official,
    visibility: "public",
    hardware: "gpu-h100",
    createdAt,
    versions: versions.map((id) => ({ id, createdAt, program: entry })),
    runCount: 0,
  };
}

export function modelPortrait(model: Model, origin: string) {
  const latest = model.versions[0];
  return {
    url: `${origin}/${model.owner}/${model.name}`,
    owner: model.owner,
    name: model.name,
    description: model.description,
    visibility: model.visibility,
    github_url: null,
    paper_url: null,
    license_url: null,
    run_count: model.runCount,
    cover_image_url: null,
    default_example: null,
    latest_version: latest ? versionPortrait(latest) : null,
    is_official: model.official,
  };
}

export function versionPortrait({ id, createdAt, program }: Version) {
  const uri = { type: "string", format: "uri" };
  const output =
    program.output === "array" ? { type: "array", items: uri, title: "Output" } : { ...uri, title: "Output" };
  const trainingOutput = {
    type: "object",
    title: "TrainingOutput",
    properties: { version: { type: "string" }, weights: uri },
    required: ["version"],
  };
  return {
    id,
    created_at: timestamp(createdAt),
    cog_version: "0.16.9",
    openapi_schema: {
      openapi: "3.0.2",
      info: { title: "Cog", version: "0.1.0" },
      paths: {},
      components: {
        schemas: {
          ...schemaOf("Input", program.input),
          Output: output,
          ...(program.training
            ? { ...schemaOf("TrainingInput", program.training.input), TrainingOutput: trainingOutput }
            : {}),
        },
      },
    },
  };
}
