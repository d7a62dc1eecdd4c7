import assert from "node:assert/strict";
import { ProviderUnreachable } from "../../../src/domain/provider.ts";
import { type Bench, print } from "../bench.ts";
import { type Case, type Cases, it } from "../case.ts";
import { answer, flood, PAGE, type Stand, silence } from "../wire.ts";

const SLACK_MS = 2_500;
const YEAR_MS = 365 * 24 * 3_600_000;
/** Of nobody, in the shapes in which ids come. */
const STRANGE_IDS = ["nobody", "00000000-0000-4000-8000-000000000000", "chatcmpl-0", "a".repeat(64)];

/** Asking for a run, and stopping it. What could not be read says nothing about the run. */
export const looks: Cases = ({ ends, stops }) =>
  ends === "in the call" ? callLooks : [...laterLooks, ...(stops ? stoppable : unstoppable)];

/** The last ones: the sandbox's clock cannot be set back. */
export const retention: Cases = ({ ends }) =>
  ends === "later"
    ? [
        it("a year later the run is gone, or its output is, or it is still there to be fetched", async (bench) => {
          const { ref } = await finished(bench);
          bench.sandbox.advanceClock(YEAR_MS);
          const look = await bench.provider.look(ref);
          if (look.status === "gone") return;
          if (look.status === "failed") return assert.equal(look.failure.code, "output_unavailable", print(look));
          assert.ok(look.status === "succeeded", print(look));
          for (const url of look.outputs)
            assert.equal((await fetch(url)).status, 200, "a success whose output is gone");
        }),
      ]
    : [];

const laterLooks: readonly Case[] = [
  it("a run that the provider does not know is gone", async (bench) => {
    for (const id of STRANGE_IDS)
      assert.deepEqual(await bench.provider.look(bench.ref(bench.order(), id)), { status: "gone" }, id);
  }),
  it("a 404 in the provider's own words is gone for now, and the run is found when it is back", async (bench) => {
    const order = bench.order({ fault: "get_missing=1" });
    const ref = bench.ref(order, await bench.submitted(order));
    assert.deepEqual(await bench.provider.look(ref), { status: "gone" });
    assert.equal((await bench.over(ref)).status, "succeeded");
  }),
  it("an id cannot lead to another path of the provider", async (bench) => {
    for (const id of ["../../x?y=1#z", "../../../x/requests/1", "%2e%2e/x"])
      await bench.provider.look(bench.ref(bench.order(), id)).catch((error: Error) => {
        assert.ok(error instanceof ProviderUnreachable, String(error));
      });
    for (const { path } of bench.wire.seen) assert.doesNotMatch(path, /\/x\b|y=1/);
  }),
  it("one error on the way is passed over by asking again", async (bench) => {
    const order = bench.order({ fault: "get_error=1" });
    const ref = bench.ref(order, await bench.submitted(order));
    assert.notEqual((await bench.provider.look(ref)).status, "gone");
    assert.equal((await bench.over(ref)).status, "succeeded");
  }),
  it("errors again and again are no answer, and the run goes on", async (bench) => {
    const order = bench.order({ fault: "get_error=20" });
    const ref = bench.ref(order, await bench.submitted(order));
    await unreachable(bench.provider.look(ref));
  }),
  it("a page of HTML is no answer, and the next look is", async (bench) => {
    const order = bench.order({ fault: "get_garbage=1" });
    const ref = bench.ref(order, await bench.submitted(order));
    await unreachable(bench.provider.look(ref));
    assert.equal((await bench.over(ref)).status, "succeeded");
  }),
  unread("a 404 in HTML, of some proxy in between", answer(404, PAGE)),
  unread("JSON of another shape", answer(200, '{"hello":"world"}')),
  unread("an empty answer", answer(200, "", { "content-type": "application/json" })),
  it("a token that is refused meanwhile says nothing about the run", async (bench) => {
    const { ref } = await finished(bench);
    bench.wire.stand(answer(401, bench.refusal(401, `Your token ${bench.token} is not valid.`)));
    const { message } = await unreachable(bench.provider.look(ref));
    assert.match(message, /401/);
  }),
  it("a 429 is told with the patience it asks for, and not asked again at once", async (bench) => {
    const { ref } = await finished(bench);
    bench.wire.stand(answer(429, bench.refusal(429, "Too many requests."), { "retry-after": "7" }));
    bench.wire.clear();
    const error = await unreachable(bench.provider.look(ref));
    assert.equal(error.retryAfterMs, 7_000);
    assert.equal(bench.wire.seen.length, 1);
  }),
  it("an outage is no answer, and the run is found after it", async (bench) => {
    const { ref } = await finished(bench);
    bench.sandbox.faults.add({ fault: "down" });
    await unreachable(bench.provider.look(ref));
    bench.sandbox.faults.clear();
    assert.equal((await bench.provider.look(ref)).status, "succeeded");
  }),
  it("nobody at the provider's address is no answer", async (bench) => {
    const { ref } = await finished(bench);
    await unreachable(bench.make({ baseUrl: bench.at(bench.nobodyUrl) }).look(ref));
  }),
  it("a redirect is not followed, and is no answer", async (bench) => {
    const { ref } = await finished(bench);
    bench.wire.clear();
    bench.wire.stand(answer(302, "", { location: "/elsewhere" }));
    await unreachable(bench.provider.look(ref));
    assert.ok(bench.wire.seen.every(({ path }) => !path.startsWith("/elsewhere")));
  }),
  it("a provider that never answers costs a look its bound and no more", async (bench) => {
    const { ref } = await finished(bench);
    bench.wire.stand(silence);
    const began = performance.now();
    await unreachable(bench.make({ totalMs: 600 }).look(ref));
    const tookMs = performance.now() - began;
    assert.ok(tookMs < 600 + SLACK_MS, `${Math.round(tookMs)} ms with totalMs: 600`);
  }),
  it("an answer of half a gigabyte is not read to its end", async (bench) => {
    const { ref } = await finished(bench);
    const most = 512 * 1024 * 1024;
    const water = flood(most);
    bench.wire.stand(water.stand);
    await unreachable(bench.provider.look(ref));
    assert.ok(water.sent() < most, "it was read to its end");
  }),
];

