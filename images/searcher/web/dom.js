// Elements: the page's own by their id, and new ones made in one call each.

/**
 * The elements of index.html that scripts use, and those of the filters (filters.js), which come later.
 *
 * @typedef {{
 *   search: HTMLFormElement, text: HTMLInputElement, file: HTMLInputElement, index: HTMLSelectElement,
 *   "to-search": HTMLAnchorElement, "to-map": HTMLAnchorElement, chips: HTMLElement, tools: HTMLElement,
 *   status: HTMLElement, hints: HTMLElement, notice: HTMLElement, results: HTMLElement, end: HTMLElement,
 *   more: HTMLElement, map: HTMLElement, detail: HTMLDialogElement, dropping: HTMLElement,
 *   fold: HTMLInputElement | null, reset: HTMLButtonElement | null,
 * }} Elements
 */

/** @type {<Id extends keyof Elements>(id: Id) => Elements[Id]} */
export const $ = (id) => /** @type {any} */ (document.getElementById(id));

/**
 * The first element that a selector finds. Throws where there is none: the caller has made it.
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
 * All elements that a selector finds.
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
 * Properties of an element. A browser makes a text of a number where it needs one.
 *
 * @template {keyof HTMLElementTagNameMap} Name
 * @typedef {{ [Key in keyof HTMLElementTagNameMap[Name]]?:
 *   HTMLElementTagNameMap[Name][Key] extends string ? HTMLElementTagNameMap[Name][Key] | number : HTMLElementTagNameMap[Name][Key] }} Properties
 */

/**
 * An element with properties, listeners in `on`, and children.
 *
 * @template {keyof HTMLElementTagNameMap} Name
 * @param {Name} name
 * @param {Properties<Name> & { on?: Listeners<Name> }} props
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[Name]}
 */
export function el(name, { on = {}, ...props } = {}, ...children) {
  const node = document.createElement(name);
  Object.assign(node, props);
  for (const [type, act] of Object.entries(on)) node.addEventListener(type, /** @type {EventListener} */ (act));
  node.append(...children.filter((child) => child != null && child !== false));
  return node;
}

/**
 * A drawing of index.html. A screen reader skips it: the element around it has the words.
 *
 * @param {string} name
 */
export function icon(name) {
  const svg = /** @type {SVGElement} */ (document.querySelector("svg.icon")?.cloneNode(true));
  svg.firstElementChild?.setAttribute("href", `#i-${name}`);
  return svg;
}

/**
 * Calls `act` once nothing has called this for so many milliseconds.
 *
 * @template {unknown[]} Parameters
 * @param {number} milliseconds
 * @param {(...parameters: Parameters) => void} act
 */
export function after(milliseconds, act) {
  /** @type {number | undefined} */
  let timer;
  /** @param {Parameters} parameters */
  const later = (...parameters) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...parameters), milliseconds);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

/** @param {number} value */
export const number = (value) => value.toLocaleString("en");

/** @param {number} count */
export const images = (count) => (count === 1 ? "1 image" : `${number(count)} images`);

/** @param {string} uri */
export const fileName = (uri) => uri.split(/[/#]/).pop() || uri;
