import { createReadStream } from "node:fs";
import { parse } from "csv-parse";
import { z } from "zod";
import { type InvoiceLine, type ReconcileOptions, type Reconciliation, reconcileInvoice } from "./db/reconcile.ts";

/** A provider's invoice against what we wrote down: what differs is money that one of the two does not know of. */

/** Names of columns, in lower case and with `_` for spaces; of each list the first that a file has counts. */
interface Columns {
  /** The provider's id of the run. */
  readonly id: readonly string[];
  /** Name → what 1 there is in millionths of a dollar. */
  readonly cost: Readonly<Record<string, number>>;
}

const USD = 1_000_000;
const CENT = 10_000;

/** Works for everybody: rename two columns, or write them. */
const GENERIC: Columns = { id: ["id"], cost: { cost_usd: USD } };

/**
 * By the provider's own words, as its API names runs. None of them documents its export; whatever a file calls its two
 * columns can be added here.
 */
const COLUMNS: Readonly<Record<string, Columns>> = {
  replicate: { id: ["prediction_id", "training_id"], cost: { cost: USD, amount: USD } },
  runpod: { id: ["job_id", "request_id"], cost: { cost: USD, amount: USD } },
  fal: { id: ["request_id"], cost: { cost: USD, amount: USD } },
  wavespeed: { id: ["prediction_id", "task_id"], cost: { cost: USD, price: USD, amount: USD } },
  huggingface: { id: ["request_id"], cost: { cost: USD, cost_cents: CENT } },
  poe: { id: ["query_id", "request_id"], cost: { cost: USD } },
};

/** What is wrong with the file or the options; the message says what to do. */
export class InvoiceProblem extends Error {
  override readonly name = "InvoiceProblem";
}

/** "0.0025", "$0.0025", "-1.2e-3". */
const Amount = z.string().regex(/^(-?\$?|\$-)\d*\.?\d+(e-?\d+)?$/i);
const Row = z.object({ id: z.string().min(1).max(200), cost: Amount });

/** A record that is longer is none of an invoice. */
const MOST_RECORD_BYTES = 100_000;

/** The lines of an invoice as they are read, one at a time. Throws InvoiceProblem. */
export async function* readInvoice(path: string, provider: string): AsyncGenerator<InvoiceLine> {
  let microUsd = USD;
  const parser = parse({
    bom: true,
    trim: true,
    skip_empty_lines: true,
    max_record_size: MOST_RECORD_BYTES,
    columns: (header: string[]) => {
      const found = findColumns(header, columnsOf(provider));
      microUsd = found.microUsd;
      return header.map((_, index) => (index === found.id ? "id" : index === found.cost ? "cost" : false));
    },
  });
  const file = createReadStream(path);
  file.on("error", (error) => parser.destroy(error));
  try {
    for await (const record of file.pipe(parser)) {
      const row = Row.safeParse(record);
      if (!row.success) {
        const { path: place, message } = row.error.issues[0] ?? { path: [], message: "" };
        throw new InvoiceProblem(`line ${parser.info.lines} of ${path}: ${place.join(".")} ${message}`);
      }
      yield { id: row.data.id, microUsd: Math.round(Number(row.data.cost.replace("$", "")) * microUsd) };
    }
  } catch (error) {
    throw error instanceof InvoiceProblem ? error : new InvoiceProblem(`${path} cannot be read: ${wordsOf(error)}`);
  } finally {
    file.destroy();
    parser.destroy();
  }
}

const wordsOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** The columns that an account's file may have: accounts of one provider are told apart by a number, replicate_2. */
function columnsOf(provider: string): Columns {
  const own = COLUMNS[provider.replace(/_\d+$/, "")];
  return { id: [...GENERIC.id, ...(own?.id ?? [])], cost: { ...GENERIC.cost, ...own?.cost } };
}

