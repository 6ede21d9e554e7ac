// Elements, made in one call each.

export const $ = (id) => document.getElementById(id);

/** An element with properties (or attributes, where it has no such property), listeners in `on`, and children. */
export function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (key === "on") for (const [type, act] of Object.entries(value)) node.addEventListener(type, act);
    else if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

/** A drawing of index.html, which says nothing to a screen reader: what holds it has the words. */
export function icon(name) {
  const svg = document.querySelector("svg.icon").cloneNode(true);
  svg.firstElementChild.setAttribute("href", `#i-${name}`);
  return svg;
}

/** Calls `act` once nothing has called this for so many milliseconds. */
export function after(milliseconds, act) {
  let timer;
  const later = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), milliseconds);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

export const number = (value) => value.toLocaleString("en");
export const images = (count) => (count === 1 ? "1 image" : `${number(count)} images`);
export const fileName = (uri) => uri.split(/[/#]/).pop() || uri;
