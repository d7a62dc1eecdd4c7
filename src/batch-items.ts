import { ServiceError } from "./errors.ts";
import { type ProblemDocument, problemOf } from "./problem.ts";

/** The idempotency key of an item's job, and what the log calls the item. `ord`: 0-based, as sent. */
export const itemKey = (batchId: string, ord: number): string => `batch/${batchId}/${ord}`;

/** The answer to an item that was not accepted before its batch was canceled. */
export function canceledItem(
  batchId: string,
  ord: number,
): { readonly ord: number; readonly problem: ProblemDocument } {
  const detail = "The batch was canceled before this item's turn. Nothing was charged.";
  return { ord, problem: problemOf(new ServiceError("canceled", detail), itemKey(batchId, ord)) };
}
