import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { posix } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import ts from "typescript";

/** A file of the project, and what it should not do. */
export interface Breach {
  readonly file: string;
  readonly line: number;
  readonly what: string;
}

const ADAPTERS = ["src/db/", "src/queue/", "src/providers/", "src/storage/"];
/** They put everything together; nobody knows them but they each other. */
const ROOTS = ["src/main.ts", "src/compose.ts", "src/dev.ts", "src/doctor.ts"];

/**
 * Who may know whom: a file of `of` may import its own folder and what begins with one of `knows`. The first line that
 * fits a file counts; files without one (tests, demos, benches) may import anything. `packages` bounds what comes from npm.
 */
const LAYERS: { of: string; knows: string[]; packages?: string[] }[] = [
  ...ROOTS.map((of) => ({ of, knows: ["src/", "apps/"] })),
  { of: "src/domain/", knows: [], packages: ["zod"] },
  ...ADAPTERS.map((of) => ({ of, knows: ["src/domain/"] })),
  { of: "src/api/", knows: ["src/domain/", "src/*.ts", ...ADAPTERS] },
  { of: "src/workers/", knows: ["src/domain/", "src/*.ts", ...ADAPTERS] },
  { of: "src/", knows: ["src/domain/", "src/*.ts", ...ADAPTERS] },
  { of: "apps/", knows: ["src/domain/"], packages: ["zod"] },
  { of: "sandbox/", knows: [] },
];

