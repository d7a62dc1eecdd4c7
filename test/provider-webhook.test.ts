import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Webhook } from "standardwebhooks";
import { afterEach, describe, expect, test } from "vitest";
import { WebhookRefused } from "../src/domain/provider.ts";
import { makeReplicate } from "../src/providers/replicate.ts";

// providers.md section 10: computed elsewhere, on which npm's standardwebhooks and replicate agree.
const SECRET = "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcY";
const OTHER = "whsec_GBcWFRQTEhEQDw4NDAsKCQgHBgUEAwIB";
const BODY = '{"id":"p1","status":"succeeded"}';
const SIGNED_AT = 1_763_683_200;
const HEADERS = {
  "webhook-id": "msg_local_0001",
  "webhook-timestamp": String(SIGNED_AT),
  "webhook-signature": "v1,QZf1dOHTird2UY7mMqiTCSgsrPK0vOM6x+N7aJlNFdM=",
};

const at = (seconds: number) => () => new Date((SIGNED_AT + seconds) * 1_000);
const receiver = (webhookSecret: string | readonly string[] = SECRET, clock = at(1)) =>
  makeReplicate({ name: "replicate", token: "r8_t", baseUrl: "http://127.0.0.1:9/v1", webhookSecret, clock });
const sign = (body: string, secret = SECRET) => ({
  ...HEADERS,
  "webhook-signature": new Webhook(secret).sign("msg_local_0001", new Date(SIGNED_AT * 1_000), body),
});

describe("a delivery is taken", () => {
  test("when the published vector signs it", async () => {
    expect(await receiver().verifyWebhook(HEADERS, BODY)).toEqual({
      deliveryId: "msg_local_0001",
      ended: true,
      providerRunId: "p1",
      status: "succeeded",
    });
  });

  test("when one of several signatures fits, whatever the others are", async () => {
    const signature = `v1a,AAAA v1,AAAA ${HEADERS["webhook-signature"]} v9,zzz`;
    const delivery = await receiver().verifyWebhook({ ...HEADERS, "webhook-signature": signature }, BODY);
    expect(delivery.providerRunId).toBe("p1");
  });

  test("under the old and the new secret while one replaces the other", async () => {
    const both = receiver([OTHER, SECRET]);
    expect(await both.verifyWebhook(sign(BODY, SECRET), BODY)).toBeDefined();
    expect(await both.verifyWebhook(sign(BODY, OTHER), BODY)).toBeDefined();
  });

  test("byte by byte: odd white space, escapes and order are part of what was signed", async () => {
    const odd = '{\n  "status" : "failed",\t"error":"\\u00e9 é",  "id":"p2" }\n';
    expect(await receiver().verifyWebhook(sign(odd), odd)).toMatchObject({ providerRunId: "p2", status: "failed" });
    const printedAgain = JSON.stringify(JSON.parse(odd));
    await expect(receiver().verifyWebhook(sign(odd), printedAgain)).rejects.toThrow(WebhookRefused);
  });

  test.each([-300, 0, 300])("%i s from its signature", async (seconds) => {
    expect(await receiver(SECRET, at(seconds)).verifyWebhook(HEADERS, BODY)).toBeDefined();
  });
});

