import { failure } from "../../src/domain/failure.ts";
import type { Answer, Provider } from "../../src/domain/provider.ts";
import type { Adapter } from "../../src/providers/adapter.ts";
import { fal } from "../../src/providers/fal.ts";
import { poe } from "../../src/providers/poe.ts";
import { replicate } from "../../src/providers/replicate.ts";

/** An adapter as a careless engineer could have left it, and a sentence of the contract that is not so then. */
export interface Planted {
  readonly bug: string;
  readonly adapter: Adapter;
  readonly foundBy: RegExp;
}

function careless(adapter: Adapter, change: (provider: Provider) => Partial<Provider>): Adapter {
  return {
    ...adapter,
    make(options) {
      const provider = adapter.make(options);
      return { ...provider, ...change(provider) };
    },
  };
}

/** What becomes of the answer to each order. */
const answering = (
  adapter: Adapter,
  change: (answer: Answer, again: () => Promise<Answer>) => Answer | Promise<Answer>,
) =>
  careless(adapter, ({ submit }) => ({
    submit: async (order) => change(await submit(order), () => submit(order)),
  }));

export const PLANTED: readonly Planted[] = [
  {
    bug: "a lost order is sent again",
    adapter: answering(replicate, (answer, again) => (answer.outcome === "lost" ? again() : answer)),
    foundBy: /^the connection ends before the answer/,
  },
  {
    bug: "what is sent twice is seen at the end, too",
    adapter: answering(replicate, (answer, again) => (answer.outcome === "lost" ? again() : answer)),
    foundBy: /^(a 408|in all of this)/,
  },
  {
    bug: "a lost order is taken for one that was not sent",
    adapter: answering(replicate, (answer) =>
      answer.outcome === "lost"
        ? { outcome: "postponed", failure: failure("provider_unavailable", answer.detail), retryAfterMs: 2_000 }
        : answer,
    ),
    foundBy: /^a proxy answers 502/,
  },
  {
    bug: "a call that was cut is taken for a refusal",
    adapter: answering(poe, (answer) =>
      answer.outcome === "lost" ? { outcome: "declined", failure: failure("input_refused", answer.detail) } : answer,
    ),
    foundBy: /^the connection ends in the middle/,
  },
  {
    bug: "the provider's patience is not asked for",
    adapter: answering(replicate, (answer) =>
      answer.outcome === "postponed" ? { ...answer, retryAfterMs: 3_000 } : answer,
    ),
    foundBy: /^a 429 that says in the header/,
  },
  {
    bug: "an order is sent after its time",
    adapter: careless(replicate, ({ submit }) => ({
      submit: (order) => submit({ ...order, sendBefore: new Date(Date.now() + 60_000) }),
    })),
    foundBy: /^an order whose time/,
  },
  {
    bug: "an outage is taken for the end of a run",
    adapter: careless(replicate, ({ look }) => ({
      look: (ref) => look(ref).catch(() => ({ status: "gone" as const })),
    })),
    foundBy: /^a 404 in HTML, of some proxy in between is no answer/,
  },
  {
    bug: "a failed run is a success without outputs",
    adapter: careless(replicate, ({ look }) => ({
      async look(ref) {
        const seen = await look(ref);
        if (seen.status !== "failed") return seen;
        return { status: "succeeded", outputs: [], trainedVersion: null, seconds: null, costMicroUsd: null };
      },
    })),
    foundBy: /^a run that fails is failed/,
  },
  {
    bug: "a stop that nobody heard is taken for done",
    adapter: careless(replicate, ({ cancel }) => ({ cancel: (ref) => cancel(ref).catch(() => {}) })),
    foundBy: /^a stop that could not be said/,
  },
  {
    bug: "a list that was not read says that nothing is there",
    adapter: careless(replicate, ({ find }) => ({
      async find(...asked) {
        const found = await find(...asked);
        return found.outcome === "unread" ? { outcome: "absent" } : found;
      },
    })),
    foundBy: /^a list that could not be read/,
  },
  {
    bug: "a run that another order stands for is found once more",
    adapter: careless(replicate, ({ find }) => ({ find: (order, sentAt) => find(order, sentAt, async () => false) })),
    foundBy: /^an equal order that another run of ours stands for is passed over/,
  },
  {
    bug: "a provider without a list says that nothing is there",
    adapter: careless(fal, () => ({ find: async () => ({ outcome: "absent" }) })),
    foundBy: /lost by cut, is found in the list/,
  },
  {
    bug: "a webhook is believed whoever signed it",
    adapter: careless(replicate, () => ({
      async verifyWebhook(headers, rawBody) {
        const { id, status } = JSON.parse(rawBody);
        return { deliveryId: headers["webhook-id"] ?? "", providerRunId: id, status, ended: status === "succeeded" };
      },
    })),
    foundBy: /^a delivery that is signed with another key/,
  },
  {
    bug: "each repetition of a webhook is a new one",
    adapter: careless(replicate, ({ verifyWebhook }) => ({
      async verifyWebhook(headers, rawBody) {
        return { ...(await verifyWebhook(headers, rawBody)), deliveryId: String(performance.now()) };
      },
    })),
    foundBy: /^a delivery that is repeated/,
  },
  {
    bug: "an address of this machine is given to a provider far away",
    adapter: careless(replicate, () => ({ offer: async ({ url }) => url })),
    foundBy: /^a file that the provider cannot reach/,
  },
];
