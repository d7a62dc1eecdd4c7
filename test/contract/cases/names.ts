import assert from "node:assert/strict";
import { type OfferedFile, OfferRefused, ProviderUnreachable } from "../../../src/domain/provider.ts";
import { type Bench, print } from "../bench.ts";
import { type Cases, it } from "../case.ts";
import { answer, PAGE } from "../wire.ts";

/** Models, files and destinations: everything before an order. None of it buys anything. */
export const names: Cases = ({ tellsLoad }) => [
  it("the model of the sample is known", async (bench) => {
    const said = await bench.make().resolve(bench.sample.model);
    assert.ok(said.outcome === "resolved", print(said));
    assert.ok(said.version === null || /\S/.test(said.version));
    assert.equal(bench.bought(), 0);
  }),
  it("a model's name is asked for once, and remembered", async (bench) => {
    const provider = bench.make();
    const first = await provider.resolve(bench.sample.model);
    bench.wire.clear();
    assert.deepEqual(await provider.resolve(bench.sample.model), first);
    assert.deepEqual(bench.wire.seen, []);
  }),
  it("who wants it fresh gets it again, and not by buying", async (bench) => {
    const provider = bench.make();
    const first = await provider.resolve(bench.sample.model);
    assert.deepEqual(await provider.resolve(bench.sample.model, { fresh: true }), first);
    assert.equal(bench.bought(), 0);
  }),
  it("a model that is not there is declined, at once or at the latest when it is ordered", async (bench) => {
    const model = bench.unknownModel;
    const said = await bench.provider.resolve(model);
    const last =
      said.outcome === "resolved" ? await bench.provider.submit(bench.order({ model, version: null })) : said;
    assert.ok(last.outcome === "declined", print(last));
    assert.equal(last.failure.code, "model_not_found", print(last));
    assert.equal(bench.bought(), 0);
  }),
  it("a name that leads out of the provider's paths is declined, and not asked for", async (bench) => {
    for (const model of [
      "../../account",
      "a/../../b",
      "",
      "a b/c",
      "https://evil.example.test/x",
      "a/b?c=d",
      "a/b#c",
    ]) {
      const said = await bench.provider.resolve(model);
      assert.ok(said.outcome === "declined", `"${model}": ${print(said)}`);
    }
    for (const { path } of bench.wire.seen) assert.ok(!/\.\.|evil|c=d/.test(path), path);
  }),
  it("in an outage a model is postponed, or known without asking", async (bench) => {
    const provider = bench.make();
    bench.sandbox.faults.add({ fault: "down" });
    const said = await provider.resolve(bench.sample.model);
    if (said.outcome === "resolved") return assert.deepEqual(bench.wire.seen, []);
    assert.ok(said.outcome === "postponed", print(said));
    assert.equal(said.failure.code, "provider_unavailable");
    assert.ok(said.retryAfterMs > 0);
    bench.sandbox.faults.clear();
    assert.equal((await provider.resolve(bench.sample.model)).outcome, "resolved");
  }),
  it("a throttled lookup is asked again later, and is no outage", async (bench) => {
    const provider = bench.make();
    bench.wire.stand(answer(429, bench.refusal(429, "Too many requests."), { "retry-after": "7" }));
    for (const lookUp of [
      () => provider.resolve(bench.sample.model),
      () => provider.destination("lora-of-the-contract"),
    ]) {
      bench.wire.clear();
      const said = await lookUp();
      // Known without asking, or nothing is trained there.
      if (bench.wire.seen.length === 0) continue;
      assert.ok(said.outcome === "postponed", print(said));
      assert.equal(said.failure.code, "rate_limited");
      assert.equal(said.retryAfterMs, 7_000);
    }
    const offered = await stranger(bench)
      .offer(file({ url: "http://127.0.0.1:9/a.png" }))
      .catch((error: unknown) => error);
    if (offered instanceof ProviderUnreachable) assert.ok(offered.throttled, String(offered));
    bench.wire.calm();
    assert.equal((await provider.resolve(bench.sample.model)).outcome, "resolved");
  }),
  it("a token that is refused when a model is asked for is told as that, or the model is known without asking", async (bench) => {
    bench.wire.stand(answer(401, bench.refusal(401, "Your token is not valid.")));
    const said = await bench.make().resolve(bench.sample.model);
    if (said.outcome === "resolved") return assert.deepEqual(bench.wire.seen, []);
    assert.ok(said.outcome === "declined", print(said));
    assert.equal(said.failure.code, "provider_auth");
  }),
  it("a page of HTML about a model is not taken for its absence", async (bench) => {
    for (const status of [200, 404]) {
      const provider = bench.make();
      bench.wire.stand(answer(status, PAGE));
      const said = await provider.resolve(bench.sample.model);
      assert.ok(said.outcome === "postponed" || bench.wire.seen.length === 0, `${status}: ${print(said)}`);
    }
  }),
  ...(tellsLoad
    ? [
        it("how busy a model is comes in counts, and in an outage not at all", async (bench) => {
          const { load } = bench.provider;
          assert.ok(load);
          const { queued, running, workers } = await load(bench.sample.model);
          for (const count of [queued, running, ...Object.values(workers)])
            assert.ok(Number.isSafeInteger(count) && count >= 0, print({ queued, running, workers }));
          bench.sandbox.faults.add({ fault: "down" });
          await assert.rejects(load(bench.sample.model), ProviderUnreachable);
        }),
      ]
    : []),
  it("a destination is there for a training, again under the same name; or it is declined in words", async (bench) => {
    const said = await bench.provider.destination("lora-of-the-contract");
    if (said.outcome === "declined") {
      assert.match(said.failure.detail, /train/i);
      return assert.deepEqual(bench.wire.seen, []);
    }
    assert.ok(said.outcome === "destination", print(said));
    assert.match(said.model, /lora-of-the-contract$/);
    assert.deepEqual(await bench.provider.destination("lora-of-the-contract"), said);
    assert.equal(bench.bought(), 0);
  }),
  it("an order to train what cannot be trained is declined, and nothing is bought", async (bench) => {
    const said = await bench.provider.submit(bench.order({ destination: "acme/lora-of-the-contract" }));
    assert.ok(said.outcome === "declined", print(said));
    assert.match(said.failure.detail, /train/i);
    assert.equal(bench.bought(), 0);
  }),

  it("a file under https is offered as it is, unread", async (bench) => {
    const url = "https://files.example.test/a.png?signature=x";
    assert.equal(await bench.provider.offer(file({ url, isReadable: false })), url);
    assert.equal(await stranger(bench).offer(file({ url, isReadable: false })), url);
    assert.deepEqual(bench.wire.seen, []);
  }),
  it("the sandbox, on this machine, gets files of this machine as they are", async (bench) => {
    const url = "http://127.0.0.1:9/a.png";
    assert.equal(await bench.provider.offer(file({ url, isReadable: false })), url);
    assert.deepEqual(bench.wire.seen, []);
  }),
  it("a file that the provider cannot reach is brought to it, or refused with what to do", async (bench) => {
    const url = "http://127.0.0.1:9/a.png";
    const said = await stranger(bench)
      .offer(file({ url }))
      .catch((error: unknown) => error);
    if (said instanceof Error) return assert.match(said.message, /store|reach|https|S3|upload/i);
    assert.ok(typeof said === "string" && said !== url, print(said));
    assert.match(said, /^(https?:|data:image\/png;base64,)/);
  }),
  it("a file that is too large to be brought there is refused with what to do, unread", async (bench) => {
    const said = await stranger(bench)
      .offer(file({ url: "http://127.0.0.1:9/a.png", bytes: 6 * 1024 ** 3, isReadable: false }))
      .catch((error: unknown) => error);
    assert.ok(said instanceof OfferRefused, print(said));
    assert.match(said.message, /store|reach|https|S3|large/i);
    assert.doesNotMatch(said.message, /was read/);
  }),
  it("a file that could not be brought there is not offered by an address that nobody can reach", async (bench) => {
    const url = "http://127.0.0.1:9/a.png";
    bench.wire.stand(answer(503, PAGE));
    const said = await stranger(bench)
      .offer(file({ url }))
      .catch((error: unknown) => error);
    assert.ok(said instanceof Error || (typeof said === "string" && said.startsWith("data:")), print(said));
  }),
];

/** The adapter at an address that is not this machine's own, as far as it can tell. */
function stranger(bench: Bench) {
  return bench.make({ baseUrl: bench.at(bench.wire.strangerUrl) });
}

const PIXEL = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);

function file(it: { readonly url: string; readonly bytes?: number; readonly isReadable?: boolean }): OfferedFile {
  return {
    url: it.url,
    filename: "a.png",
    contentType: "image/png",
    bytes: it.bytes ?? PIXEL.length,
    async read() {
      if (it.isReadable === false) throw new Error("the file was read for nothing");
      return PIXEL;
    },
  };
}
