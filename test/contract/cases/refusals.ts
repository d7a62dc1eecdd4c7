import assert from "node:assert/strict";
import type { FailureCode } from "../../../src/domain/failure.ts";
import type { Answer } from "../../../src/domain/provider.ts";
import { type Bench, print } from "../bench.ts";
import { type Case, type Cases, it } from "../case.ts";
import { answer, isCreate, only, PAGE } from "../wire.ts";

const POSTPONED_MOST_MS = 10 * 60_000;

/** Orders that were not accepted: what the provider knows, what it says, and what it cannot have said. */
export const refusals: Cases = ({ webhooks }) => [
  declined("a token that the provider does not know", ["provider_auth"], (bench) =>
    bench.make({ token: "r8_nobody's" }).submit(bench.order()),
  ),
  declined("a token that is refused when the order comes", ["provider_auth"], (bench) =>
    bench.provider.submit(bench.order({ fault: "unauthorized" })),
  ),
  declined("an account without credit", ["provider_no_credit"], (bench) =>
    bench.provider.submit(bench.order({ fault: "no_credit" })),
  ),
  declined("a model that is not there", ["model_not_found"], (bench) =>
    bench.provider.submit(bench.order({ model: bench.unknownModel, version: null })),
  ),
  declined("a model whose name is none", ["model_not_found", "input_refused"], (bench) =>
    bench.provider.submit(bench.order({ model: "../no such name?", version: null })),
  ),
  declined("an input that the model does not take", ["input_refused"], (bench) =>
    // The sandbox refuses directives that it does not understand as a model refuses a field.
    bench.provider.submit(bench.order({ fault: "cut=7" })),
  ),
  declined("an input that is too large", ["input_too_large", "input_refused"], (bench) => {
    bench.wire.stand(only(isCreate, answer(413, bench.refusal(413, "The request is larger than 10 MB."))));
    return bench.provider.submit(bench.order());
  }),

  it("a refusal names the field at fault in the provider's words", async (bench) => {
    const said = await bench.provider.submit(bench.order({ fault: "cut=7" }));
    assert.ok(said.outcome === "declined", print(said));
    assert.match(said.failure.detail, /cut takes no value/);
    assert.match(said.failure.detail, /prompt/);
  }),

  it("a provider that repeats our token in its words does not get it into our records", async (bench) => {
    for (const status of [401, 422, 500]) {
      const words = `You sent ${bench.token}, and it is no good.`;
      bench.wire.stand(answer(status, bench.refusal(status, words)));
      const said = await bench.provider.submit(bench.order());
      assert.ok(!print(said).includes(bench.token), print(said));
      assert.notEqual(said.outcome, "submitted");
    }
  }),

  ...(webhooks === "none"
    ? []
    : [
        it("a provider that repeats the webhook's address does not get its secret into our records", async (bench) => {
          for (const status of [400, 422, 500]) {
            const order = bench.order();
            bench.wire.stand(answer(status, bench.refusal(status, `The address ${order.webhookUrl} is no good.`)));
            const said = await bench.provider.submit(order);
            assert.ok(!print(said).includes("token-"), print(said));
          }
        }),
      ]),

  throttled("in the body", "rate_limited=body", [2_000, 5_000]),
  throttled("in the header", "rate_limited=header", [2_000]),
  throttled("nowhere", "rate_limited=neither", [2_000, 5_000]),

  it("a 429 in HTML is waited for as its header says", async (bench) => {
    bench.wire.stand(only(isCreate, answer(429, PAGE, { "retry-after": "7" })));
    const said = await bench.provider.submit(bench.order());
    assert.ok(said.outcome === "postponed", print(said));
    assert.equal(said.retryAfterMs, 7_000);
  }),

  it("a 429 that wishes a day of patience, or none at all, gets some minutes or a moment", async (bench) => {
    for (const [wish, most] of [
      ["86400", POSTPONED_MOST_MS],
      ["0", 5_000],
      ["-5", 5_000],
    ] as const) {
      bench.wire.stand(only(isCreate, answer(429, bench.refusal(429, "Too many requests."), { "retry-after": wish })));
      const said = await bench.provider.submit(bench.order());
      assert.ok(said.outcome === "postponed", print(said));
      assert.ok(said.retryAfterMs > 0 && said.retryAfterMs <= most, `${wish}: ${said.retryAfterMs} ms`);
    }
  }),

  it("a provider that cannot be connected to got nothing: postponed", async (bench) => {
    const said = await bench.make({ baseUrl: bench.at(bench.nobodyUrl) }).submit(bench.order());
    assert.ok(said.outcome === "postponed", print(said));
    assert.equal(said.failure.code, "provider_unavailable");
    assert.ok(said.retryAfterMs > 0 && said.retryAfterMs <= POSTPONED_MOST_MS);
  }),
];

/** Refused for good: the reason is known, no run is bought, nothing was tried twice. */
function declined(what: string, codes: readonly FailureCode[], submit: (bench: Bench) => Promise<Answer>): Case {
  return it(`${what}: declined, ${codes[0]}, and nothing is bought`, async (bench) => {
    const said = await submit(bench);
    assert.ok(said.outcome === "declined", print(said));
    assert.ok(codes.includes(said.failure.code), print(said));
    assert.match(said.failure.detail, /\w{3}/);
    assert.equal(bench.bought(), 0);
    assert.ok(bench.posts().length <= 1, `${bench.posts().length} POSTs`);
  });
}

function throttled(where: string, fault: string, waits: readonly number[]): Case {
  return it(`a 429 that says ${where} how long to wait: postponed for that long, sent once`, async (bench) => {
    const said = await bench.provider.submit(bench.order({ fault }));
    assert.ok(said.outcome === "postponed", print(said));
    assert.equal(said.failure.code, "rate_limited");
    assert.ok(waits.includes(said.retryAfterMs), `${said.retryAfterMs} ms`);
    assert.equal(bench.posts().length, 1);
    assert.equal(bench.bought(), 0);
  });
}
