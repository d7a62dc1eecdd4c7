import type { FastifyReply } from "fastify";
import type { Faults, Target } from "./faults.ts";
import {
  errorPage,
  insufficientCredit,
  type Problem,
  type ThrottleForm,
  throttled,
  unauthenticated,
} from "./problem.ts";

const RETRY_SECONDS = 2; // what a throttled caller is told
const FLUSH_MS = 20; // time for written bytes to leave before the socket goes

/** What a provider says when it does not take an order. */
export interface Refusals {
  unauthorized(): Problem;
  noCredit(): Problem;
  throttled(form: ThrottleForm, seconds: number): Problem;
}

const REPLICATE: Refusals = { unauthorized: () => unauthenticated(true), noCredit: insufficientCredit, throttled };

/**
 * The faults that come before acceptance: throws the refusal, or resolves to false when the connection is gone and
 * nothing may be accepted.
 */
export async function standsBefore(
  faults: Faults,
  target: Target,
  reply: FastifyReply,
  refusals: Refusals = REPLICATE,
): Promise<boolean> {
  if (faults.strike("refuse_before", target)) {
    cutOff(reply);
    return false;
  }
  if (faults.strike("unauthorized", target)) throw refusals.unauthorized();
  if (faults.strike("no_credit", target)) throw refusals.noCredit();
  const limited = faults.strike("rate_limited", target);
  if (limited)
    throw refusals.throttled(
      limited.word === "header" || limited.word === "neither" ? limited.word : "body",
      RETRY_SECONDS,
    );
  if (faults.strike("server_error", target)) {
    await sendPage(reply, 500);
    return false;
  }
  const late = faults.strike("late_accept", target);
  // The caller may be gone by then: it is accepted all the same, as when a proxy held the request back.
  if (late) await pause(late.amount);
  return true;
}

/** Answers an accepted create, or fails to, as the faults have it. */
export async function tellAccepted(faults: Faults, target: Target, reply: FastifyReply, status: number, body: unknown) {
  if (faults.strike("cut", target)) return cutOff(reply);
  if (faults.strike("server_error_after_accept", target)) return sendPage(reply, 502);
  if (faults.strike("garbage_after_accept", target)) return sendPage(reply, 200);
  if (faults.strike("cut_half", target)) return cutInHalf(reply, status, JSON.stringify(body));
  const slow = faults.strike("slow_create", target);
  if (slow) await pause(slow.amount);
  return reply.code(status).send(body);
}

/** Faults of asking for a run. True when the answer is already given. */
export function spoils(faults: Faults, target: Target, reply: FastifyReply): boolean {
  const status = faults.strike("get_error", target) ? 500 : faults.strike("get_garbage", target) ? 200 : null;
  if (status === null) return false;
  void sendPage(reply, status);
  return true;
}

export function sendPage(reply: FastifyReply, status: number) {
  return reply.code(status).type("text/html; charset=UTF-8").send(errorPage(status));
}

function cutOff(reply: FastifyReply): FastifyReply {
  reply.hijack();
  reply.raw.destroy();
  return reply;
}

function cutInHalf(reply: FastifyReply, status: number, body: string): FastifyReply {
  const bytes = Buffer.from(body);
  reply.hijack();
  reply.raw.writeHead(status, { "content-type": "application/json", "content-length": bytes.length });
  reply.raw.write(bytes.subarray(0, bytes.length >> 1), () => setTimeout(() => reply.raw.destroy(), FLUSH_MS));
  return reply;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
