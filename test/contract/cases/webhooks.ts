import assert from "node:assert/strict";
import { type Delivery, ProviderUnreachable, WebhookRefused } from "../../../src/domain/provider.ts";
import { type Bench, type OrderOptions, print } from "../bench.ts";
import { type Case, type Cases, it } from "../case.ts";
import type { Letter } from "../hook.ts";
import { answer, PAGE } from "../wire.ts";

/** What the provider tells of its runs, and what others say in its name. */
export const webhooks: Cases = ({ webhooks }) =>
  webhooks === "none" ? none : [...told, ...(webhooks === "signed" ? signed : unsigned)];

const told: readonly Case[] = [
  it("a delivery is taken: it names the run, and one of them says that it is over", async (bench) => {
    const { id, letters } = await delivered(bench);
    const taken = await Promise.all(letters.map((letter) => verify(bench, letter)));
    for (const { providerRunId, deliveryId, status } of taken) {
      assert.equal(providerRunId, id);
      assert.match(deliveryId, /\S/);
      assert.match(status, /\S/);
    }
    assert.equal(taken.filter(({ ended }) => ended).length, 1, print(taken));
  }),
  it("a delivery of a failed run says that it is over, too", async (bench) => {
    const { id, letters } = await delivered(bench, { fault: "fail" });
    const taken = await Promise.all(letters.map((letter) => verify(bench, letter)));
    assert.ok(
      taken.some(({ ended, providerRunId }) => ended && providerRunId === id),
      print(taken),
    );
  }),
  it("a delivery that is repeated has the same id again", async (bench) => {
    const { letters } = await delivered(bench, { fault: "webhook_duplicate" }, 2);
    const taken = await Promise.all(letters.map((letter) => verify(bench, letter)));
    const ends = taken.filter(({ ended }) => ended);
    assert.equal(ends.length, 2, print(taken));
    assert.equal(ends[0]?.deliveryId, ends[1]?.deliveryId);
  }),
  it("different events, and different runs, have different ids", async (bench) => {
    const all = [...(await delivered(bench)).letters, ...(await delivered(bench)).letters];
    const ids = await Promise.all(all.map(async (letter) => (await verify(bench, letter)).deliveryId));
    assert.equal(new Set(ids).size, ids.length, print(ids));
  }),
  it("a delivery that is here before the create's answer names the run that the answer then names", async (bench) => {
    const order = bench.order({ fault: "webhook_early" });
    const id = await bench.submitted(order);
    const answeredAt = performance.now();
    const [first] = await bench.letters(order, (letters) => letters.length > 0);
    assert.ok(first !== undefined && first.at < answeredAt, "it was not early");
    assert.equal((await verify(bench, first)).providerRunId, id);
  }),
  it("what a delivery says is not believed: the look asks the provider", async (bench) => {
    const { order, id } = await delivered(bench, { fault: "fail" });
    assert.equal((await bench.provider.look(bench.ref(order, id))).status, "failed");
  }),
  it("a delivery that is no JSON, or names no run, is refused", async (bench) => {
    const { letters } = await delivered(bench);
    for (const body of ["", "{}", "null", '"x"', "[]", PAGE, '{"id":7}', '{"id":"","status":""}'])
      await refused(bench, { headers: letters.at(-1)?.headers ?? {}, body });
  }),
  it("a lost answer's run is named by its webhook", async (bench) => {
    const order = bench.order({ fault: "cut" });
    assert.equal((await bench.provider.submit(order)).outcome, "lost");
    const [first] = await bench.letters(order, (letters) => letters.length > 0);
    assert.equal((await verify(bench, first)).providerRunId, bench.sandbox.bill().lines[0]?.id);
  }),
];

const signed: readonly Case[] = [
  it("a delivery that is signed with another key is forged: refused", async (bench) => {
    const { letters } = await delivered(bench, { fault: "webhook_bad_signature" });
    for (const letter of letters) assert.match(await refused(bench, letter), /forged/i);
  }),
  it("a delivery that was signed an hour ago is stale: refused", async (bench) => {
    const { letters } = await delivered(bench, { fault: "webhook_stale" });
    for (const letter of letters) assert.match(await refused(bench, letter), /stale/i);
  }),
  it("a delivery that is true now is stale in ten minutes, and too early ten minutes ago", async (bench) => {
    const { letters } = await delivered(bench);
    for (const minutes of [10, -10]) {
      const later = bench.make({ clock: () => new Date(Date.now() + minutes * 60_000) });
      await refused(bench, letters[0], later);
    }
  }),
  it("a delivery without a signature is refused, and with an empty one", async (bench) => {
    const { letters } = await delivered(bench);
    const { headers = {}, body = "" } = letters[0] ?? {};
    await refused(bench, { headers: {}, body });
    for (const name of Object.keys(headers).filter((it) => /signature|timestamp|-id$/.test(it))) {
      const { [name]: _gone, ...rest } = headers;
      await refused(bench, { headers: rest, body });
      await refused(bench, { headers: { ...rest, [name]: "" }, body });
      await refused(bench, { headers: { ...rest, [name]: "\u0000 nonsense, v1," }, body });
    }
  }),
  it("a single byte that was changed makes it forged, white space too", async (bench) => {
    const { letters } = await delivered(bench);
    const { headers = {}, body = "" } = letters[0] ?? {};
    for (const changed of [`${body} `, body.replace(/[a-z]/, "Z"), JSON.stringify(JSON.parse(body), null, 1)])
      await refused(bench, { headers, body: changed });
  }),
  it("the signature of one run's delivery is none for another's", async (bench) => {
    const [one, other] = [await delivered(bench), await delivered(bench)];
    await refused(bench, { headers: one.letters[0]?.headers ?? {}, body: other.letters[0]?.body ?? "" });
  }),
  it("while keys are being replaced, one of two signatures is enough", async (bench) => {
    const { id, letters } = await delivered(bench, { fault: "webhook_rotated" });
    for (const letter of letters) assert.equal((await verify(bench, letter)).providerRunId, id);
  }),
  it("a key that is not configured is asked for, or nothing is taken", async (bench) => {
    const { id, letters } = await delivered(bench);
    const taken = await bench
      .make({}, "unconfigured")
      .verifyWebhook(letters[0]?.headers ?? {}, letters[0]?.body ?? "")
      .catch((error) => {
        assert.ok(error instanceof WebhookRefused, String(error));
        return null;
      });
    if (taken !== null) assert.equal(taken.providerRunId, id);
  }),
  it("a key that cannot be asked for in an outage takes nothing, and says so", async (bench) => {
    const { letters } = await delivered(bench);
    bench.wire.stand(answer(503, PAGE));
    const said = await bench
      .make({}, "unconfigured")
      .verifyWebhook(letters[0]?.headers ?? {}, letters[0]?.body ?? "")
      .catch((error: unknown) => error);
    assert.ok(said instanceof WebhookRefused || said instanceof ProviderUnreachable, print(said));
  }),
];

