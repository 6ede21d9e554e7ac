// The chips: the parts of a search, each with a slider for its weight and a button that removes it.

import * as api from "./api.js";
import { $, debounce, element, icon } from "./dom.js";
import { preview } from "./upload.js";

const STEP = 0.1;

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Part} Part */
/** @typedef {Partial<State>} Change */

export class Chips {
  /** @param {{ change: (change: Change) => void }} handlers `change` starts a search */
  constructor(handlers) {
    this.handlers = handlers;
    this.list = $("chips");
    this.renderedKey = "";
    /** @type {Part[]} */
    this.parts = [];
    this.changeSoon = debounce(200, (/** @type {Change} */ change) => handlers.change(change));
  }

  /**
   * Creates new chips for new parts only, not for new weights: a slider must stay while the user moves it.
   *
   * @param {State} state
   */
  render(state) {
    this.parts = state.parts;
    const parts = state.parts.map(({ kind, value }) => [kind, value]);
    const key = JSON.stringify([state.index, parts, parts.length ? state.text : ""]);
    if (key === this.renderedKey) return;
    this.renderedKey = key;
    const focused = [...this.list.children].findIndex((chip) => chip.contains(document.activeElement));
    const chips = state.parts.map((part, i) => this.partChip(state, part, i));
    if (state.text && state.parts.length) chips.unshift(this.textChip(state));
    this.list.replaceChildren(...chips);
    if (focused >= 0) (chips[Math.min(focused, chips.length - 1)]?.querySelector("input") || $("text")).focus();
  }

  /** @param {State} state */
  textChip(state) {
    return this.chip(null, `“${state.text}”`, state.textWeight, {
      withWeight: (textWeight) => ({ textWeight }),
      remove: () => ({ text: "", textWeight: 1 }),
    });
  }

  /**
   * @param {State} state
   * @param {Part} part
   * @param {number} i the index of the part
   */
  partChip(state, part, i) {
    return this.chip(partImage(part, state.index), partName(part), part.weight, {
      withWeight: (weight) => ({ parts: this.parts.map((other, j) => (j === i ? { ...other, weight } : other)) }),
      remove: () => ({ parts: this.parts.filter((_, j) => j !== i) }),
    });
  }

  /**
   * @param {Element | null} image
   * @param {string} name
   * @param {number} weight
   * @param {{ withWeight: (weight: number) => Change, remove: () => Change }} changes
   */
  chip(image, name, weight, { withWeight, remove }) {
    /** @param {number} value */
    const direction = (value) => (value < 0 ? "Less" : "More");
    const label = element("span", { className: "label" }, image ? `${direction(weight)} like ${name}` : name);
    const output = element("output", {}, formatWeight(weight));
    const chip = element(
      "li",
      { className: "chip" },
      image,
      label,
      element("input", {
        type: "range",
        min: -2,
        max: 2,
        step: STEP,
        value: weight,
        ariaLabel: `Weight of ${name}`,
        on: {
          input: ({ currentTarget: { valueAsNumber: value } }) => {
            output.textContent = formatWeight(value);
            if (image) label.textContent = `${direction(value)} like ${name}`;
            chip.classList.toggle("negative", value < 0);
            this.changeSoon(withWeight(value));
          },
        },
      }),
      output,
      element("button", { ariaLabel: `Remove ${name}`, title: "Remove", on: { click: () => this.handlers.change(remove()) } }, icon("close")),
    );
    chip.classList.toggle("negative", weight < 0);
    return chip;
  }
}

/**
 * @param {Part} part
 * @param {string} index
 */
function partImage(part, index) {
  const url = { id: () => api.thumbnail(part.value, index), vector: () => preview(part.value), url: () => "" }[part.kind]();
  return url ? element("img", { src: url, alt: "" }) : icon("image");
}

/** @param {Part} part */
function partName(part) {
  if (part.kind === "id") return "this";
  if (part.kind === "vector") return "your image";
  try {
    const url = new URL(part.value);
    return decodeURIComponent(url.pathname.split("/").pop() ?? "") || url.hostname;
  } catch {
    return part.value;
  }
}

/** @param {number} weight */
const formatWeight = (weight) => `${weight < 0 ? "−" : ""}${Math.abs(weight).toFixed(1)}`;