const stoppable: readonly Case[] = [
  it("a run that has just been accepted is stopped, and has no output", async (bench) => {
    const order = bench.order({ fault: "slow=600" });
    const ref = bench.ref(order, await bench.submitted(order));
    await bench.provider.cancel(ref);
    await stopped(bench, bench.over(ref));
  }),
  it("a run that works is stopped, and asking twice does no harm", async (bench) => {
    const order = bench.order({ fault: "slow=600" });
    const ref = bench.ref(order, await bench.submitted(order));
    await new Promise((resolve) => setTimeout(resolve, 200));
    await bench.provider.cancel(ref);
    await bench.provider.cancel(ref);
    await stopped(bench, bench.over(ref));
  }),
  it("stopping what has ended does no harm, and the end stays", async (bench) => {
    for (const fault of ["fail", undefined]) {
      const { ref, look } = await finished(bench, fault);
      await bench.provider.cancel(ref);
      const after = await bench.provider.look(ref);
      // Some delete with the same word.
      if (after.status !== "gone") assert.deepEqual(after, look);
    }
  }),
  it("stopping what the provider does not know does no harm", async (bench) => {
    for (const id of STRANGE_IDS) await bench.provider.cancel(bench.ref(bench.order(), id));
  }),
  it("a stop that could not be said is told as such", async (bench) => {
    const order = bench.order({ fault: "slow=600" });
    const ref = bench.ref(order, await bench.submitted(order));
    bench.sandbox.faults.add({ fault: "down" });
    await unreachable(bench.provider.cancel(ref));
    bench.sandbox.faults.clear();
    await bench.provider.cancel(ref);
    await stopped(bench, bench.over(ref));
  }),
  it("a stop that is refused for our token is not taken for done", async (bench) => {
    const order = bench.order({ fault: "slow=600" });
    const ref = bench.ref(order, await bench.submitted(order));
    bench.wire.stand(answer(401, bench.refusal(401, "Your token is not valid.")));
    await unreachable(bench.provider.cancel(ref));
  }),
];

