import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import closeWithGrace from "close-with-grace";
import { Command } from "commander";
import { apps } from "../apps/all.ts";
import { makeOpenApi } from "./api/openapi.ts";
import { callbackSecret } from "./callback-signing.ts";
import { type Program, startApi, startWorkerProgram, VERSION } from "./compose.ts";
import { ConfigError, envExample, readConfig, readDatabaseUrl, readSigningSecret } from "./config.ts";
import { type Audit, AuditImpossible, auditAll } from "./db/audit.ts";
import { connect, type Db, disconnect } from "./db/client.ts";
import { createKey, listKeys, revokeKey } from "./db/keys.ts";
import { resumeProvider } from "./db/provider-states.ts";
import { UnknownAccount } from "./db/reconcile.ts";
import { ALL_APPS, listSettings, SETTINGS, type SettingName, setSetting } from "./db/settings.ts";
import { prepareDatabase, startDev } from "./dev.ts";
import { doctorReport, examine } from "./doctor.ts";
import { hasDifferences, InvoiceProblem, type ReconcileCommand, reconcile, reconcileReport } from "./reconcile.ts";

/** sysexits.h: the configuration is at fault, restarting will not help. */
const EX_CONFIG = 78;
/** Containers are killed 10 s after SIGTERM at the earliest; steps are far shorter. A program may say that it needs more. */
const DRAIN_MS = 9_000;

const print = (text: string) => process.stdout.write(`${text}\n`);

async function main(): Promise<void> {
  // What the environment says already wins over the file.
  if (existsSync(".env")) process.loadEnvFile(".env");
  const program = new Command("darkroom")
    .description("The job worker service behind AI photo and video apps.")
    .version(VERSION);

  program
    .command("dev")
    .description("everything in one process, with embedded Postgres and the sandbox: needs nothing else")
    .action(async () => {
      const dev = await startDev(process.env);
      print(devBanner(dev));
      runUntilSignal(dev);
    });
  program
    .command("api")
    .description("the HTTP API")
    .action(async () => runUntilSignal(await startApi(readConfig(process.env))));
  program
    .command("worker")
    .description("a worker; run as many as you like")
    .action(async () => runUntilSignal(await startWorkerProgram(readConfig(process.env))));
  program
    .command("migrate")
    .description("bring the database up to date; repeating is harmless")
    .action(async () => {
      const ran = await prepareDatabase(readDatabaseUrl(process.env));
      print(ran.length > 0 ? ran.map((name) => `applied ${name}`).join("\n") : "the database is up to date");
    });
  program
    .command("doctor")
    .description("try everything that a deployment needs; one line each, with the remedy")
    .action(async () => {
      const findings = await examine(readConfig(process.env));
      print(doctorReport(findings));
      process.exitCode = findings.some(({ ok }) => ok === false) ? 1 : 0;
    });
  program
    .command("audit")
    .description("check that the money and the purchases add up, all of them; exit code 1 when they do not")
    .option("--json", "print the findings as JSON")
    .action(async (options: { json?: true }) => {
      const audit = await auditAll(readDatabaseUrl(process.env));
      print(options.json ? JSON.stringify(audit, null, 2) : auditReport(audit));
      process.exitCode = audit.checks.every((each) => each.count === 0) ? 0 : 1;
    });

  program
    .command("resume <account>")
    .description("end the pause of a provider's account, and close its breaker; what is parked comes within a minute")
    .action(async (account: string) => {
      if (!(await withDatabase((db) => resumeProvider(db, account))))
        return program.error(`${account} is neither paused nor left alone: there is nothing to end`);
      print(`${account} takes orders again`);
    });

  program
    .command("reconcile")
    .description("compare a provider's invoice with our runs, both ways; exit code 1 when something differs")
    .requiredOption("--provider <account>", "as runs record it: replicate, replicate_2, …")
    .requiredOption("--csv <file>", "with the columns id and cost_usd, or the provider's own names for them")
    .option("--from <time>", "runs sent from then on must be on it; by default from the first that it names")
    .option("--to <time>", "and until then; by default to the last that it names")
    .option("--tolerance <percent>", "amounts may differ by so much", "1")
    .option("--json", "print the differences as JSON")
    .action(async (options: ReconcileCommand & { json?: true }) => {
      const found = await reconcile(readDatabaseUrl(process.env), options);
      print(options.json ? JSON.stringify(found, null, 2) : reconcileReport(found));
      process.exitCode = hasDifferences(found) ? 1 : 0;
    });

  const keys = program.command("keys").description("API keys");
  keys
    .command("create")
    .description("make a key; it is shown once")
    .requiredOption("--app <app>", `one of ${apps.map((app) => app.id).join(", ")}`)
    .option("--name <name>", "what it is for", "unnamed")
    .action(async (options: { app: string; name: string }) => {
      if (!apps.some((app) => app.id === options.app))
        return program.error(`there is no app ${options.app}: one of ${apps.map((app) => app.id).join(", ")}`);
      print(await withDatabase((db) => createKey(db, options.app, options.name)));
    });
  keys
    .command("callback-secret <app>")
    .description("print what the app's callbacks are signed with (Standard Webhooks)")
    .action((app: string) => {
      if (!apps.some(({ id }) => id === app))
        return program.error(`there is no app ${app}: one of ${apps.map(({ id }) => id).join(", ")}`);
      print(callbackSecret(readSigningSecret(process.env), app));
    });
  keys.command("list").action(async () => {
    for (const { id, appId, name, createdAt, revokedAt } of await withDatabase(listKeys))
      print([id, appId, name, createdAt.toISOString(), revokedAt ? "revoked" : "live"].join("\t"));
  });
  keys.command("revoke <id>").action(async (id: string) => {
    if (!(await withDatabase((db) => revokeKey(db, id)))) return program.error(`there is no live key ${id}`);
    print(`revoked ${id}`);
  });

  const settings = program.command("settings").description("switches that hold at once, without a deployment");
  settings
    .command("set <name> <value>")
    .description(
      Object.entries(SETTINGS)
        .map((each) => each.join(" = "))
        .join("\n"),
    )
    .option("--app <app>", "of one app only; an app is off when its own switch or everybody's is")
    .action(async (name: string, value: string, options: { app?: string }) => {
      if (!Object.hasOwn(SETTINGS, name))
        return program.error(`there is no setting ${name}: one of ${Object.keys(SETTINGS).join(", ")}`);
      if (value !== "true" && value !== "false") return program.error(`${name} is true or false, not ${value}`);
      const app = options.app ?? ALL_APPS;
      if (app !== ALL_APPS && !apps.some(({ id }) => id === app))
        return program.error(`there is no app ${app}: one of ${apps.map(({ id }) => id).join(", ")}`);
      await withDatabase((db) => setSetting(db, app, name as SettingName, value === "true"));
      print(`${name} = ${value} for ${app === ALL_APPS ? "all apps" : app}`);
    });
  settings.command("list").action(async () => {
    for (const { appId, name, value, updatedAt } of await withDatabase(listSettings))
      print([appId, name, JSON.stringify(value), updatedAt.toISOString()].join("\t"));
  });

  generated(program, "env-example", ".env.example", "write .env.example from the configuration's table", async () =>
    envExample(),
  );
  generated(program, "openapi", "docs/openapi.json", "write the OpenAPI description", makeOpenApi);

  await program.parseAsync();
}

