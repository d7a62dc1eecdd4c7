import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { connect, type Db, disconnect } from "../src/db/client.ts";
import { ledgerDrift } from "../src/db/credits.ts";
import { createKey } from "../src/db/keys.ts";
import { type ProviderState, readProviderStates, resumeProvider } from "../src/db/provider-states.ts";
import { type Client, type Credits, type Job, makeClient, readBill } from "./client.ts";
import type { Addresses } from "./cluster.ts";
import { type SavedFile, saveFiles } from "./folder.ts";
import { USER } from "./orders.ts";
import { isEnded } from "./progress.ts";

/** Twelve jobs, one after the other, while accounts at three providers come and go. */

/** In the order in which they are asked. */
export const FACES = ["replicate", "fal", "wavespeed"] as const;
type Face = (typeof FACES)[number];

/** As AI_PROVIDER names them. */
export const ACCOUNTS: readonly string[] = FACES.map((face) => `sandbox:${face}`);
/** "sandbox_fal" → "fal". */
export const faceOf = (account: string) => account.replace(/^sandbox_/, "");

const JOBS = 12;
const JOB_EVERY_MS = 1_900;
const ASK_EVERY_MS = 250;
const ANSWER_MS = 10_000;
const MODELS = ["flux-schnell", "flux-dev"] as const;
const SUBJECTS = ["a lighthouse at dawn", "a fox in the snow", "a harbour in the rain", "a castle above the clouds"];

interface Act {
  readonly fromMs: number;
  readonly toMs: number;
  readonly face: Face;
  readonly fault: "no_credit" | "rate_limited";
}

const ACTS: readonly Act[] = [
  { fromMs: 4_800, toMs: 8_300, face: "replicate", fault: "no_credit" },
  { fromMs: 12_500, toMs: 16_500, face: "replicate", fault: "rate_limited" },
  { fromMs: 14_500, toMs: 16_500, face: "fal", fault: "rate_limited" },
];

/** Something that happened, in ms since the first job. */
export interface Moment {
  readonly atMs: number;
  readonly face: Face;
  readonly what: string;
  /** Done to the provider by this demo; otherwise the fleet came to know it. */
  readonly isAct: boolean;
}

export interface Routed {
  readonly number: number;
  readonly submittedMs: number;
  readonly job: Job;
  readonly files: readonly SavedFile[];
}

export interface Failover {
  readonly routed: readonly Routed[];
  readonly moments: readonly Moment[];
  readonly credits: Credits;
  readonly ledger: Awaited<ReturnType<typeof ledgerDrift>>;
  /** The ids that the sandbox billed, at all of its faces. */
  readonly bill: readonly string[];
}

export async function playFailover(
  addresses: Addresses,
  folder: string,
  halted: AbortSignal,
  onMoment: (moment: Moment) => void,
): Promise<Failover> {
  const { sandbox } = addresses;
  if (sandbox === null) throw new Error("failover is shown on the sandbox only: nobody else can be told to fail");
  const db = connect(addresses.database, { max: 2, name: "demo" });
  try {
    const client = makeClient(addresses.api, await createKey(db, "demo", "demo"), halted);
    const startedAt = performance.now();
    const now = () => Math.round(performance.now() - startedAt);
    const moments: Moment[] = [];
    const tell = (moment: Omit<Moment, "atMs">) => {
      const told = { atMs: now(), ...moment };
      moments.push(told);
      onMoment(told);
    };
    const over = new AbortController();
    const watching = watchAccounts(db, AbortSignal.any([halted, over.signal]), tell);
    const acting = Promise.all(ACTS.map((act) => perform(act, { sandbox, db, halted, tell })));
    const buying = Promise.all(
      Array.from({ length: JOBS }, (_, index) => buy({ client, folder, halted, now }, index + 1)),
    );
    const [routed] = await Promise.all([buying, acting]);
    over.abort();
    await watching;
    return {
      routed,
      moments,
      credits: await client.credits(USER),
      ledger: await ledgerDrift(db),
      bill: await readBill(sandbox),
    };
  } finally {
    await disconnect(db);
  }
}

interface Stage {
  readonly sandbox: string;
  readonly db: Db;
  readonly halted: AbortSignal;
  tell(moment: Omit<Moment, "atMs">): void;
}

const rule = z.object({ id: z.int() });
const COMES = { no_credit: "its account is empty: 402 from now on", rate_limited: "429 from now on" } as const;
const GOES = { no_credit: "topped up, and the operator says so", rate_limited: "no 429s any more" } as const;

async function perform({ fromMs, toMs, face, fault }: Act, { sandbox, db, halted, tell }: Stage): Promise<void> {
  const ask = async (method: string, path: string, body?: object): Promise<string> => {
    const answer = await fetch(`${sandbox}/_sandbox/faults${path}`, {
      method,
      ...(body && { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
      signal: AbortSignal.any([halted, AbortSignal.timeout(ANSWER_MS)]),
    });
    if (!answer.ok) throw new Error(`the sandbox refused ${method} /_sandbox/faults: ${answer.status}`);
    return answer.text();
  };
  await sleep(fromMs, undefined, { signal: halted });
  const { id } = rule.parse(JSON.parse(await ask("POST", "", { fault, match: { face } })));
  tell({ face, what: COMES[fault], isAct: true });
  await sleep(toMs - fromMs, undefined, { signal: halted });
  await ask("DELETE", `/${id}`);
  // Without the operator it would be found out within a minute.
  if (fault === "no_credit") await resumeProvider(db, `sandbox_${face}`);
  tell({ face, what: GOES[fault], isAct: true });
}

interface Shop {
  readonly client: Client;
  readonly folder: string;
  readonly halted: AbortSignal;
  now(): number;
}

async function buy({ client, folder, halted, now }: Shop, number: number): Promise<Routed> {
  await sleep((number - 1) * JOB_EVERY_MS, undefined, { signal: halted });
  const submittedMs = now();
  const prompt = SUBJECTS[number % SUBJECTS.length];
  const body = {
    kind: "generation",
    user: USER,
    model: MODELS[number % MODELS.length],
    input: { prompt, width: 512, height: 512 },
  };
  const { id } = await client.submit(body, randomUUID());
  let job = await client.job(id);
  while (!isEnded(job.status)) {
    await sleep(ASK_EVERY_MS, undefined, { signal: halted });
    job = await client.job(id);
  }
  const name = `failover-${String(number).padStart(2, "0")}-generation`;
  return { number, submittedMs, job, files: await saveFiles(client, job, name, folder) };
}

/** Tells whenever the fleet has come to think otherwise of an account. Ends with the signal. */
async function watchAccounts(db: Db, over: AbortSignal, tell: Stage["tell"]): Promise<void> {
  const known = new Map<Face, string>(FACES.map((face) => [face, READY]));
  while (!over.aborted) {
    const states = await readProviderStates(db);
    for (const face of FACES) {
      const what = wordsOf(states.find(({ provider }) => faceOf(provider) === face));
      if (known.get(face) !== what) tell({ face, what, isAct: false });
      known.set(face, what);
    }
    await sleep(ASK_EVERY_MS, undefined, { signal: over }).catch(() => {});
  }
}

const READY = "takes orders";

function wordsOf(state: ProviderState | undefined): string {
  if (state?.paused) return state.paused.reason === "provider_no_credit" ? "paused: out of credit" : "paused";
  if (state && state.breaker !== "closed") return "left alone: order after order had no answer";
  return state?.retryAt ? "held back, as its 429 said" : READY;
}
