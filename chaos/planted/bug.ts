import type { CheckName } from "../finding.ts";
import type { ScenarioName } from "./scenarios.ts";

/** `find` stands exactly once in the file as it is. */
export interface Patch {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/** A slip that a careless engineer could have made, and where the harness must notice it. */
export interface Bug {
  readonly name: string;
  /** What was done; where one slip alone is caught by a second guard, that guard is gone too. */
  readonly says: string;
  readonly patches: readonly Patch[];
  readonly scenario: ScenarioName;
  /** Any of these must find it; that others do too is told. */
  readonly caughtBy: readonly CheckName[];
}
