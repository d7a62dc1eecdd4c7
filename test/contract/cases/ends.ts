import assert from "node:assert/strict";
import { FAILURES } from "../../../src/domain/failure.ts";
import { type Look, ProviderUnreachable } from "../../../src/domain/provider.ts";
import { type Bench, print, until } from "../bench.ts";
import { type Cases, it } from "../case.ts";

/** Each way in which a run can end, and what is in its end. */
export const ends: Cases = ({ ends, stops }) => [
  it("a run that succeeds has its outputs, and each of them is there", async (bench) => {
    const look = await bench.end(bench.order());
    assert.ok(look.status === "succeeded", print(look));
    assert.ok(look.outputs.length > 0);
    for (const url of look.outputs) {
      assert.match(url, /^(https?:|data:)/);
      const reply = await fetch(url);
      assert.equal(reply.status, 200);
      assert.ok((await reply.arrayBuffer()).byteLength > 100, `${url.slice(0, 100)} is empty`);
    }
    assert.equal(look.trainedVersion, null);
  }),

  it("what a run took is told in seconds and micro-dollars, or not at all", async (bench) => {
    const look = await bench.end(bench.order());
    assert.ok(look.status === "succeeded", print(look));
    assert.ok(look.seconds === null || (look.seconds >= 0 && look.seconds < 600), `${look.seconds} s`);
    assert.ok(look.costMicroUsd === null || Number.isSafeInteger(look.costMicroUsd), `${look.costMicroUsd} µ$`);
  }),

  it("a run that fails is failed, in the provider's own words", async (bench) => {
    const { code, detail } = failureOf(await bench.end(bench.order({ fault: "fail" })));
    assert.ok(["provider_failed", "interrupted"].includes(code), code);
    assert.match(detail, /\w{4}/);
  }),

  it("a run that ran out of memory is failed, and not for buying again", async (bench) => {
    const { code, detail } = failureOf(await bench.end(bench.order({ fault: "oom" })));
    assert.equal(FAILURES[code].retryable, false, `${code}: ${detail}`);
    assert.match(detail, /memory/i);
  }),

  it("a run that the safety filter held back is refused content, not a fault of the model", async (bench) => {
    const { code, detail } = failureOf(await bench.end(bench.order({ fault: "nsfw" })));
    assert.equal(code, "content_refused", detail);
  }),

  it("a run that the provider broke off is failed, and its words are kept", async (bench) => {
    const { code, detail } = failureOf(await bench.end(bench.order({ fault: "interrupted" })));
    assert.ok(!["content_refused", "input_refused", "model_not_found", "provider_auth"].includes(code), code);
    assert.match(detail, /\w{4}/);
  }),

  it("a run that ended before it began is over, and has no output", async (bench) => {
    const look = await bench.end(bench.order({ fault: "aborted" }));
    assert.ok(["failed", "canceled", "gone"].includes(look.status), print(look));
  }),

  it("an output that is empty is a failure, never a success", async (bench) => {
    bench.wire.change((bytes) => replaced(bytes, () => undefined));
    const end = await endOrNothing(bench);
    if (end === null) return;
    const codes = ["provider_failed", "output_unavailable", "output_invalid", "content_refused"];
    assert.ok(end.status === "failed" && codes.includes(end.failure.code), print(end));
  }),

  it("an output of a shape that nobody knows is no success either", async (bench) => {
    bench.wire.change((bytes) => replaced(bytes, () => 7));
    const end = await endOrNothing(bench);
    assert.ok(end === null || end.status === "failed", print(end));
  }),

  it("fields that nobody knows do no harm", async (bench) => {
    bench.wire.change((bytes) => {
      const body = parsed(bytes);
      const isObject = typeof body === "object" && body !== null && !Array.isArray(body);
      return isObject
        ? Buffer.from(JSON.stringify({ x_new: { deep: [null, { a: 1 }] }, ...body, x_last: null }))
        : bytes;
    });
    const look = await bench.end(bench.order());
    assert.equal(look.status, "succeeded", print(look));
  }),

  it("words with U+0000, half a surrogate pair and other alphabets can be kept", async (bench) => {
    let changed = 0;
    bench.wire.change((bytes) => {
      const body = parsed(bytes);
      if (body === undefined) return bytes;
      const text = JSON.stringify(body, (key, value: unknown) => {
        if (typeof value !== "string" || !/CUDA/.test(value) || key === "prompt") return value;
        changed += 1;
        return `\u0000 火鉢 \ud83d ${value} \udc00 é`;
      });
      return Buffer.from(text);
    });
    const { detail } = failureOf(await bench.end(bench.order({ fault: "fail" })));
    assert.ok(changed > 0, "the provider's words for a failure did not pass by");
    assert.ok(!detail.includes("\u0000") && detail.isWellFormed(), JSON.stringify(detail));
    assert.match(detail, /火鉢/);
  }),

  it("a failure's words are kept to 2,000 characters", async (bench) => {
    bench.wire.change((bytes) =>
      Buffer.from(bytes.toString("utf8").replaceAll("CUDA", `${"CUDA ".repeat(2_000)}CUDA`)),
    );
    const { detail } = failureOf(await bench.end(bench.order({ fault: "fail" })));
    assert.ok(detail.length <= 2_000, `${detail.length} characters`);
  }),

  ...(ends === "later"
    ? [
        it("a run that works is running, and its progress, where it is told, grows from 0 to 1", async (bench: Bench) => {
          const order = bench.order({ fault: "slow=1" });
          const ref = bench.ref(order, await bench.submitted(order));
          const heard: (number | null)[] = [];
          await until("the end of a run of a second", async () => {
            const look = await bench.provider.look(ref);
            if (look.status === "running") heard.push(look.progress);
            return look.status === "running" ? null : look;
          });
          const told = heard.filter((it) => it !== null);
          assert.ok(heard.length > 1, "it was never seen running");
          assert.ok(
            told.every((it) => it >= 0 && it <= 1),
            print(told),
          );
          assert.deepEqual(
            told,
            told.toSorted((a, b) => a - b),
          );
        }),

        it("a status that nobody knows is a run that goes on, and is told as strange", async (bench: Bench) => {
          const order = bench.order();
          const ref = bench.ref(order, await bench.submitted(order));
          await bench.over(ref);
          bench.wire.change((bytes) =>
            Buffer.from(bytes.toString("utf8").replace(/"status":\s*"\w+"/g, '"status":"pondering"')),
          );
          assert.equal((await bench.provider.look(ref)).status, "running");
          assert.ok(
            bench.strange.some((what) => what.includes("pondering")),
            print(bench.strange),
          );
        }),

        stops
          ? it("a run past its time is stopped by the provider, or can be stopped by us", async (bench: Bench) => {
              const order = bench.order({ fault: "slow=600", cancelAfterSeconds: 5 });
              const ref = bench.ref(order, await bench.submitted(order));
              await new Promise((resolve) => setTimeout(resolve, 5_300));
              const late = await bench.provider.look(ref);
              if (late.status === "running") await bench.provider.cancel(ref);
              const look = late.status === "running" ? await bench.over(ref) : late;
              if (late.status === "running")
                assert.ok(["canceled", "failed", "gone"].includes(look.status), print(look));
              else assert.ok(["timeout", "aborted"].includes(failureOf(look).code), print(look));
            })
          : it("a run past its time cannot be stopped, and is seen to its end", async (bench: Bench) => {
              const order = bench.order({ fault: "slow=2", cancelAfterSeconds: 1 });
              const ref = bench.ref(order, await bench.submitted(order));
              await bench.provider.cancel(ref);
              assert.ok(["succeeded", "failed"].includes((await bench.over(ref)).status));
            }),

        it("a look at a run does not fetch its output, however huge that is", async (bench: Bench) => {
          const look = await bench.end(bench.order({ fault: "output_huge=300" }));
          assert.equal(look.status, "succeeded", print(look));
          assert.deepEqual(
            bench.wire.seen.filter(({ path }) => path.startsWith("/delivery/")),
            [],
          );
        }),

        it("an end stays as it is, however often it is asked for", async (bench: Bench) => {
          for (const fault of ["fail", undefined]) {
            const order = bench.order(fault === undefined ? {} : { fault });
            const ref = bench.ref(order, await bench.submitted(order));
            const first = await bench.over(ref);
            for (let i = 0; i < 3; i += 1) assert.deepEqual(await bench.provider.look(ref), first);
          }
        }),
      ]
    : [
        it("a run that takes longer than the call may is lost, and is on the bill once", async (bench: Bench) => {
          const answer = await bench.provider.submit(bench.order({ fault: "slow=3", cancelAfterSeconds: 0.5 }));
          assert.equal(answer.outcome, "lost", print(answer));
          assert.equal(bench.bought(), 1);
        }),

        it("the call's own name is kept as the run's, and no two are equal", async (bench: Bench) => {
          const ids = new Set<string>();
          for (let i = 0; i < 3; i += 1) {
            const answer = await bench.provider.submit(bench.order());
            assert.ok(answer.outcome === "completed", print(answer));
            ids.add(answer.providerRunId);
          }
          assert.equal(ids.size, 3);
        }),
      ]),
];

