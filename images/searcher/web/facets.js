// The fields of an index as filters: which fields can be filtered, in which order, and a condition as text.

/** A longer list of values gets a box that searches in it. */
export const LONG_LIST = 10;
/** A text field with more distinct values per image, such as a name, is not a useful filter. */
const MAX_DISTINCT_RATIO = 0.8;
/** The types that tell most about the content of an image come first. */
const TYPE_ORDER = ["list", "text", "number", "bool"];

/** @typedef {import("./api.js").Facet} Facet */
/** @typedef {import("./state.js").Condition} Condition */

/**
 * The fields that can be filtered, the most useful first.
 *
 * @param {Facet[]} facets
 */
export function filterable(facets) {
  return facets
    .filter(hasChoice)
    .sort((facet, other) => TYPE_ORDER.indexOf(facet.type) - TYPE_ORDER.indexOf(other.type) || other.images - facet.images);
}

/** @param {Facet} facet */
function hasChoice(facet) {
  if (facet.type === "number") return facet.min !== null && facet.max !== null && facet.min < facet.max;
  if (!facet.values.length) return false;
  return facet.type === "list" || facet.values.length <= LONG_LIST || (facet.distinct ?? Infinity) < facet.images * MAX_DISTINCT_RATIO;
}

/**
 * The condition of a field. A field may have any name, also that of a property of every object.
 *
 * @param {Record<string, Condition>} conditions
 * @param {string} field
 * @returns {Condition | undefined}
 */
export const conditionOf = (conditions, field) => (Object.hasOwn(conditions, field) ? conditions[field] : undefined);

/** @param {string} field */
export const fieldLabel = (field) => field || "(no name)";

/**
 * A condition as the short text of its menu's button. No condition: "".
 *
 * @param {Condition | undefined} condition
 */
export function conditionText(condition) {
  if (!condition) return "";
  const values = condition.any || condition.has;
  if (values) return values.length === 1 ? String(values[0]) : `${values.length}`;
  if ("is" in condition) return String(condition.is);
  if (condition.min != null && condition.max != null) return `${condition.min}–${condition.max}`;
  return condition.min != null ? `≥ ${condition.min}` : `≤ ${condition.max}`;
}

/** @param {number | null} score */
export const scoreText = (score) => (score === null ? "" : `≥ ${score.toFixed(2)}`);
