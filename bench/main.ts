import { writeFile } from "node:fs/promises";
import { Command, InvalidArgumentError } from "commander";
import { type AcceptOptions, benchAccept } from "./accept.ts";
import { type ArchiveOptions, benchArchive } from "./archive.ts";
import { render } from "./report.ts";
import { ROWS, type RowId } from "./rows.ts";
import { type Serving, serve } from "./serve.ts";

const print = (text: string) => void process.stdout.write(`${text}\n`);

const whole = (least: number) => (text: string) => {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least) throw new InvalidArgumentError(`a whole number from ${least} on`);
  return value;
};
const rowIds = (text: string) =>
  text.split(",").map((id) => {
    const row = ROWS.find((each) => each.id === id.trim());
    if (!row) throw new InvalidArgumentError(`rows are ${ROWS.map((each) => each.id).join(", ")}`);
    return row.id;
  });

const program = new Command("bench").description("Measures Darkroom on this machine, on a Postgres of its own.");

program
  .command("accept")
  .description("accepted jobs per second and per core-second, against two baselines; exits 1 if one job is miscounted")
  .option("--seconds <n>", "length of one measurement", whole(1), 4)
  .option("--rounds <n>", "measurements of each row, taken in turns", whole(1), 3)
  .option("--clients <n>", "HTTP connections, each with one request under way", whole(1), 64)
  .option("--users <n>", "users of the first table; the second has one", whole(1), 10_000)
  .option("--only <ids>", `rows to measure, separated by commas: ${ROWS.map((row) => row.id).join(", ")}`, rowIds)
  .option("--no-analyze", "leave the planner the statistics of an empty database: the first minute of a new deployment")
  .option("--json <file>", "also write every single measurement to this file")
  .action(async ({ json, ...options }: AcceptOptions & { only?: RowId[]; json?: string }) => {
    const report = await benchAccept(options, (line) => void process.stderr.write(`${line}\n`));
    print(render(report));
    if (json) await writeFile(json, `${JSON.stringify(report, null, 2)}\n`);
    process.exitCode = report.problems.length > 0 ? 1 : 0;
  });

program
  .command("archive")
  .description("memory and time for the ZIP of a training's photos, against reading them all first")
  .option("--photos <n>", "photos of about 10 MB each", whole(1), 40)
  .option("--rounds <n>", "archives made in each way, taken in turns", whole(1), 3)
  .action(async (options: ArchiveOptions) => {
    print(await benchArchive(options, (line) => void process.stderr.write(`${line}\n`)));
  });

program
  .command("serve <what>", { hidden: true })
  .description("one of the servers that the bench compares with, as a process of its own")
  .action((what: string) => serve(what as Serving));

await program.parseAsync();