describe("a delivery is refused, and why is said", () => {
  test.each([
    ["it is older than five minutes", 301, /stale: signed 301 s in the past.*NTP/],
    ["it is from the future", -301, /stale: signed 301 s in the future/],
  ])("when %s", async (_name, seconds, why) => {
    await expect(receiver(SECRET, at(seconds)).verifyWebhook(HEADERS, BODY)).rejects.toThrow(why);
  });

  test.each<[string, Record<string, string | undefined>, string]>([
    ["its body was changed", HEADERS, BODY.replace("p1", "p9")],
    ["its id was changed", { ...HEADERS, "webhook-id": "msg_local_0002" }, BODY],
    ["its time was changed", { ...HEADERS, "webhook-timestamp": String(SIGNED_AT + 1) }, BODY],
    ["its signature is of another version", { ...HEADERS, "webhook-signature": "v2,QZf1dOHT" }, BODY],
    ["its signature is cut short", { ...HEADERS, "webhook-signature": "v1,QZf1dOHTird2" }, BODY],
    ["its signature is empty", { ...HEADERS, "webhook-signature": "v1," }, BODY],
  ])("when %s", async (_name, headers, body) => {
    await expect(receiver().verifyWebhook(headers, body)).rejects.toThrow(/^forged: .*secret/);
  });

  test("when it is signed with another account's secret", async () => {
    await expect(receiver().verifyWebhook(sign(BODY, OTHER), BODY)).rejects.toThrow(/^forged/);
  });

  test.each(["webhook-id", "webhook-timestamp", "webhook-signature"])("when %s is missing", async (name) => {
    await expect(receiver().verifyWebhook({ ...HEADERS, [name]: undefined }, BODY)).rejects.toThrow(
      /^unsigned: .*proxy/,
    );
  });

  test("when its time is not a number of seconds", async () => {
    const headers = { ...HEADERS, "webhook-timestamp": "2025-11-21T00:00:00Z" };
    await expect(receiver().verifyWebhook(headers, BODY)).rejects.toThrow(/^unsigned/);
  });

  test.each(["not json", "[]", '{"id":"p1"}', '{"id":"","status":"failed"}'])(
    "when it is signed but says nothing usable: %s",
    async (body) => {
      await expect(receiver().verifyWebhook(sign(body), body)).rejects.toThrow(/^malformed/);
    },
  );

  test("and a secret without a key is refused at the start, for anybody could sign with it", () => {
    expect(() => receiver("whsec_")).toThrow(/16 bytes/);
  });
});

describe("the account's secret", () => {
  let server: Server;
  afterEach(() => void server.close());

  async function account(...keys: (string | null)[]) {
    let asked = 0;
    server = createServer((request, response) => {
      expect(request.url).toBe("/v1/webhooks/default/secret");
      const key = keys[Math.min(asked++, keys.length - 1)];
      response.writeHead(key === null ? 403 : 200).end(JSON.stringify({ key }));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const now = { seconds: 1 };
    const provider = makeReplicate({
      name: "replicate",
      token: "r8_t",
      baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
      clock: () => at(now.seconds)(),
    });
    return { provider, now, asked: () => asked };
  }

  test("is asked for once, however many deliveries come", async () => {
    const { provider, asked } = await account(SECRET);
    await Promise.all(Array.from({ length: 20 }, () => provider.verifyWebhook(HEADERS, BODY)));
    await provider.verifyWebhook(HEADERS, BODY);
    expect(asked()).toBe(1);
  });

  test("is asked for again when it was replaced, and then the old one is worth nothing", async () => {
    const { provider, now, asked } = await account(OTHER, SECRET);
    await provider.verifyWebhook(sign(BODY, OTHER), BODY);
    now.seconds = 62;
    expect(await provider.verifyWebhook(HEADERS, BODY)).toMatchObject({ providerRunId: "p1" });
    expect(asked()).toBe(2);
    await expect(provider.verifyWebhook(sign(BODY, OTHER), BODY)).rejects.toThrow(/^forged/);
  });

  test("is asked for at most once a minute, whatever strangers send", async () => {
    const { provider, now, asked } = await account(OTHER);
    for (let i = 0; i < 10; i++) await expect(provider.verifyWebhook(HEADERS, BODY)).rejects.toThrow(/^forged/);
    expect(asked()).toBe(1);
    now.seconds += 60;
    for (let i = 0; i < 10; i++) await expect(provider.verifyWebhook(HEADERS, BODY)).rejects.toThrow(/^forged/);
    expect(asked()).toBe(2);
  });

  test("is not asked for by what is unsigned or stale", async () => {
    const { provider, now, asked } = await account(SECRET);
    await expect(provider.verifyWebhook({}, BODY)).rejects.toThrow(/^unsigned/);
    now.seconds = 1_000;
    await expect(provider.verifyWebhook(HEADERS, BODY)).rejects.toThrow(/^stale/);
    expect(asked()).toBe(0);
  });

  test("is missed aloud when the provider does not tell it, and asked for again soon", async () => {
    const { provider, now, asked } = await account(null, SECRET);
    await expect(provider.verifyWebhook(HEADERS, BODY)).rejects.toThrow(/^unverifiable: .*Configure/);
    await expect(provider.verifyWebhook(HEADERS, BODY)).rejects.toThrow(/^unverifiable/);
    expect(asked()).toBe(1);
    now.seconds += 5;
    expect(await provider.verifyWebhook(HEADERS, BODY)).toBeDefined();
  });
});
