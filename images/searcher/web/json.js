// JSON with exact whole numbers. A Number is exact up to 2^53, so a larger whole number is a BigInt.
// Both functions use JSON.parse source text access, a proposal of TC39.

/** @typedef {{ source: string }} Context of a value: its text in the document */

const { rawJSON } = /** @type {JSON & { rawJSON(text: string): unknown }} */ (JSON);

/**
 * The number in a text, exact if it is whole.
 *
 * @param {string} text
 * @returns {number | bigint}
 */
export function parseNumber(text) {
  const value = Number(text);
  return Math.abs(value) > Number.MAX_SAFE_INTEGER && /^-?\d+$/.test(text) ? BigInt(text) : value;
}

/**
 * Throws SyntaxError for a text that is no JSON, and TypeError if this browser cannot read one of its numbers exactly.
 *
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  /** @type {(key: string, value: unknown, context?: Context) => unknown} */
  const exact = (_, value, context) => {
    if (typeof value !== "number" || Math.abs(value) <= Number.MAX_SAFE_INTEGER) return value;
    if (!context) throw new TypeError("This browser cannot show whole numbers above 2^53 exactly. Update it.");
    return parseNumber(context.source);
  };
  return JSON.parse(text, exact);
}

/**
 * @param {unknown} value
 * @param {number} [indent] the number of spaces
 * @returns {string}
 */
export function stringify(value, indent) {
  return JSON.stringify(value, (_, item) => (typeof item === "bigint" ? rawJSON(String(item)) : item), indent);
}
