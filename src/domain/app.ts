import type { KindName } from "./kinds/kind.ts";

/** The prices of one app, in its own credits. */
export interface PriceBook {
  readonly generation: {
    /** Credits for each started megapixel (1,048,576 pixels) of one image. */
    readonly perMegapixel: number;
  };
  readonly staging: {
    readonly perVariant: number;
  };
}

/** One product that uses this deployment. An app is one file in `apps/`. */
export interface App {
  /** Lower-case letters, digits and hyphens; never changed once money has moved. */
  readonly id: string;
  readonly name: string;
  /** Credits given once to each new user, by a trigger in the database. */
  readonly signupGrant: number;
  /** Credits that each user may spend a day before the balance is touched; not carried over. 0: none. */
  readonly dailyAllowance: number;
  readonly kinds: readonly KindName[];
  readonly prices: PriceBook;
}
