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

/** A list that was read once may have been read a moment too early. */
const LEAST_READINGS = 2;

export interface Search {
  readonly sentAt: Date;
  /** Null: the sender itself said that the answer was lost, and writes no more. */
  readonly sendBefore: Date | null;
  /** Complete readings of the provider's list that did not show the run, this one included. */
  readonly readings: number;
  /** When the latest reading began, not when it ended. */
  readonly readAt: Date;
}

/**
 * `lostAfterMs` counts from the last moment at which it may have been sent, and covers the provider's own delay: 15 s
 * for an answer, and three times the longest lag of its list.
 */
export function provesAbsence({ sentAt, sendBefore, readings, readAt }: Search, lostAfterMs: number): boolean {
  const silentFrom = sendBefore ? sendBefore.getTime() + SENDER_GRACE_MS : sentAt.getTime();
  return readings >= LEAST_READINGS && readAt.getTime() >= silentFrom + lostAfterMs;
}