function findColumns(header: readonly string[], columns: Columns): { id: number; cost: number; microUsd: number } {
  const names = header.map((name) => name.trim().toLowerCase().replaceAll(/\s+/g, "_"));
  const at = (wanted: readonly string[]) => names.indexOf(wanted.find((name) => names.includes(name)) ?? "\u0000");
  const [id, cost] = [at(columns.id), at(Object.keys(columns.cost))];
  const lacks = [
    ...(id < 0 ? [`the run's id (one of ${columns.id.join(", ")})`] : []),
    ...(cost < 0 ? [`what it cost (one of ${Object.keys(columns.cost).join(", ")})`] : []),
  ];
  if (lacks.length > 0)
    throw new InvoiceProblem(
      `no column for ${lacks.join(" and ")}; the file has ${names.join(", ")}. Rename its columns to id and cost_usd.`,
    );
  return { id, cost, microUsd: columns.cost[names[cost] ?? ""] ?? USD };
}

export interface ReconcileCommand {
  readonly provider: string;
  readonly csv: string;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  readonly tolerance?: string | undefined;
}

const DEFAULT_TOLERANCE = 0.01;

/** As the command line says it. Throws InvoiceProblem. */
export async function reconcile(databaseUrl: string, command: ReconcileCommand): Promise<Reconciliation> {
  const { provider, csv } = command;
  const options: ReconcileOptions = {
    provider,
    from: toTime("from", command.from),
    to: toTime("to", command.to),
    tolerance: toShare(command.tolerance),
  };
  if (options.from && options.to && options.from >= options.to)
    throw new InvoiceProblem("--from is to lie before --to");
  return reconcileInvoice(databaseUrl, readInvoice(csv, provider), options);
}

function toTime(name: string, text: string | undefined): Date | null {
  if (text === undefined) return null;
  const given = z.union([z.iso.date(), z.iso.datetime({ offset: true })]).safeParse(text);
  if (!given.success) throw new InvoiceProblem(`--${name} is a day or a time, such as 2026-11-01, not ${text}`);
  return new Date(given.data);
}

function toShare(text: string | undefined): number {
  if (text === undefined) return DEFAULT_TOLERANCE;
  const percent = Number(text);
  if (text.trim() === "" || !(percent >= 0 && percent <= 100))
    throw new InvoiceProblem(`--tolerance is a percentage from 0 to 100, not ${text}`);
  return percent / 100;
}

export function hasDifferences({ unknown, missing, differing }: Reconciliation): boolean {
  return unknown.count + missing.count + differing.count > 0;
}

/** Of each difference; the rest is counted, and in --json. */
const SHOWN = 20;
const usd = (microUsd: number | null) => (microUsd === null ? "unknown" : `$${(microUsd / USD).toFixed(6)}`);

/** For a person, one difference a line. */
export function reconcileReport(found: Reconciliation): string {
  const { provider, from, to, invoice, known, unknown, missing, differing, open } = found;
  const part = <T>(
    what: string,
    { count, microUsd, sample }: { count: number; microUsd: number; sample: readonly T[] },
    line: (each: T) => string,
  ) => [
    `${count === 0 ? "✔" : "✖"} ${what}: ${count}${count === 0 ? "" : `, ${usd(microUsd)}`}`,
    ...sample.slice(0, SHOWN).map((each) => `    ${line(each)}`),
    ...(count > SHOWN ? [`    … and ${count - SHOWN} more`] : []),
  ];
  return [
    `${provider}: the invoice names ${invoice.ids} runs for ${usd(invoice.microUsd)}; ${known.runs} of them are ours, for ${usd(known.microUsd)}`,
    `compared with what we sent ${from && to ? `from ${from} to ${to}` : "at any time: the invoice names no run of ours"}`,
    ...part("on the invoice, and no run of ours", unknown, ({ id, microUsd }) => `${id} ${usd(microUsd)}`),
    ...part(
      "runs of ours that cost something, and are not on the invoice",
      missing,
      ({ id, runId, jobId, microUsd }) => `${id} ${usd(microUsd)} (run ${runId} of job ${jobId})`,
    ),
    ...part(
      "another amount",
      differing,
      ({ id, runId, jobId, ours, theirs }) =>
        `${id} ours ${usd(ours)}, theirs ${usd(theirs)} (run ${runId} of job ${jobId})`,
    ),
    ...(open > 0 ? [`${open} of the invoice's runs have not ended here: compare again when they have`] : []),
  ].join("\n");
}
