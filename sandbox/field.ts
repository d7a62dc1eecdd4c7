import type { Violation } from "./problem.ts";

/** One input of a model, said once: validates, fills defaults, and is served as OpenAPI. */
export type Field = (
  | { readonly type: "string"; readonly default?: string; readonly enum?: readonly string[]; readonly format?: "uri" }
  | {
      readonly type: "integer" | "number";
      readonly default?: number;
      readonly minimum?: number;
      readonly maximum?: number;
    }
  | { readonly type: "boolean"; readonly default?: boolean }
) & { readonly required?: true; readonly description?: string };

export type Fields = Readonly<Record<string, Field>>;
export type Input = Readonly<Record<string, unknown>>;
export type Values = Readonly<Record<string, string | number | boolean | undefined>>;

/** Unknown keys pass, as most models ignore them; a wrong type, range or choice does not. */
export function violations(fields: Fields, input: Input): Violation[] {
  const found: Violation[] = [];
  for (const [name, field] of Object.entries(fields)) {
    if (!Object.hasOwn(input, name)) {
      if (field.required) found.push({ type: "required", field: "input", description: `${name} is required` });
      continue;
    }
    const violation = breach(field, input[name], `input.${name}`);
    if (violation) found.push(violation);
  }
  return found;
}

function breach(field: Field, value: unknown, path: string): Violation | null {
  const actual = typeOf(value);
  const fits = field.type === actual || (field.type === "number" && actual === "integer");
  if (!fits) {
    const description = `Invalid type. Expected: ${field.type}, given: ${actual}`;
    return { type: "invalid_type", field: path, description };
  }
  if (field.type === "string" && typeof value === "string") {
    if (field.enum && !field.enum.includes(value)) {
      const allowed = field.enum.map((choice) => `"${choice}"`).join(", ");
      return { type: "enum", field: path, description: `${path} must be one of the following: ${allowed}` };
    }
    if (field.format === "uri" && !(value.startsWith("data:") || URL.canParse(value))) {
      return { type: "format", field: path, description: "Does not match format 'uri'" };
    }
  }
  if ((field.type === "integer" || field.type === "number") && typeof value === "number") {
    if (field.minimum !== undefined && value < field.minimum) {
      return { type: "number_gte", field: path, description: `Must be greater than or equal to ${field.minimum}` };
    }
    if (field.maximum !== undefined && value > field.maximum) {
      return { type: "number_lte", field: path, description: `Must be less than or equal to ${field.maximum}` };
    }
  }
  return null;
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return typeof value;
}

/** What the model itself sees: the caller's values, and defaults where there are none. */
export function filled(fields: Fields, input: Input): Values {
  const values: Record<string, string | number | boolean | undefined> = {};
  for (const [name, field] of Object.entries(fields)) {
    const given = input[name];
    const scalar = typeof given === "string" || typeof given === "number" || typeof given === "boolean";
    values[name] = scalar ? given : field.default;
  }
  return values;
}

/** One component for the object and one for each enum, as Cog generates them. */
export function schemaOf(title: string, fields: Fields): Record<string, unknown> {
  const components: Record<string, unknown> = {};
  const properties: Record<string, unknown> = {};
  Object.entries(fields).forEach(([name, field], order) => {
    const { required: _required, ...rest } = field;
    if (field.type !== "string" || !field.enum) {
      properties[name] = { title: titled(name), "x-order": order, ...rest };
      return;
    }
    components[name] = { type: "string", title: name, enum: field.enum, description: "An enumeration." };
    properties[name] = {
      allOf: [{ $ref: `#/components/schemas/${name}` }],
      "x-order": order,
      ...(field.default === undefined ? {} : { default: field.default }),
      ...(field.description === undefined ? {} : { description: field.description }),
    };
  });
  const required = Object.entries(fields).flatMap(([name, field]) => (field.required ? [name] : []));
  components[title] = { type: "object", title, properties, ...(required.length > 0 ? { required } : {}) };
  return components;
}

function titled(name: string): string {
  return name
    .split("_")
    .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
    .join(" ");
}
