import assert from "node:assert/strict";
import { type Bench, print, until } from "../bench.ts";
import { type Case, type Cases, it } from "../case.ts";
import { answer, flood, isCreate, only, PAGE, type Stand, silence, trickle } from "../wire.ts";

/** Of a bound: what a busy machine may add. */
const SLACK_MS = 2_500;

/** Orders of which nobody knows whether they were accepted. The answer is "lost", and nothing is ever sent again. */
export const lost: Cases = () => [
  bought("the connection ends before the answer", "cut"),
  bought("the connection ends in the middle of the answer", "cut_half"),
  bought("a proxy answers 502 for the provider", "server_error_after_accept"),
  bought("a page of HTML comes as 200", "garbage_after_accept"),
  it("an answer that comes after the bound of the call: lost, and on the bill exactly once", async (bench) => {
    const said = await impatient(bench, 700).submit(
      bench.order({ fault: "slow_create=2000", cancelAfterSeconds: 0.7 }),
    );
    assert.equal(said.outcome, "lost", print(said));
    assert.equal(bench.bought(), 1);
    assert.equal(bench.posts().length, 1);
  }),
  it("an order that the provider accepts after we hung up: lost, and later on the bill exactly once", async (bench) => {
    const said = await impatient(bench, 400).submit(bench.order({ fault: "late_accept=900", cancelAfterSeconds: 0.4 }));
    assert.equal(said.outcome, "lost", print(said));
    assert.equal(bench.bought(), 0);
    await until("the late acceptance", async () => (bench.bought() > 0 ? true : null));
    assert.equal(bench.bought(), 1);
    assert.equal(bench.posts().length, 1);
  }),

  it("the connection ends before anything was accepted: lost all the same, for who knows", async (bench) => {
    const said = await bench.provider.submit(bench.order({ fault: "refuse_before" }));
    assert.equal(said.outcome, "lost", print(said));
    assert.equal(bench.bought(), 0);
    assert.equal(bench.posts().length, 1);
  }),
  it("a 500 in HTML proves nothing: lost, and sent once", async (bench) => {
    const said = await bench.provider.submit(bench.order({ fault: "server_error" }));
    assert.equal(said.outcome, "lost", print(said));
    assert.equal(bench.posts().length, 1);
  }),
  it("an outage of everything, told as 503 in HTML: lost, and sent once", async (bench) => {
    bench.sandbox.faults.add({ fault: "down" });
    const said = await bench.provider.submit(bench.order());
    assert.equal(said.outcome, "lost", print(said));
    assert.equal(bench.posts().length, 1);
    assert.equal(bench.bought(), 0);
  }),

  unclear("a 4xx in HTML, of some proxy in between", answer(403, PAGE)),
  unclear("a 404 in HTML", answer(404, PAGE)),
  unclear("a 408, whoever says it", (seen, response, bench) =>
    answer(408, bench.refusal(408, "The request took too long."))(seen, response),
  ),
  unclear("a 200 without a body", answer(200, "", { "content-type": "application/json" })),
  unclear("a 200 whose JSON names no run", answer(200, "{}")),
  unclear("a 200 whose JSON is no object", answer(200, "[1, null]")),
  unclear("half of a JSON", answer(200, '{"id":"abc')),

  ...[301, 307, 308].map((status) =>
    it(`a redirect by ${status} is not followed: the order is lost, and no token goes there`, async (bench) => {
      bench.wire.stand(only(isCreate, answer(status, "", { location: "/elsewhere" })));
      const said = await bench.provider.submit(bench.order());
      assert.equal(said.outcome, "lost", print(said));
      assert.deepEqual(
        bench.wire.seen.filter(({ path }) => path.startsWith("/elsewhere")),
        [],
      );
      assert.equal(bench.posts().length, 1);
    }),
  ),

  bounded("a provider that never answers", silence),
  bounded("an answer that never ends, a byte at a time", trickle),

  it("an answer of half a gigabyte is not read to its end: lost", async (bench) => {
    const most = 512 * 1024 * 1024;
    const water = flood(most);
    bench.wire.stand(only(isCreate, water.stand));
    const said = await bench.provider.submit(bench.order());
    assert.equal(said.outcome, "lost", print(said));
    assert.ok(water.sent() < most, "it was read to its end");
  }),
];

/** Of a call that is the whole run, the order's own time is the bound. */
const impatient = (bench: Bench, totalMs: number) => bench.make({ totalMs });

/** Accepted, and the answer does not arrive. */
function bought(how: string, fault: string): Case {
  return it(`${how}: lost, sent once, and on the bill exactly once`, async (bench) => {
    const said = await bench.provider.submit(bench.order({ fault }));
    assert.ok(said.outcome === "lost", print(said));
    assert.match(said.detail, /\w{3}/);
    assert.equal(bench.bought(), 1);
    assert.equal(bench.posts().length, 1);
  });
}

/** Answers that the provider cannot have meant. */
function unclear(what: string, stand: (...at: [...Parameters<Stand>, Bench]) => boolean): Case {
  return it(`${what}, for an answer to the order: lost, and sent once`, async (bench) => {
    bench.wire.stand(only(isCreate, (seen, response) => stand(seen, response, bench)));
    const said = await bench.provider.submit(bench.order());
    assert.equal(said.outcome, "lost", print(said));
    assert.equal(bench.posts().length, 1);
  });
}

function bounded(what: string, stand: Stand): Case {
  return it(`${what} costs a submit its bound and no more: lost`, async (bench) => {
    bench.wire.stand(only(isCreate, stand));
    const began = performance.now();
    const said = await impatient(bench, 600).submit(bench.order({ cancelAfterSeconds: 0.6 }));
    const tookMs = performance.now() - began;
    assert.equal(said.outcome, "lost", print(said));
    assert.ok(tookMs < 600 + SLACK_MS, `${Math.round(tookMs)} ms of 600`);
    assert.equal(bench.posts().length, 1);
  });
}