/** A file that is written from the code; --check fails when it is not what the code would write. */
function generated(
  program: Command,
  name: string,
  file: string,
  description: string,
  make: () => Promise<string>,
): void {
  program
    .command(name)
    .description(description)
    .option("--check", `fail when ${file} is out of date`)
    .action(async (options: { check?: true }) => {
      const text = await make();
      if (!options.check) return writeFile(file, text);
      if ((await readFile(file, "utf8").catch(() => "")) !== text)
        program.error(`${file} is out of date: run npx tsx src/main.ts ${name}`);
    });
}

async function withDatabase<T>(use: (db: Db) => Promise<T>): Promise<T> {
  const db = connect(readDatabaseUrl(process.env), { max: 1, name: "cli" });
  try {
    return await use(db);
  } finally {
    await disconnect(db);
  }
}

function auditReport({ checks, read, seconds }: Audit): string {
  const width = Math.max(...checks.map((each) => each.name.length));
  const failed = checks.filter((each) => each.count > 0).length;
  return [
    ...checks.flatMap(({ name, never, count, sample }) => [
      `${count === 0 ? "✔" : "✖"} ${name.padEnd(width)} ${count} — ${never}`,
      ...sample.map((finding) => `    ${JSON.stringify(finding)}`),
      ...(count > sample.length ? [`    … and ${count - sample.length} more`] : []),
    ]),
    `read ${read.accounts} accounts, ${read.entries} entries, ${read.jobs} jobs and ${read.runs} runs in ${seconds.toFixed(1)} s`,
    `${checks.length - failed} checks passed, ${failed} failed`,
  ].join("\n");
}

/** SIGTERM and SIGINT drain; a second signal, or the time that the program may take, ends at once. */
function runUntilSignal(program: Program): void {
  closeWithGrace({ delay: program.stopMs ?? DRAIN_MS }, async ({ err }) => {
    if (err) console.error(err);
    await program.stop();
  });
}

function devBanner(dev: { url: string; key: string; adminPassword: string }): string {
  return `
Darkroom is at ${dev.url}
  docs    ${dev.url}/docs
  queues  ${dev.url}/queues   (admin / ${dev.adminPassword})

  curl ${dev.url}/api/jobs -H 'authorization: Bearer ${dev.key}' \\
    -H 'content-type: application/json' -H 'idempotency-key: my-first-job' -H 'prefer: wait=30' \\
    -d '{"kind":"generation","user":"ann","input":{"prompt":"a lighthouse at dawn","size":"landscape"}}'
`;
}

main().catch((error: unknown) => {
  const explained = [ConfigError, AuditImpossible, InvoiceProblem, UnknownAccount].some(
    (kind) => error instanceof kind,
  );
  console.error(explained && error instanceof Error ? `darkroom: ${error.message}` : error);
  process.exit(explained ? EX_CONFIG : 1);
});
