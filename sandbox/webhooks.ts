import type { Logger } from "pino";
import { Agent, request } from "undici";
import type { FaceName, Voice } from "./face.ts";
import type { Faults } from "./faults.ts";
import { randomId } from "./id.ts";
import type { Run, WebhookEvent } from "./run.ts";
import { addressed } from "./webhook.ts";

const TIMEOUT_MS = 5_000;
const THROTTLE_MS = 500; // between two "output" or two "logs" events of one run
const STALE_SECONDS = 3_600;

export type Webhooks = ReturnType<typeof makeWebhooks>;

export function makeWebhooks(options: {
  readonly faults: Faults;
  readonly voices: ReadonlyMap<FaceName, Voice>;
  readonly speed: number;
  readonly log: Logger;
  readonly relay: string | null;
}) {
  const { faults, voices, speed, log } = options;
  const agent = new Agent({ connections: 64, headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
  const timers = new Set<NodeJS.Timeout>();
  const lastSent = new Map<string, number>(); // "run event" → when; entries leave with the run's end
  const firstDeliveries = new Map<string, Set<() => void>>();
  const lateHeld = new Map<string, string>(); // run → its body while it was processing
  const counts = { attempted: 0, delivered: 0, dropped: 0, givenUp: 0 };
  let relay = options.relay;
  let closed = false;

  function after(pauseMs: number, act: () => void): void {
    if (closed) return;
    const timer = setTimeout(() => {
      timers.delete(timer);
      act();
    }, pauseMs);
    timers.add(timer);
  }

  async function post(run: Run, webhook: string, voice: Voice, deliveryId: string, body: string): Promise<boolean> {
    const stale = faults.strike("webhook_stale", run) ? STALE_SECONDS : 0;
    const forged = faults.strike("webhook_bad_signature", run) !== null;
    const rotated = faults.strike("webhook_rotated", run) !== null;
    const seconds = Math.floor(Date.now() / 1_000) - stale;
    const own = voice.headers({ run, deliveryId, seconds, body, forged, rotated });
    counts.attempted += 1;
    try {
      const { url, headers } = addressed(webhook, relay);
      const answer = await request(url, {
        method: "POST",
        body,
        headers: { ...headers, ...own },
        dispatcher: agent,
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      await answer.body.dump({ limit: 64 * 1024 }); // bytes; what a receiver answers is of no interest
      const accepted = voice.isTaken(answer.statusCode);
      if (accepted) counts.delivered += 1;
      log.debug({ run: run.id, status: run.status, answer: answer.statusCode }, "webhook sent");
      return accepted;
    } catch (error) {
      log.debug({ run: run.id, error: String(error) }, "webhook not delivered");
      return false;
    } finally {
      for (const wake of firstDeliveries.get(run.id) ?? []) wake();
      firstDeliveries.delete(run.id);
    }
  }

  /** One event: intermediate ones are tried once, the terminal one again and again under one id. */
  async function deliver(run: Run, webhook: string, voice: Voice, event: WebhookEvent, body: string): Promise<void> {
    const id = `msg_${randomId()}`;
    const terminal = event === "completed";
    const twice = faults.strike("webhook_duplicate", run) !== null;
    const tries = terminal ? voice.pausesMs.length : 1;
    for (let attempt = 0; attempt < tries && !closed; attempt += 1) {
      const pauseMs = (voice.pausesMs[attempt] ?? 0) / speed;
      if (pauseMs > 0) await new Promise<void>((resolve) => after(pauseMs, resolve));
      if (!(await post(run, webhook, voice, id, body))) continue;
      if (twice) await post(run, webhook, voice, id, body);
      return;
    }
    counts.givenUp += 1;
  }

  return {
    /** Called once for each thing that happens to a run. */
    emit(run: Run, event: WebhookEvent): void {
      const { webhook } = run;
      const voice = voices.get(run.face);
      if (webhook === null || !voice || closed) return;
      const completed = event === "completed";
      if ((run.events ?? voice.events).includes(event)) {
        const throttled = event === "output" || event === "logs";
        const key = `${run.id} ${event}`;
        const now = Date.now();
        if (throttled && now - (lastSent.get(key) ?? 0) < THROTTLE_MS) return;
        if (throttled) lastSent.set(key, now);

        const late = faults.strike("webhook_late", run);
        const text = voice.body(run, event);
        const older = lateHeld.get(run.id);
        if (faults.strike("webhook_drop", run, ({ word }) => word === "all" || word === event)) {
          counts.dropped += 1;
        } else if (!completed && late) {
          lateHeld.set(run.id, text);
        } else if (!late && older === undefined) {
          void deliver(run, webhook, voice, event, text);
        } else {
          // Delayed, and overtaken by itself: what was told of it while it was running arrives after its end.
          after(late?.amount ?? 0, async () => {
            await deliver(run, webhook, voice, event, text);
            if (older !== undefined) await deliver(run, webhook, voice, "start", older);
          });
        }
      }
      if (!completed) return;
      lateHeld.delete(run.id);
      for (const name of ["output", "logs"]) lastSent.delete(`${run.id} ${name}`);
    },

    /** Resolves when the first attempt of any event of the run is over, or after `limitMs`. */
    firstDelivery(run: Run, limitMs: number): Promise<void> {
      return new Promise((resolve) => {
        const wakers = firstDeliveries.get(run.id) ?? new Set();
        wakers.add(resolve);
        firstDeliveries.set(run.id, wakers);
        after(limitMs, () => {
          wakers.delete(resolve);
          if (wakers.size === 0) firstDeliveries.delete(run.id);
          resolve();
        });
      });
    },

    counts: () => ({ ...counts }),
    relay: () => relay,
    setRelay(base: string | null): void {
      relay = base;
    },

    async close(): Promise<void> {
      closed = true;
      for (const timer of timers) clearTimeout(timer);
      timers.clear();
      for (const wakers of firstDeliveries.values()) for (const wake of wakers) wake();
      await agent.destroy();
    },
  };
}
