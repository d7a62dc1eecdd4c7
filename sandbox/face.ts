import type { FastifyPluginAsync } from "fastify";
import type { Clock } from "./clock.ts";
import type { Cloud, CloudOptions } from "./cloud.ts";
import type { Run, WebhookEvent } from "./run.ts";

/** The providers whose HTTP contracts are spoken here. */
export const FACES = ["replicate", "runpod", "fal", "wavespeed", "huggingface", "poe"] as const;
export type FaceName = (typeof FACES)[number];

/**
 * How one provider looks from outside: its paths, its words for an error, its webhooks. What happens to a run, what goes
 * wrong with it and what it costs is the same code for all of them: course.ts, fault.ts, bill.ts.
 */
export interface Face {
  readonly name: FaceName;
  /** What its paths begin with: an adapter's base URL is the sandbox's origin with this behind it. */
  readonly prefix: string;
  routes(cloud: Cloud): FastifyPluginAsync;
  /** Null: it tells nobody of anything. */
  voice(parts: { readonly clock: Clock; readonly options: CloudOptions }): Voice | null;
}

/** How a provider tells of its runs. */
export interface Voice {
  /** Which events it tells of when the caller did not say. */
  readonly events: readonly WebhookEvent[];
  /** Before each try of the terminal event, in ms; the first is 0. Other events are tried once. */
  readonly pausesMs: readonly number[];
  /** Of the receiver's answers, those that end the trying. */
  isTaken(status: number): boolean;
  /** What is sent of this event, as the run stands now. The same text is sent again in each try. */
  body(run: Run, event: WebhookEvent): string;
  /** All headers but the receiver's own. `deliveryId`: equal in each try. `forged`: signed with some other key. */
  headers(letter: {
    readonly run: Run;
    readonly deliveryId: string;
    /** Unix time; the past for a stale one. */
    readonly seconds: number;
    readonly body: string;
    readonly forged: boolean;
    /** The secret is being replaced: signed with another one and with the right one. */
    readonly rotated: boolean;
  }): Readonly<Record<string, string>>;
}
