import assert from "node:assert/strict";
import { type Bench, print, until } from "../bench.ts";
import { type Case, type Cases, it } from "../case.ts";
import { answer, PAGE } from "../wire.ts";

const notTaken = async () => false;

/** What became of an order whose answer was lost. */
export const finds: Cases = ({ lists }) => (lists ? [...listed, alike] : unlistable);

const listed: readonly Case[] = [
  ...["cut", "cut_half", "server_error_after_accept", "garbage_after_accept"].map((fault) =>
    it(`an order that was accepted, and lost by ${fault}, is found in the list: that very run`, async (bench) => {
      const { order, sentAt, id } = await lose(bench, fault);
      assert.deepEqual(await bench.provider.find(order, sentAt, notTaken), { outcome: "found", providerRunId: id });
    }),
  ),
  it("an order that was never accepted is absent", async (bench) => {
    const { order, sentAt } = await lose(bench, "refuse_before");
    assert.deepEqual(await bench.provider.find(order, sentAt, notTaken), { outcome: "absent" });
  }),
  it("an equal order that another run of ours stands for is passed over", async (bench) => {
    const words = "two chairs that are alike, number 0.";
    const first = await lose(bench, "cut", { words, webhookUrl: null });
    const second = await lose(bench, "cut", { words, webhookUrl: null });
    assert.notEqual(first.id, second.id);
    const found = await bench.provider.find(second.order, first.sentAt, async (id) => id === first.id);
    assert.deepEqual(found, { outcome: "found", providerRunId: second.id });
    const none = await bench.provider.find(second.order, first.sentAt, async () => true);
    assert.notEqual(none.outcome, "found", print(none));
  }),
  it("a run of somebody else, with another input, is not taken for ours", async (bench) => {
    await bench.submitted(bench.order({ webhookUrl: null }));
    const { order, sentAt } = await lose(bench, "refuse_before", { webhookUrl: null });
    const found = await bench.provider.find(order, sentAt, notTaken);
    assert.notEqual(found.outcome, "found", print(found));
  }),
  it("an equal order that another run of ours stands for is not taken for one that was never accepted", async (bench) => {
    const words = "a chair that another one wants as well, number 0.";
    const theirs = await bench.submitted(bench.order({ words }));
    const { order, sentAt } = await lose(bench, "refuse_before", { words });
    const found = await bench.provider.find(order, sentAt, async (id) => id === theirs);
    assert.notEqual(found.outcome, "found", print(found));
  }),
  it("a run that the list does not show yet is absent now, and found when it does", async (bench) => {
    const { order, sentAt, id } = await lose(bench, "cut, list_lag=600");
    const early = await bench.provider.find(order, sentAt, notTaken);
    assert.ok(["absent", "unread"].includes(early.outcome), print(early));
    const found = await until("the list to show it", async () => {
      const now = await bench.provider.find(order, sentAt, notTaken);
      return now.outcome === "found" ? now : null;
    });
    assert.equal(found.providerRunId, id);
  }),
  it("a list that could not be read says nothing: unread, never absent", async (bench) => {
    const { order, sentAt } = await lose(bench, "cut");
    bench.sandbox.faults.add({ fault: "down" });
    assert.deepEqual(await bench.provider.find(order, sentAt, notTaken), { outcome: "unread" });
    bench.sandbox.faults.clear();
    for (const body of [PAGE, "{}", "", '{"results":', "null"]) {
      bench.wire.stand(answer(200, body));
      assert.deepEqual(await bench.provider.find(order, sentAt, notTaken), { outcome: "unread" }, body);
    }
  }),
  it("looking for an order buys nothing", async (bench) => {
    const { order, sentAt } = await lose(bench, "cut");
    for (let i = 0; i < 3; i += 1) await bench.provider.find(order, sentAt, notTaken);
    assert.equal(bench.bought(), 1);
  }),
];

const alike = it("of two equal orders that were lost, each finds one of them", async (bench) => {
  const words = "a chair that is wanted twice, number 0.";
  const first = await lose(bench, "cut", { words, webhookUrl: null });
  const second = await lose(bench, "cut", { words, webhookUrl: null });
  const taken = new Set<string>();
  for (const { order } of [first, second]) {
    const found = await bench.provider.find(order, first.sentAt, async (id) => taken.has(id));
    assert.ok(found.outcome === "found", print(found));
    taken.add(found.providerRunId);
  }
  assert.equal(taken.size, 2);
});

const unlistable: readonly Case[] = [
  ...["cut", "garbage_after_accept", "refuse_before", "server_error"].map((fault) =>
    it(`an order that was lost by ${fault} cannot be looked for: unlistable, never "absent"`, async (bench) => {
      const order = bench.order({ fault });
      const sentAt = new Date();
      assert.equal((await bench.provider.submit(order)).outcome, "lost");
      const before = bench.bought();
      assert.deepEqual(await bench.provider.find(order, sentAt, notTaken), { outcome: "unlistable" });
      assert.equal(bench.bought(), before);
    }),
  ),
  it("nor in an outage, nor without a webhook: unlistable, and whoever is taken is not asked for", async (bench) => {
    bench.sandbox.faults.add({ fault: "down" });
    for (const webhookUrl of [null, "https://app.example.test/hooks/contract/x/y"]) {
      const found = await bench.provider.find(bench.order({ webhookUrl }), new Date(), () => {
        throw new Error("nobody was found who could be taken");
      });
      assert.deepEqual(found, { outcome: "unlistable" });
    }
  }),
];

async function lose(bench: Bench, fault: string, rest: Parameters<Bench["order"]>[0] = {}) {
  // Equal orders differ in nothing that travels; the fault is a rule of the sandbox then, and strikes once.
  const isAlike = rest.words !== undefined;
  const order = bench.order(isAlike ? rest : { ...rest, fault });
  if (isAlike) bench.sandbox.faults.add({ fault, times: 1 });
  const known = new Set(bench.sandbox.bill().lines.map(({ id }) => id));
  const sentAt = new Date();
  const said = await bench.provider.submit(order);
  assert.equal(said.outcome, "lost", print(said));
  const line = bench.sandbox.bill().lines.find(({ id }) => !known.has(id));
  return { order, sentAt, id: line?.id ?? "none was bought" };
}