/** The address holds the run's secret; what comes there is a hint that somebody should look. */
const unsigned: readonly Case[] = [
  it("a delivery that anybody could have written names a run, and changes nothing about it", async (bench) => {
    const { letters } = await delivered(bench);
    const running = bench.order({ fault: "slow=600" });
    const id = await bench.submitted(running);
    const done = JSON.parse(letters.at(-1)?.body ?? "{}");
    const forged = JSON.stringify({ ...done, id });
    const { providerRunId } = await verify(bench, { headers: letters.at(-1)?.headers ?? {}, body: forged });
    assert.equal(providerRunId, id);
    assert.equal((await bench.provider.look(bench.ref(running, id))).status, "running");
    await bench.provider.cancel(bench.ref(running, id));
  }),
  it("the id of a delivery is made of what it says, whatever its headers are", async (bench) => {
    const { letters } = await delivered(bench);
    const { headers = {}, body = "" } = letters.at(-1) ?? {};
    const one = await verify(bench, { headers, body });
    const other = await verify(bench, { headers: { ...headers, "x-request-id": "another" }, body });
    assert.equal(one.deliveryId, other.deliveryId);
  }),
  it("a delivery whose run id is endless, or no text, is refused", async (bench) => {
    const { letters } = await delivered(bench);
    const { headers = {}, body = "{}" } = letters.at(-1) ?? {};
    for (const id of ["x".repeat(10_000), 7, null, { id: "a" }])
      await refused(bench, { headers, body: JSON.stringify({ ...JSON.parse(body), id }) });
  }),
];

const LETTERS: readonly { readonly what: string; readonly headers: Letter["headers"]; readonly body: string }[] = [
  { what: "an empty delivery", headers: {}, body: "" },
  { what: "a delivery that names a run and its success", headers: {}, body: '{"id":"p1","status":"succeeded"}' },
  {
    what: "a delivery with somebody's signature",
    headers: {
      "webhook-id": "msg_local_0001",
      "webhook-timestamp": "1763683200",
      "webhook-signature": "v1,QZf1dOHTird2UY7mMqiTCSgsrPK0vOM6x+N7aJlNFdM=",
    },
    body: '{"id":"p1","status":"succeeded"}',
  },
];

const none: readonly Case[] = LETTERS.map(({ what, ...letter }) =>
  it(`${what} is refused: this provider sends none`, async (bench) => {
    await refused(bench, letter);
    assert.deepEqual(bench.wire.seen, []);
  }),
);

/** Orders a run and waits for what is told of it, up to its end. */
async function delivered(bench: Bench, options: OrderOptions = {}, times = 1) {
  const order = bench.order(options);
  const id = await bench.submitted(order);
  await bench.over(bench.ref(order, id));
  const [line] = bench.sandbox.bill().lines.filter((it) => it.id === id);
  assert.ok(line !== undefined, `the bill knows no run ${id}`);
  let count = 0;
  let since = performance.now();
  // The end is the last thing that is told, `times` times; then it is quiet.
  const letters = await bench.letters(order, (arrived) => {
    if (arrived.length !== count) since = performance.now();
    count = arrived.length;
    return count >= times && performance.now() - since > 150;
  });
  return { order, id, letters };
}

function verify(bench: Bench, letter: Omit<Letter, "at"> | undefined): Promise<Delivery> {
  assert.ok(letter !== undefined, "nothing was delivered");
  return bench.provider.verifyWebhook(letter.headers, letter.body);
}

async function refused(bench: Bench, letter: Omit<Letter, "at"> | undefined, by = bench.provider): Promise<string> {
  assert.ok(letter !== undefined, "nothing was delivered");
  const said = await by.verifyWebhook(letter.headers, letter.body).catch((error: unknown) => error);
  assert.ok(said instanceof WebhookRefused, `it was taken: ${said instanceof Error ? said.stack : print(said)}`);
  return said.message;
}
