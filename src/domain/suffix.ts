/**
 * The words that an experiment's arm adds to a prompt. They are kept beside it, not in it: what a user reads is what he
 * wrote, and what the model is given has both.
 */
const FIELD = "promptSuffix";

type Fields = Readonly<Record<string, unknown>>;

const fieldsOf = (input: unknown): Fields | null =>
  typeof input === "object" && input !== null && !Array.isArray(input) ? { ...input } : null;

const promptOf = (fields: Fields) => ("instruction" in fields ? "instruction" : "prompt");

/** As the model is given it. */
export function withSuffix(input: unknown, suffix: string): unknown {
  const fields = fieldsOf(input);
  if (!fields) return input;
  const name = promptOf(fields);
  const prompt = fields[name];
  return { ...fields, [name]: `${typeof prompt === "string" ? prompt : ""} ${suffix.trim()}`.trim() };
}

/** Takes the words out of a prompt that has them at its end, and keeps them beside it. */
export function keepBeside(input: unknown, suffix: string): unknown {
  const fields = fieldsOf(input);
  if (!fields) return input;
  const words = suffix.trim();
  const { [promptOf(fields)]: prompt, ...rest } = fields;
  if (typeof prompt !== "string" || !prompt.endsWith(words)) return input;
  const own = prompt.slice(0, -words.length).trimEnd();
  return { ...rest, ...(own === "" ? {} : { [promptOf(fields)]: own }), [FIELD]: words };
}

/** A job's input as it is ordered. */
export function asOrdered(input: unknown): unknown {
  const fields = fieldsOf(input);
  const suffix = fields?.[FIELD];
  return typeof suffix === "string" ? withSuffix(asSeen(input), suffix) : input;
}

/** A job's input as its user reads it. */
export function asSeen(input: unknown): unknown {
  const fields = fieldsOf(input);
  if (!fields || !(FIELD in fields)) return input;
  const { [FIELD]: _, ...seen } = fields;
  return seen;
}
