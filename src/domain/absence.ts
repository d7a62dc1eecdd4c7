/**
 * When a run whose answer was lost may be presumed never to have existed. Everything else about a lost answer only
 * needs evidence; this needs time, and the proof is here (test/submit-once-model.test.ts removes each part of it):
 * nobody writes the order any more, nothing that was written is still on its way, and the provider's list has had time
 * to show what it accepted.
 */

/** From the commit of the intent to the last instant at which a byte of the order may be written. */
export const SEND_WINDOW_MS = 10_000;

/** After that instant: a socket lives 15 s at most, and is destroyed then. */
export const SENDER_GRACE_MS = 16_000;

/** By how much the end of a socket may be late. */
const SOCKET_SLACK_MS = 1_000;

/** A list that was read once may have been read a moment too early. */
const LEAST_READINGS = 2;

/**
 * From when on nothing of an order is on its way, if its sender never says so itself. `submitMs`: how long the call may
 * take where it is the whole run, and its socket lives so long.
 */
export function quietAfter(sendBefore: Date, submitMs = 0): Date {
  const graceMs = Math.max(SENDER_GRACE_MS, submitMs + SOCKET_SLACK_MS);
  return new Date(sendBefore.getTime() + graceMs);
}

export interface Search {
  readonly quietFrom: Date;
  /** Complete readings of the provider's list that did not show the run, this one included. */
  readonly readings: number;
  /** When the latest reading began, not when it ended. */
  readonly readAt: Date;
}

/** `lostAfterMs` is three times the longest lag of the provider's list. */
export function provesAbsence({ quietFrom, readings, readAt }: Search, lostAfterMs: number): boolean {
  return readings >= LEAST_READINGS && readAt.getTime() >= quietFrom.getTime() + lostAfterMs;
}
