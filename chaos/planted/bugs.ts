import type { Bug } from "./bug.ts";
import { MONEY_BUGS } from "./money-bugs.ts";
import { OUTPUT_BUGS } from "./output-bugs.ts";
import { PURCHASE_BUGS } from "./purchase-bugs.ts";
import { RECOVERY_BUGS } from "./recovery-bugs.ts";

export const BUGS: readonly Bug[] = [...MONEY_BUGS, ...PURCHASE_BUGS, ...RECOVERY_BUGS, ...OUTPUT_BUGS];
