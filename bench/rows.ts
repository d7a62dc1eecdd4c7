/** What is measured. Every row accepts the same jobs into the same tables. */
export const ROWS = [
  { id: "1", name: "HTTP, the API as it is (queue in Postgres)" },
  { id: "1r", name: "HTTP, the API as it is (queue in Redis)" },
  { id: "1q", name: "HTTP, the API without wakes" },
  { id: "1s", name: "HTTP, the API without wakes and groups" },
  { id: "2", name: "no HTTP, accept_jobs of 64, 2 at a time" },
  { id: "3", name: "no HTTP, a transaction per job, 8 connections" },
  { id: "4", name: "HTTP, bare Fastify, a transaction per job" },
] as const;

export type RowId = (typeof ROWS)[number]["id"];

/** One measurement of one row. CPU is in seconds; null where the operating system does not tell. */
export interface Measurement {
  readonly accepted: number;
  readonly seconds: number;
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  /** Of the API, or of the code that stands for it. */
  readonly apiCpu: number | null;
  readonly postgresCpu: number | null;
  readonly redisCpu: number | null;
  /** Of the load generator; not part of the price of a job. */
  readonly loadCpu: number | null;
  /** Mean number of requests that one statement accepted. */
  readonly groupSize: number | null;
}

export type PhaseName = "many users" | "one hot user";

export interface Report {
  readonly options: Readonly<Record<string, unknown>>;
  readonly machine: Readonly<Record<string, string>>;
  readonly phases: readonly {
    readonly name: PhaseName;
    readonly rows: readonly { readonly id: RowId; readonly measurements: readonly Measurement[] }[];
  }[];
  /** What was counted afterwards, over all measurements and the warm-up. */
  readonly counted: {
    readonly answered202: number;
    readonly jobs: number;
    readonly charges: number;
    readonly drift: number;
    readonly unwoken: number;
  };
  /** Why the numbers must not be believed; empty when every job was accepted once and charged once. */
  readonly problems: readonly string[];
}
