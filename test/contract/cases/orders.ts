import assert from "node:assert/strict";
import { print, until } from "../bench.ts";
import { type Cases, it } from "../case.ts";
import { isCreate } from "../wire.ts";

/** What is sent, and how often. */
export const orders: Cases = ({ ends, webhooks }) => [
  it("how long a submit may take is told, and whether webhooks prove themselves", async (bench) => {
    const { submitMs, signsWebhooks } = bench.make();
    const leastMs = ends === "in the call" ? 60_000 : 1_000;
    assert.ok(submitMs >= leastMs && submitMs <= 3_600_000, `${submitMs} ms`);
    assert.equal(signsWebhooks, webhooks === "signed");
  }),

  ends === "later"
    ? it("an order is accepted: the answer names the run, and one run is on the bill", async (bench) => {
        const order = bench.order();
        const answer = await bench.provider.submit(order);
        assert.ok(answer.outcome === "submitted", print(answer));
        assert.match(answer.providerRunId, /^\S{1,200}$/);
        assert.equal(bench.bought(), 1);
        assert.notEqual((await bench.provider.look(bench.ref(order, answer.providerRunId))).status, "gone");
      })
    : it("an order is bought in one call: the answer is the whole run, and one run is on the bill", async (bench) => {
        const answer = await bench.provider.submit(bench.order());
        assert.ok(answer.outcome === "completed", print(answer));
        assert.match(answer.providerRunId, /^\S{1,200}$/);
        assert.equal(answer.end.status, "succeeded", print(answer));
        assert.equal(bench.bought(), 1);
      }),

  it("two orders are two runs, of different ids", async (bench) => {
    const answers = await Promise.all([1, 2].map(() => bench.provider.submit(bench.order())));
    const ids = answers.map((answer) => ("providerRunId" in answer ? answer.providerRunId : print(answer)));
    assert.equal(new Set(ids).size, 2, `the ids were ${ids.join(" and ")}`);
    assert.equal(bench.bought(), 2);
  }),

  it("one submit is one POST, whatever else it asks", async (bench) => {
    await bench.provider.submit(bench.order());
    assert.equal(bench.posts().length, 1, print(bench.posts().map(({ path }) => path)));
  }),

  it("every value of the input reaches the provider as it is", async (bench) => {
    const order = bench.order();
    await bench.provider.submit(order);
    const sent = leavesOf(JSON.parse(bench.posts()[0]?.body ?? "null"));
    for (const value of leavesOf(order.input))
      assert.ok(
        sent.some((it) => isWithin(value, it)),
        `${print(value)} is not in what was sent: ${print(sent)}`,
      );
  }),

  it("quotes, line breaks, emoji and other alphabets in the input arrive as they left", async (bench) => {
    const words = 'a "red" chair\n\tand \\ a 火鉢, ein Stühlchen 🪑 </script> number 0.';
    const order = bench.order({ words });
    await bench.provider.submit(order);
    const sent = leavesOf(JSON.parse(bench.posts()[0]?.body ?? "null"));
    assert.ok(
      sent.some((it) => isWithin(words, it)),
      print(sent),
    );
    assert.equal(bench.bought(), 1);
  }),

  it("an input that cannot be written as JSON is declined, and nothing is sent", async (bench) => {
    const { input } = bench.order();
    const circle: Record<string, unknown> = { ...input };
    circle["circle"] = circle;
    for (const impossible of [circle, { ...input, seed: 7n }]) {
      const answer = await bench.provider.submit(bench.order({ input: impossible }));
      assert.ok(answer.outcome === "declined", print(answer));
      assert.equal(answer.failure.code, "input_refused");
    }
    assert.equal(bench.posts().length, 0);
  }),

  it("an order whose time to be sent has passed is postponed, and nothing is sent", async (bench) => {
    const answer = await bench.provider.submit(bench.order({ sendBefore: new Date(Date.now() - 1) }));
    assert.ok(answer.outcome === "postponed", print(answer));
    assert.ok(answer.retryAfterMs > 0);
    assert.equal(bench.posts().length, 0);
  }),

  it("the token goes in the authorization header, and in nothing else that is sent", async (bench) => {
    await bench.end(bench.order());
    const create = bench.posts()[0];
    assert.ok(create?.headers.authorization?.includes(bench.token), print(create?.headers));
    for (const { method, path, headers, body } of bench.wire.seen) {
      const { authorization: _authorization, ...rest } = headers;
      assert.ok(!print([path, rest, body]).includes(bench.token), `${method} ${path} carries the token elsewhere`);
    }
  }),

  it("every exchange is reported when it is over, without the token", async (bench) => {
    await bench.end(bench.order());
    const reported = bench.calls.map(({ method, url, status }) => `${method} ${new URL(url).pathname} ${status}`);
    const seen = bench.wire.seen.map(({ method, path, status }) => `${method} ${path.split("?")[0]} ${status}`);
    assert.deepEqual(reported.toSorted(), seen.toSorted());
    assert.ok(!JSON.stringify(bench.calls).includes(bench.token));
  }),

  it("a call without an answer is reported too, as what it was", async (bench) => {
    await bench.make({ baseUrl: bench.at(bench.nobodyUrl) }).submit(bench.order());
    assert.ok(
      bench.calls.some(({ sent, status, detail }) => sent === "no" && status === null && detail !== null),
      print(bench.calls),
    );
    bench.wire.stand((seen, response) => isCreate(seen) && Boolean(response.destroy()));
    await bench.provider.submit(bench.order());
    assert.equal(bench.calls.at(-1)?.sent, "unknown", print(bench.calls));
  }),

  webhooks === "none"
    ? it("a webhook address is no reason to refuse an order, and nobody calls it", async (bench) => {
        const order = bench.order();
        await bench.end(order);
        assert.equal(bench.bought(), 1);
        await assert.rejects(until("no webhook", async () => (await bench.letters(order, () => true))[0] ?? null, 200));
      })
    : it("an order without a webhook is bought, too", async (bench) => {
        const order = bench.order({ webhookUrl: null });
        assert.equal((await bench.end(order)).status, "succeeded");
        assert.equal(bench.bought(), 1);
        assert.equal(bench.sandbox.bill().lines[0]?.webhook, null);
      }),
];

function leavesOf(value: unknown): unknown[] {
  if (typeof value !== "object" || value === null) return [value];
  return Object.values(value).flatMap(leavesOf);
}

/** Some providers take the words as a part of a message. */
function isWithin(value: unknown, sent: unknown): boolean {
  return value === sent || (typeof value === "string" && typeof sent === "string" && sent.includes(value));
}
