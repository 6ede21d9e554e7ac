// The images that are looked for, each with how much, to change and to take away; and the words, beside images.

import * as api from "./api.js";
import { $, after, el, icon } from "./dom.js";
import { picture } from "./upload.js";

const STEP = 0.1;

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").Part} Part */
/** @typedef {Partial<State>} Change */

export class Chips {
  /** @param {{ change: (change: Change) => void }} acts `change` searches again */
  constructor(acts) {
    this.acts = acts;
    this.list = $("chips");
    this.shown = "";
    /** @type {Part[]} */
    this.parts = [];
    this.changed = after(200, (/** @type {Change} */ change) => acts.change(change));
  }

  /**
   * Made anew only for other things, not for other weights: a slider must not go while it is moved.
   *
   * @param {State} state
   */
  render(state) {
    this.parts = state.parts;
    const parts = state.parts.map(({ kind, value }) => [kind, value]);
    const key = JSON.stringify([state.index, parts, parts.length ? state.text : ""]);
    if (key === this.shown) return;
    this.shown = key;
    const focused = [...this.list.children].findIndex((chip) => chip.contains(document.activeElement));
    const chips = state.parts.map((part, place) => this.ofPart(state, part, place));
    if (state.text && state.parts.length) chips.unshift(this.ofText(state));
    this.list.replaceChildren(...chips);
    if (focused >= 0) (chips[Math.min(focused, chips.length - 1)]?.querySelector("input") || $("text")).focus();
  }

  /** @param {State} state */
  ofText(state) {
    return this.chip(null, `“${state.text}”`, state.weight, {
      weigh: (weight) => ({ weight }),
      remove: () => ({ text: "", weight: 1 }),
    });
  }

  /**
   * @param {State} state
   * @param {Part} part
   * @param {number} place
   */
  ofPart(state, part, place) {
    return this.chip(face(part, state.index), words(part), part.weight, {
      weigh: (weight) => ({ parts: this.parts.map((other, at) => (at === place ? { ...other, weight } : other)) }),
      remove: () => ({ parts: this.parts.filter((_, at) => at !== place) }),
    });
  }

  /**
   * @param {Element | null} image
   * @param {string} name
   * @param {number} weight
   * @param {{ weigh: (weight: number) => Change, remove: () => Change }} changes
   */
  chip(image, name, weight, { weigh, remove }) {
    /** @param {number} value */
    const side = (value) => (value < 0 ? "Less" : "More");
    const label = el("span", { className: "what" }, image ? `${side(weight)} like ${name}` : name);
    const amount = el("output", {}, signed(weight));
    const chip = el(
      "li",
      { className: "chip" },
      image,
      label,
      el("input", {
        type: "range",
        min: -2,
        max: 2,
        step: STEP,
        value: weight,
        ariaLabel: `Weight of ${name}`,
        on: {
          input: ({ currentTarget: { valueAsNumber: value } }) => {
            amount.textContent = signed(value);
            if (image) label.textContent = `${side(value)} like ${name}`;
            chip.classList.toggle("less", value < 0);
            this.changed(weigh(value));
          },
        },
      }),
      amount,
      el("button", { ariaLabel: `Remove ${name}`, title: "Remove", on: { click: () => this.acts.change(remove()) } }, icon("close")),
    );
    chip.classList.toggle("less", weight < 0);
    return chip;
  }
}

/**
 * @param {Part} part
 * @param {string} index
 */
function face(part, index) {
  const source = { id: () => api.thumbnail(part.value, index), vector: () => picture(part.value), url: () => "" }[part.kind]();
  return source ? el("img", { src: source, alt: "" }) : icon("image");
}

/** @param {Part} part */
function words(part) {
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
const signed = (weight) => `${weight < 0 ? "−" : ""}${Math.abs(weight).toFixed(1)}`;
