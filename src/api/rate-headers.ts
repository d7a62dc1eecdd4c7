import type { FastifyReply } from "fastify";
import { type RateLeft, ratesLeft } from "../db/rates.ts";
import type { RateCheck } from "../domain/request.ts";
import type { ApiServices } from "./app.ts";

/**
 * Says what limits there are and what is left of them, in the words of the IETF draft "RateLimit header fields for
 * HTTP": `RateLimit-Policy: "request";q=10;w=60` and `RateLimit: "request";r=3;t=42`.
 */
export async function tellRates(
  { db }: Pick<ApiServices, "db">,
  reply: FastifyReply,
  appId: string,
  rates: readonly RateCheck[],
): Promise<void> {
  if (rates.length === 0) return;
  const left = await ratesLeft(db, appId, rates);
  const list = (describe: (rate: RateLeft) => string) =>
    left.map((rate) => `"${policyOf(rate)}";${describe(rate)}`).join(", ");
  reply.header(
    "ratelimit-policy",
    list(({ max, seconds }) => `q=${max};w=${seconds}`),
  );
  reply.header(
    "ratelimit",
    list(({ left: some, resetSeconds }) => `r=${some};t=${resetSeconds}`),
  );
}

const policyOf = ({ subject, action }: RateCheck) => (subject.startsWith("address:") ? "address" : action);
