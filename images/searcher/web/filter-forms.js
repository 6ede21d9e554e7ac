// The forms in the menus of the filters: values with counts, a range of numbers, true or false, and the minimum score.

import { element, first, formatNumber } from "./dom.js";
import { LONG_LIST, fieldLabel, scoreText } from "./facets.js";
import { parseNumber } from "./json.js";

/** @typedef {import("./api.js").Facet} Facet */
/** @typedef {import("./api.js").Value} Value */
/** @typedef {import("./state.js").Condition} Condition */
/** @typedef {(condition: Condition | null) => void} Change null: no filter */

/**
 * The form for a field.
 *
 * @param {Facet} facet
 * @param {Condition | undefined} condition the filter that the form begins with
 * @param {Change} change
 */
export function fieldForm(facet, condition, change) {
  if (facet.type === "number") return rangeForm(facet, condition, change);
  return facet.type === "bool" ? booleanForm(facet, condition, change) : valuesForm(facet, condition, change);
}

/** @type {(facet: Facet, condition: Condition | undefined, change: Change) => HTMLElement} */
function valuesForm(facet, condition, change) {
  const key = facet.type === "list" ? "has" : "any";
  const selected = new Set(condition?.[key]);
  /** @type {(value: Value, checked: boolean) => void} */
  const select = (value, checked) => {
    if (checked) selected.add(value);
    else selected.delete(value);
    change(selected.size ? { [key]: [...selected] } : null);
  };
  const counts = countsOf(facet);
  const values = [...new Set([...selected, ...counts.keys()])];
  const rows = values.map((value) => {
    const checkbox = element("input", {
      type: "checkbox",
      checked: selected.has(value),
      on: { change: ({ currentTarget }) => select(value, currentTarget.checked) },
    });
    return choice(checkbox, String(value), counts.get(value) || 0);
  });
  const list = element("div", { className: "values", role: "group", ariaLabel: fieldLabel(facet.field) }, ...rows);
  const noMatch = element("p", { className: "muted", hidden: true }, "No value matches");
  /** @param {{ currentTarget: HTMLInputElement }} event */
  const filterList = ({ currentTarget }) => {
    const text = currentTarget.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !first(row, ".name").textContent.toLowerCase().includes(text);
    noMatch.hidden = rows.some((row) => !row.hidden);
  };
  const box = element("input", {
    type: "search",
    placeholder: "Search in the list",
    ariaLabel: `Search in the values of ${fieldLabel(facet.field)}`,
    on: { input: filterList },
  });
  const isTruncated = (facet.distinct ?? Infinity) > facet.values.length;
  const note = isTruncated && element("p", { className: "muted" }, `The ${facet.values.length} most frequent values`);
  return element("div", {}, values.length > LONG_LIST && box, list, noMatch, note);
}

/** @type {(facet: Facet, condition: Condition | undefined, change: Change) => HTMLElement} */
function rangeForm(facet, condition, change) {
  const [min, max] = [facet.min ?? 0, facet.max ?? 0];
  const scale = new Scale(min, max, facet.whole === true);
  const range = { ...condition };
  /** @type {(bound: "min" | "max", text: string) => void} */
  const set = (bound, text) => {
    const value = text === "" ? null : parseNumber(text);
    const isOpen = value === null || !Number.isFinite(Number(value)) || (bound === "min" ? value <= min : value >= max);
    range[bound] = isOpen ? null : value;
    change(range.min == null && range.max == null ? null : { ...range });
  };
  /** @type {(bound: "min" | "max", label: string, limit: number | bigint) => HTMLElement} */
  const boundForm = (bound, label, limit) => {
    const value = range[bound];
    const box = element("input", { type: "number", step: "any", placeholder: String(limit), value: String(value ?? ""), ariaLabel: `${fieldLabel(facet.field)} ${label}` });
    const slider = element("input", { type: "range", min: 0, max: scale.length, step: scale.step, ariaLabel: `${fieldLabel(facet.field)} ${label}, slider` });
    const moveSlider = () => {
      slider.value = String(scale.position(box.value === "" ? limit : parseNumber(box.value)));
      slider.ariaValueText = box.value || String(limit);
    };
    moveSlider();
    box.addEventListener("input", () => {
      moveSlider();
      set(bound, box.value);
    });
    slider.addEventListener("input", () => {
      const isAtLimit = slider.valueAsNumber === scale.position(limit);
      box.value = isAtLimit ? "" : String(scale.value(slider.valueAsNumber));
      slider.ariaValueText = box.value || String(limit);
      set(bound, box.value);
    });
    return element("div", { className: "bound" }, element("span", { ariaHidden: "true" }, label), slider, box);
  };
  return element("div", { className: "range" }, boundForm("min", "from", min), boundForm("max", "to", max));
}