/** The provider knows no such word: the run goes on to its end, and is paid for. */
const unstoppable: readonly Case[] = [
  it("a stop of a run that works does no harm, and the run is seen to its end", async (bench) => {
    const order = bench.order({ fault: "slow=1" });
    const ref = bench.ref(order, await bench.submitted(order));
    await bench.provider.cancel(ref);
    assert.equal((await bench.over(ref)).status, "succeeded");
  }),
  it("a stop of what has ended, or is unknown, does no harm and asks nobody", async (bench) => {
    const { ref, look } = await finished(bench);
    bench.wire.clear();
    await bench.provider.cancel(ref);
    for (const id of STRANGE_IDS) await bench.provider.cancel(bench.ref(bench.order(), id));
    assert.deepEqual(bench.wire.seen, []);
    assert.deepEqual(await bench.provider.look(ref), look);
  }),
  it("a stop in an outage asks nobody either", async (bench) => {
    const { ref } = await finished(bench);
    bench.sandbox.faults.add({ fault: "down" });
    await bench.provider.cancel(ref);
  }),
];

const callLooks: readonly Case[] = [
  it("there is nothing to look at after the call: every run is gone, and nobody is asked", async (bench) => {
    for (const id of STRANGE_IDS)
      assert.deepEqual(await bench.provider.look(bench.ref(bench.order(), id)), { status: "gone" }, id);
    assert.deepEqual(bench.wire.seen, []);
  }),
  it("there is nothing to look at even of a run that was bought a moment ago", async (bench) => {
    const order = bench.order();
    const said = await bench.provider.submit(order);
    assert.ok(said.outcome === "completed", print(said));
    assert.deepEqual(await bench.provider.look(bench.ref(order, said.providerRunId)), { status: "gone" });
  }),
  it("there is nothing to stop after the call, whatever became of it: no harm, and nobody is asked", async (bench) => {
    for (const id of STRANGE_IDS) await bench.provider.cancel(bench.ref(bench.order(), id));
    assert.deepEqual(bench.wire.seen, []);
  }),
  it("what was lost is neither looked at nor stopped, and not bought again by asking", async (bench) => {
    const order = bench.order({ fault: "cut" });
    assert.equal((await bench.provider.submit(order)).outcome, "lost");
    await bench.provider.look(bench.ref(order, order.runId));
    await bench.provider.cancel(bench.ref(order, order.runId));
    assert.equal(bench.bought(), 1);
    assert.equal(bench.posts().length, 1);
  }),
  it("an order in an outage and one after it are two orders: nothing of the first is kept", async (bench) => {
    bench.sandbox.faults.add({ fault: "down" });
    await bench.provider.submit(bench.order());
    bench.sandbox.faults.clear();
    const said = await bench.provider.submit(bench.order());
    assert.equal(said.outcome, "completed", print(said));
    assert.equal(bench.bought(), 1);
  }),
  it("ten orders at once are ten calls, ten answers and ten lines on the bill", async (bench) => {
    const said = await Promise.all(Array.from({ length: 10 }, () => bench.provider.submit(bench.order())));
    assert.ok(
      said.every(({ outcome }) => outcome === "completed"),
      print(said.map(({ outcome }) => outcome)),
    );
    assert.equal(bench.bought(), 10);
    assert.equal(bench.posts().length, 10);
  }),
];

async function finished(bench: Bench, fault?: string) {
  const order = bench.order(fault === undefined ? {} : { fault });
  const ref = bench.ref(order, await bench.submitted(order));
  return { ref, look: await bench.over(ref) };
}

/** An answer that says nothing about the run: neither its end, nor that it is gone. */
function unread(what: string, stand: Stand): Case {
  return it(`${what} is no answer`, async (bench) => {
    const { ref } = await finished(bench);
    bench.wire.stand(stand);
    await unreachable(bench.provider.look(ref));
  });
}

async function unreachable(asked: Promise<unknown>): Promise<ProviderUnreachable> {
  const said = await asked.catch((error: unknown) => error);
  assert.ok(
    said instanceof ProviderUnreachable,
    `it was taken for an answer: ${said instanceof Error ? said.stack : print(said)}`,
  );
  return said;
}

/** Canceled, or whatever this provider makes of it; never a success. The bill has it as over. */
async function stopped(bench: Bench, asked: ReturnType<Bench["over"]>): Promise<void> {
  const look = await asked;
  assert.ok(["canceled", "failed", "gone"].includes(look.status), print(look));
  assert.equal(bench.bought(), 1);
}
