// Elements of the page: finds those of index.html, and creates new ones.

/**
 * The elements of index.html that scripts use, and those that filters.js creates later.
 *
 * @typedef {{
 *   search: HTMLFormElement, text: HTMLInputElement, file: HTMLInputElement, index: HTMLSelectElement,
 *   "to-search": HTMLAnchorElement, "to-map": HTMLAnchorElement, chips: HTMLElement, filters: HTMLElement,
 *   status: HTMLElement, examples: HTMLElement, notice: HTMLElement, results: HTMLElement, end: HTMLElement,
 *   sentinel: HTMLElement, map: HTMLElement, detail: HTMLDialogElement, "drop-zone": HTMLElement,
 *   "group-duplicates": HTMLInputElement | null, reset: HTMLButtonElement | null,
 * }} Elements
 */

/** @type {<Id extends keyof Elements>(id: Id) => Elements[Id]} */
export const $ = (id) => /** @type {any} */ (document.getElementById(id));

/**
 * The first element that matches a selector. Throws an error if none does: the caller has created it.
 *
 * @param {ParentNode} parent
 * @param {string} selector
 * @returns {HTMLElement}
 */
export function first(parent, selector) {
  const node = parent.querySelector(selector);
  if (!(node instanceof HTMLElement)) throw new Error(`No element matches ${selector}.`);
  return node;
}

/**
 * All elements that match a selector.
 *
 * @param {ParentNode} parent
 * @param {string} selector
 * @returns {NodeListOf<HTMLElement>}
 */
export const all = (parent, selector) => parent.querySelectorAll(selector);

/**
 * The element around the target of an event, or the target itself, that matches a selector.
 *
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export const closest = ({ target }, selector) => (target instanceof Element ? target.closest(selector) : null);

/** @typedef {Node | string | false | null | undefined} Child */

/**
 * @template {keyof HTMLElementTagNameMap} Name
 * @typedef {{ [Type in keyof HTMLElementEventMap]?:
 *   (event: HTMLElementEventMap[Type] & { currentTarget: HTMLElementTagNameMap[Name] }) => unknown }} Listeners
 */

/**
 * Properties of an element. The browser converts a number to text where it needs text.
 *
 * @template {keyof HTMLElementTagNameMap} Name
 * @typedef {{ [Key in keyof HTMLElementTagNameMap[Name]]?:
 *   HTMLElementTagNameMap[Name][Key] extends string ? HTMLElementTagNameMap[Name][Key] | number : HTMLElementTagNameMap[Name][Key] }} Properties
 */

/**
 * Creates an element with properties, event listeners in `on`, and children.
 *
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Properties<Name> & { on?: Listeners<Name> }} properties
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function element(name, { on = {}, ...properties } = {}, ...children) {
  const node = document.createElement(name);
  Object.assign(node, properties);
  for (const [type, listener] of Object.entries(on)) node.addEventListener(type, /** @type {EventListener} */ (listener));
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

/**
 * An icon of index.html. Screen readers skip it: the element around it has a label.
 *
 * @param {string} name
 */
export function icon(name) {
  const svg = /** @type {SVGElement} */ (document.querySelector("svg.icon")?.cloneNode(true));
  svg.firstElementChild?.setAttribute("href", `#i-${name}`);
  return svg;
}

/**
 * Returns a function that calls `callback` after this many milliseconds without another call.
 *
 * @template {unknown[]} Parameters
 * @param {number} milliseconds
 * @param {(...parameters: Parameters) => void} callback
 */
export function debounce(milliseconds, callback) {
  /** @type {number | undefined} */
  let timer;
  /** @param {Parameters} parameters */
  const debounced = (...parameters) => {
    clearTimeout(timer);
    timer = setTimeout(() => callback(...parameters), milliseconds);
  };
  debounced.cancel = () => clearTimeout(timer);
  return debounced;
}

/** @param {number} value */
export const formatNumber = (value) => value.toLocaleString("en");

/** @param {number} count */
export const imageCount = (count) => (count === 1 ? "1 image" : `${formatNumber(count)} images`);

/** @param {string} uri */
export const fileName = (uri) => uri.split(/[/#]/).pop() || uri;
