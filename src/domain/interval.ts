/** A mean with the bounds between which the true one lies 95 times in 100. */
interface Interval {
  readonly low: number;
  readonly high: number;
}

/** 97.5 % of the normal distribution lie below it. */
const Z = 1.959964;
/** Of Student's distribution with 1, 2 and 3 degrees of freedom, where the series below is too coarse. */
const SMALL = [12.7062, 4.3027, 3.1824];

/**
 * The 95 % interval of a mean, by Student's distribution: right for few ratings too. `deviation`: of the sample. Null
 * for fewer than two. The ratings count as independent; somebody who rates everything the same makes it too narrow.
 */
export function intervalOf(count: number, mean: number, deviation: number, bounds: Interval): Interval | null {
  if (count < 2) return null;
  const half = (student(count - 1) * deviation) / Math.sqrt(count);
  return { low: Math.max(bounds.low, mean - half), high: Math.min(bounds.high, mean + half) };
}

/** The series of Cornish and Fisher; from 4 degrees of freedom on it is right to a hundredth. */
function student(freedom: number): number {
  return (
    SMALL[freedom - 1] ??
    Z +
      (Z ** 3 + Z) / (4 * freedom) +
      (5 * Z ** 5 + 16 * Z ** 3 + 3 * Z) / (96 * freedom ** 2) +
      (3 * Z ** 7 + 19 * Z ** 5 + 17 * Z ** 3 - 15 * Z) / (384 * freedom ** 3)
  );
}