/** Null: there was no usable answer, of an order that was bought all the same. */
async function endOrNothing(bench: Bench): Promise<Look | null> {
  const order = bench.order();
  const said = await bench.provider.submit(order);
  assert.equal(bench.bought(), 1);
  if (said.outcome === "lost") return null;
  if (said.outcome === "completed") return said.end;
  assert.ok(said.outcome === "submitted", print(said));
  return await bench.over(bench.ref(order, said.providerRunId)).catch((error: unknown) => {
    assert.ok(error instanceof ProviderUnreachable, String(error));
    return null;
  });
}

function failureOf(look: Look) {
  assert.ok(look.status === "failed", `it did not fail: ${print(look)}`);
  return look.failure;
}

function parsed(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return undefined;
  }
}

/**
 * The answer with something else in place of each output: of the URLs of the sandbox's files, of inline pictures, and of
 * bytes that are one. `undefined` leaves nothing there.
 */
function replaced(bytes: Buffer, by: () => unknown): Buffer {
  const body = parsed(bytes);
  if (body === undefined) {
    // A picture is not text; a page of HTML is none of our business.
    return bytes.includes(0) ? Buffer.from(by() === undefined ? "" : JSON.stringify(by())) : bytes;
  }
  const isOutput = (value: unknown) =>
    typeof value === "string" && (/\/delivery\//.test(value) || /^data:/.test(value) || /^[\w+/=]{2000,}$/.test(value));
  const change = (value: unknown): unknown => {
    if (isOutput(value)) return isText(value) ? "" : by();
    if (Array.isArray(value)) return value.map(change).filter((it) => it !== undefined);
    if (typeof value !== "object" || value === null) return value;
    const entries = Object.entries(value).map(([key, it]) => [key, change(it)] as const);
    return Object.fromEntries(entries.filter(([, it]) => it !== undefined));
  };
  return Buffer.from(JSON.stringify(change(body)));
}

/** Words with URLs in them, as of a chat: what remains without them is words. */
function isText(value: unknown): boolean {
  return typeof value === "string" && /\s/.test(value);
}
