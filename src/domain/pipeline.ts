import type { JobStatus } from "./job.ts";
import type { FieldProblem, KindName } from "./kinds/kind.ts";

/** Steps that follow each other, as data; what is to be done next is decided here, and nothing is done. */

export const STEP_STATUSES = ["waiting", "running", "completed", "failed", "canceled"] as const;
export type StepStatus = (typeof STEP_STATUSES)[number];
export const PIPELINE_STATUSES = ["running", "completed", "failed", "canceled"] as const;
export type PipelineStatus = (typeof PIPELINE_STATUSES)[number];

/** A step as somebody asks for it. */
export interface StepPlan {
  readonly name: string;
  readonly kind: KindName;
  /** Absent: the steps that it names by reference. */
  readonly after?: readonly string[] | undefined;
  /** The step whose trained model it uses; null: none, or a model that exists already. */
  readonly uses: string | null;
}

export type Arrangement =
  | {
      readonly ok: true;
      /** For each step, in their order, what has to have completed before it begins. */
      readonly after: readonly (readonly string[])[];
    }
  | { readonly ok: false; readonly problems: readonly FieldProblem[] };

/** Whether the steps can be done at all: every name is known and unique, and none waits for itself. */
export function arrange(steps: readonly StepPlan[]): Arrangement {
  const problems: FieldProblem[] = [];
  const byName = new Map<string, StepPlan>();
  for (const [index, step] of steps.entries()) {
    if (byName.has(step.name))
      problems.push({ pointer: `/steps/${index}/name`, detail: `"${step.name}" is the name of an earlier step, too` });
    else byName.set(step.name, step);
  }
  const names = [...byName.keys()].join(", ");
  for (const [index, { uses, after = [] }] of steps.entries()) {
    const used = uses === null ? null : byName.get(uses);
    if (used === undefined)
      problems.push({ pointer: modelPointer(index), detail: `names the step "${uses}", but there are only: ${names}` });
    else if (used && used.kind !== "training")
      problems.push({
        pointer: modelPointer(index),
        detail: `names the step "${uses}", which is of kind ${used.kind}: only a training makes a model`,
      });
    for (const [at, name] of after.entries())
      if (!byName.has(name))
        problems.push({
          pointer: `/steps/${index}/after/${at}`,
          detail: `names the step "${name}", but there are only: ${names}`,
        });
  }
  if (problems.length > 0) return { ok: false, problems };

  const after = steps.map(({ uses, after: given = [] }) => [...new Set([...given, ...(uses === null ? [] : [uses])])]);
  const stuck = knotted(steps.map(({ name }, index) => ({ name, after: after[index] ?? [] })));
  if (stuck.length === 0) return { ok: true, after };
  return {
    ok: false,
    problems: stuck.map((name) => {
      const index = steps.findIndex((step) => step.name === name);
      const pointer = steps[index]?.after ? `/steps/${index}/after` : modelPointer(index);
      return { pointer, detail: `waits for itself, by way of: ${stuck.join(", ")}. Leave one of them out` };
    }),
  };
}

export const modelPointer = (index: number) => `/steps/${index}/input/trainedModel`;

/** Those that wait for each other in a circle, without those that only wait for them. */
function knotted(steps: readonly { readonly name: string; readonly after: readonly string[] }[]): string[] {
  let left = [...steps];
  for (let before = -1; before !== left.length; ) {
    before = left.length;
    const names = new Set(left.map(({ name }) => name));
    const wanted = new Set(left.flatMap(({ after }) => after));
    left = left.filter(({ name, after }) => wanted.has(name) && after.some((each) => names.has(each)));
  }
  return left.map(({ name }) => name);
}

/** A step as it stands. */
export interface StepState {
  readonly name: string;
  readonly after: readonly string[];
  readonly status: StepStatus;
  /** Of this attempt's job; null: there is none yet. */
  readonly job: JobStatus | null;
}

/** What is to be done now. */
export interface Turn {
  /** Of every step, in their order. */
  readonly statuses: readonly StepStatus[];
  /** Names of the steps whose jobs are to be accepted. */
  readonly start: readonly string[];
  /** Names of the steps whose jobs are to be asked to stop. */
  readonly stop: readonly string[];
  /** Null: it goes on. */
  readonly end: Exclude<PipelineStatus, "running"> | null;
}

/**
 * What a pipeline has come to. What does not wait for a failed step goes on; when nothing more can be done, it has
 * failed if any step has. Pure: asked twice, it says the same.
 */
export function takeTurn(steps: readonly StepState[], isCanceled: boolean): Turn {
  const known = steps.map(({ status, job }) => (job === null ? status : fromJob(job)));
  const completed = new Set(steps.filter((_, index) => known[index] === "completed").map(({ name }) => name));
  const statuses = known.map((status) => (isCanceled && status === "waiting" ? "canceled" : status));
  const namesOf = (wanted: (status: StepStatus, step: StepState) => boolean) =>
    steps.filter((step, index) => wanted(statuses[index] ?? "waiting", step)).map(({ name }) => name);
  const start = namesOf((status, { after }) => status === "waiting" && after.every((name) => completed.has(name)));
  const running = namesOf((status) => status === "running");
  const isOver = start.length === 0 && running.length === 0;
  const isWhole = completed.size === steps.length;
  return {
    statuses,
    start,
    stop: isCanceled ? running : [],
    end: isOver ? (isWhole ? "completed" : isCanceled ? "canceled" : "failed") : null,
  };
}

function fromJob(status: JobStatus): StepStatus {
  return status === "pending" || status === "processing" ? "running" : status;
}

/** The key of a step's job: the same step is bought once an attempt. */
export function stepKey(pipelineId: string, step: string, attempt: number): string {
  return `pipeline/${pipelineId}/${step}/${attempt}`;
}