/** The one place that knows a package, so that changing it is a change there. */
const HOMES: { packages: RegExp; homes: string[] }[] = [
  { packages: /^(bullmq|ioredis)$/, homes: ["src/queue/"] },
  { packages: /^drizzle-orm$/, homes: ["src/db/"] },
  // BullMQ takes a pool of it too.
  { packages: /^pg$/, homes: ["src/db/", "src/queue/"] },
  // Only the tests use it: see src/db/client.ts.
  { packages: /^postgres$/, homes: ["test/"] },
  { packages: /^@aws-sdk\//, homes: ["src/storage/s3.ts"] },
  { packages: /^sharp$/, homes: ["src/storage/image.ts", "src/storage/photo.ts", "src/storage/upright.ts"] },
  { packages: /^file-type$/, homes: ["src/storage/image.ts"] },
  { packages: /^(yazl|yauzl)$/, homes: ["src/storage/archive.ts"] },
  { packages: /^mediabunny$/, homes: ["src/storage/video.ts"] },
  { packages: /^undici$/, homes: ["src/providers/", "src/storage/"] },
  { packages: /^replicate$/, homes: ["src/providers/replicate"] },
  { packages: /^@bull-board\//, homes: ["src/api/", "src/queue/board.ts"] },
  { packages: /^fastify$/, homes: ["src/api/", "src/queue/board.ts", "src/workers/health.ts"] },
  { packages: /^(@fastify\/.*|fastify-.*)$/, homes: ["src/api/"] },
  { packages: /^prom-client$/, homes: ["src/metrics.ts"] },
  { packages: /^commander$/, homes: ["src/main.ts"] },
  { packages: /^csv-parse$/, homes: ["src/reconcile.ts"] },
];

const MAX_LINES = 400;
/** Whole statements, not the words: "select" and "update" are English too. */
const SQL =
  /\b(select\s[^;]*?\sfrom\s+(?!(the|an?|this|that|its|your|our|it)\b)[a-z_"]|insert\s+into\s+\w|update\s+\w+\s+set\s+\w+\s*=|delete\s+from\s+\w|(create|alter|drop)\s+(table|index|function|schema)\s)/i;
/** Written so that this line does not break its own rule. */
const UNFINISHED = /\b(TO[D]O|FIX[M]E)\b/;
const MACHINE = /(?<![\w.])\/(work\/(main|shared|\.)|root\/|Users\/|home\/(?!node\b))/;
const REGISTRY = /\b(registry\.(npmjs|yarnpkg|npmmirror)\.|(artifactory|nexus|verdaccio)\.)/i;

/** Every breach of the rules of the house in the given files (path from the project's root → text). */
export function findBreaches(files: ReadonlyMap<string, string>): Breach[] {
  return [...files].flatMap(([file, text]) => [
    ...nameBreaches(file),
    ...textBreaches(file, text),
    ...(/\.[mc]?tsx?$/.test(file) ? [...importBreaches(file, text), ...codeBreaches(file, text)] : []),
  ]);
}

function nameBreaches(file: string): Breach[] {
  const word = /helper|util|manager/i.exec(posix.basename(file))?.[0];
  return word === undefined ? [] : [{ file, line: 1, what: `"${word}" says nothing: name the file by its noun` }];
}

function textBreaches(file: string, text: string): Breach[] {
  const found: Breach[] = [];
  const lines = text.split("\n");
  // An empty last line is only the end of the one before.
  const length = lines.at(-1) === "" ? lines.length - 1 : lines.length;
  if (/^(src|sandbox)\/.*\.ts$/.test(file) && length > MAX_LINES)
    found.push({ file, line: MAX_LINES + 1, what: `${length} lines, at most ${MAX_LINES}: look for the second noun` });
  lines.forEach((content, index) => {
    const line = index + 1;
    if (UNFINISHED.test(content)) found.push({ file, line, what: "unfinished work belongs in an issue" });
    if (MACHINE.test(content)) found.push({ file, line, what: "a path of one machine" });
    if (REGISTRY.test(content)) found.push({ file, line, what: "the host of a package registry" });
  });
  return found;
}

function importBreaches(file: string, text: string): Breach[] {
  const layer = LAYERS.find(({ of }) => file.startsWith(of));
  if (layer === undefined) return [];
  const found: Breach[] = [];
  for (const { fileName, pos } of ts.preProcessFile(text, true, true).importedFiles) {
    const line = text.slice(0, pos).split("\n").length;
    const what = fileName.startsWith(".")
      ? strangeFile(file, layer, posix.join(posix.dirname(file), fileName))
      : strangePackage(file, layer, fileName);
    if (what !== null) found.push({ file, line, what });
  }
  return found;
}

function strangeFile(file: string, layer: (typeof LAYERS)[number], target: string): string | null {
  if (target === "src/main.ts" || (ROOTS.includes(target) && !ROOTS.includes(file))) return `nobody imports ${target}`;
  const own = layer.of === "src/" ? [] : [layer.of];
  const known = [...own, ...layer.knows].some((place) =>
    place === "src/*.ts" ? /^src\/[^/]+\.ts$/.test(target) : target.startsWith(place),
  );
  return known ? null : `${file} does not know ${target}`;
}

function strangePackage(file: string, layer: (typeof LAYERS)[number], specifier: string): string | null {
  const name = /^(@[^/]+\/[^/]+|[^/]+)/.exec(specifier)?.[0] ?? specifier;
  if (layer.packages && !layer.packages.includes(name)) return `${layer.of} imports no ${specifier}: it is pure`;
  if (file.startsWith("sandbox/")) return null;
  const strange = HOMES.find(({ packages, homes }) => packages.test(name) && !homes.some((at) => file.startsWith(at)));
  return strange === undefined ? null : `${name} is known only in ${strange.homes.join(", ")}`;
}

/** What only the syntax tree tells: comments may quote SQL, texts that run may not. */
function codeBreaches(file: string, text: string): Breach[] {
  if (!file.startsWith("src/") && !file.startsWith("apps/")) return [];
  const found: Breach[] = [];
  const tree = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, false);
  const report = (node: ts.Node, what: string) =>
    found.push({ file, line: tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1, what });
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteral(node) || ts.isTemplateLiteral(node)) {
      if (!file.startsWith("src/db/") && SQL.test(node.getText(tree).slice(1, -1)))
        report(node, "SQL lives in src/db and migrations");
    }
    if (ts.isCallExpression(node) && node.expression.getText(tree) === "console.log")
      report(node, "console.log: use the logger");
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return found;
}

/** What git tracks or would track; files that are not text are left out. */
export async function readProject(root: string): Promise<Map<string, string>> {
  const { stdout } = await promisify(execFile)("git", ["ls-files", "-co", "--exclude-standard", "-z"], {
    cwd: root,
    maxBuffer: 64 * 1024 * 1024,
  });
  const files = new Map<string, string>();
  for (const name of new Set(stdout.split("\0"))) {
    if (name === "" || name === "package-lock.json") continue;
    // Deleted here, still listed by git.
    const bytes = await readFile(posix.join(root, name)).catch(() => null);
    if (bytes !== null && !bytes.subarray(0, 8_000).includes(0)) files.set(name, bytes.toString("utf8"));
  }
  return files;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const breaches = findBreaches(await readProject(process.cwd()));
  for (const { file, line, what } of breaches) process.stdout.write(`${file}:${line} ${what}\n`);
  process.exitCode = breaches.length > 0 ? 1 : 0;
}
