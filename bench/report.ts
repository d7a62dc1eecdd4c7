import { type Measurement, type PhaseName, type Report, ROWS, type RowId } from "./rows.ts";

/** Accepted jobs per core-second of API and Postgres (ops.md calls them floor and target). */
const GOAL = { floor: 5_000, target: 8_000 };

type Value = (measurement: Measurement) => number | null;

const rate: Value = (m) => m.accepted / m.seconds;
const cpuOfJobs: Value = (m) =>
  m.apiCpu === null || m.postgresCpu === null ? null : m.apiCpu + m.postgresCpu + (m.redisCpu ?? 0);
const perCoreSecond: Value = (m) => over(m.accepted, cpuOfJobs(m));
const cores =
  (part: "apiCpu" | "postgresCpu" | "redisCpu" | "loadCpu"): Value =>
  (m) =>
    over(m[part], m.seconds);
const microsOf =
  (part: "apiCpu" | "postgresCpu" | "redisCpu"): Value =>
  (m) =>
    over(m[part] === null ? null : m[part] * 1_000_000, m.accepted);

const COLUMNS: { head: string; of: Value; digits: number; range?: true }[] = [
  { head: "jobs/s", of: rate, digits: 0, range: true },
  { head: "p50 ms", of: (m) => m.p50Ms, digits: 1 },
  { head: "p99 ms", of: (m) => m.p99Ms, digits: 1 },
  { head: "jobs per core-s", of: perCoreSecond, digits: 0, range: true },
  { head: "µs API", of: microsOf("apiCpu"), digits: 0 },
  { head: "µs Postgres", of: microsOf("postgresCpu"), digits: 0 },
  { head: "µs Redis", of: microsOf("redisCpu"), digits: 0 },
  { head: "cores API", of: cores("apiCpu"), digits: 2 },
  { head: "cores Postgres", of: cores("postgresCpu"), digits: 2 },
  { head: "cores load", of: cores("loadCpu"), digits: 2 },
  { head: "group", of: (m) => m.groupSize, digits: 1 },
];

const RATIOS: [RowId, RowId][] = [
  ["1", "1q"],
  ["1", "1r"],
  ["1q", "1s"],
  ["1", "2"],
  ["1", "3"],
  ["1", "4"],
  ["1q", "4"],
];

/** Markdown, as it stands in README.md. */
export function render(report: Report): string {
  const { options, machine, phases, counted, problems } = report;
  const facts = Object.entries(machine).map(([name, value]) => `${name} ${value}`);
  return [
    `${facts.join(", ")}.`,
    `${options["rounds"]} rounds of ${options["seconds"]} s each, in turns, ${options["clients"]} connections. Medians, with least–most.`,
    ...phases.flatMap((phase) => [
      "",
      `### ${phase.name === "many users" ? `${options["users"]} users` : "One hot user"}`,
      "",
      table(["", ...COLUMNS.map((column) => column.head)], phase.rows.map(toCells)),
      "",
      table(["ratio", "jobs/s", "jobs per core-s"], ratiosOf(phase.rows)),
      "",
      verdict(phase.name, phase.rows),
    ]),
    "",
    `Counted afterwards: ${counted.answered202} answers of 202, ${counted.jobs} jobs, ${counted.charges} charges, ${counted.drift} accounts with drift, ${counted.unwoken} jobs left for the sweep to wake.`,
    problems.length > 0
      ? `NOT TO BE BELIEVED:\n${problems.map((each) => `- ${each}`).join("\n")}`
      : "Every job was accepted once and charged once.",
  ].join("\n");
}

type Rows = Report["phases"][number]["rows"];

function toCells({ id, measurements }: Rows[number]): string[] {
  const name = ROWS.find((row) => row.id === id)?.name ?? "";
  return [
    `${id} ${name}`,
    ...COLUMNS.map(({ of, digits, range }) => {
      const values = measurements.map(of).filter((value) => value !== null);
      if (values.length === 0) return "–";
      const text = format(median(values), digits);
      return range ? `${text} (${format(Math.min(...values), digits)}–${format(Math.max(...values), digits)})` : text;
    }),
  ];
}

/** Of the same round each, so that what else the machine did then cancels out. */
function ratiosOf(rows: Rows): string[][] {
  return RATIOS.flatMap(([above, below]) => {
    const [a, b] = [above, below].map((id) => rows.find((row) => row.id === id)?.measurements);
    if (!a || !b) return [];
    const ratio = (of: Value) => {
      const values = a.flatMap((each, round) => {
        const [x, y] = [of(each), b[round] ? of(b[round]) : null];
        return x === null || y === null ? [] : [x / y];
      });
      if (values.length === 0) return "–";
      return `${median(values).toFixed(2)} (${Math.min(...values).toFixed(2)}–${Math.max(...values).toFixed(2)})`;
    };
    return [[`${above} / ${below}`, ratio(rate), ratio(perCoreSecond)]];
  });
}

function verdict(phase: PhaseName, rows: Rows): string {
  return rows
    .filter((row) => row.id === "1" || row.id === "1r")
    .flatMap(({ id, measurements }) => {
      const values = measurements.map(perCoreSecond).filter((value) => value !== null);
      if (values.length === 0) return [];
      const found = median(values);
      const word =
        found >= GOAL.target ? "above the target" : found >= GOAL.floor ? "above the floor" : "BELOW the floor";
      return [
        `Row ${id}, ${phase}: ${format(found, 0)} accepted jobs per core-second, ${word} (floor ${format(GOAL.floor, 0)}, target ${format(GOAL.target, 0)}).`,
      ];
    })
    .join("\n");
}

function table(head: string[], rows: string[][]): string {
  const widths = head.map((cell, column) =>
    Math.max(3, ...[cell, ...rows.map((row) => row[column] ?? "")].map((text) => text.length)),
  );
  const line = (cells: string[]) =>
    `| ${cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join(" | ")} |`;
  const rule = `|${widths.map((width, column) => (column === 0 ? `${"-".repeat(width + 2)}` : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

function over(value: number | null, by: number | null): number | null {
  return value === null || by === null || by === 0 ? null : value / by;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = 0, high = 0] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]];
  return (low + high) / 2;
}

function format(value: number, digits: number): string {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}