/** @param {Value} value */
const isWhole = (value) => typeof value === "bigint" || Number.isInteger(value);

/**
 * The scale of a slider between two numbers. Its positions begin at 0, because a slider has only the digits of a Number:
 * the values of a scale of whole numbers are exact, however large they are.
 */
class Scale {
  /**
   * @param {number | bigint} min
   * @param {number | bigint} max
   * @param {boolean} hasWholeValues
   */
  constructor(min, max, hasWholeValues) {
    this.min = min;
    this.isWhole = hasWholeValues && isWhole(min) && isWhole(max);
    this.length = this.position(max);
    this.step = this.isWhole ? 1 : this.length / 100 || "any";
    /** The decimals that two neighbouring values of a slider need. */
    this.decimals = Math.min(20, Math.max(0, 1 - Math.floor(Math.log10(this.length / 100 || 1))));
  }

  /** @param {number | bigint} value */
  position(value) {
    return this.isWhole && isWhole(value) ? Number(BigInt(value) - BigInt(this.min)) : Number(value) - Number(this.min);
  }

  /** @param {number} position */
  value(position) {
    if (this.isWhole) return BigInt(this.min) + BigInt(position);
    return +(Number(this.min) + position).toFixed(this.decimals);
  }
}

/** @type {(facet: Facet, condition: Condition | undefined, change: Change) => HTMLElement} */
function booleanForm(facet, condition, change) {
  const counts = countsOf(facet);
  /** @type {(label: string, is?: boolean) => HTMLElement} */
  const option = (label, is) => {
    const radio = element("input", {
      type: "radio",
      name: `is-${facet.field}`,
      checked: condition?.is === is,
      on: { change: () => change(is === undefined ? null : { is }) },
    });
    return choice(radio, label, is === undefined ? null : counts.get(is) || 0);
  };
  return element("div", { className: "values", role: "radiogroup", ariaLabel: fieldLabel(facet.field) }, option("any"), option("true", true), option("false", false));
}

/**
 * @param {number | null} score the current minimum
 * @param {number} bestScore the highest minimum that can be chosen
 * @param {(score: number | null) => void} change
 */
export function scoreForm(score, bestScore, change) {
  const output = element("output", {}, scoreText(score) || "any");
  const slider = element("input", {
    id: "score",
    type: "range",
    min: 0,
    max: Math.max(0.05, Math.ceil(bestScore * 100) / 100),
    step: 0.01,
    value: score ?? 0,
    ariaLabel: "Minimum score",
    on: {
      input: ({ currentTarget }) => {
        const minScore = currentTarget.valueAsNumber || null;
        output.textContent = scoreText(minScore) || "any";
        change(minScore);
      },
    },
  });
  const help = element("p", { className: "muted" }, "Hide images with a lower score.");
  return element("div", { className: "range" }, element("div", { className: "bound" }, slider, output), help);
}

/**
 * A row of a list of values.
 *
 * @param {HTMLInputElement} input
 * @param {string} label
 * @param {number | null} count of images
 */
function choice(input, label, count) {
  const text = count === null ? "" : formatNumber(count);
  return element("label", { className: "value" }, input, element("span", { className: "name" }, label), element("span", { className: "count" }, text));
}

/**
 * @param {Facet} facet
 * @returns {Map<Value, number>} the number of images by value
 */
const countsOf = (facet) => new Map(facet.values.map(({ value, count }) => [value, count]));
