// The detail view: one large image with its metadata, similar images, and buttons to the previous and next result.

import * as api from "./api.js";
import { $, all, closest, element, fileName, first, formatNumber, icon } from "./dom.js";
import { fieldLabel } from "./facets.js";
import { DUPLICATE_SIMILARITY } from "./state.js";

const NEIGHBOURS = 12;
const SWIPE_PIXELS = 60;

/** @typedef {import("./api.js").Facet} Facet */
/** @typedef {import("./api.js").Result} Result */
/** @typedef {import("./api.js").Value} Value */
/** @typedef {{ open: (id: string) => void, close: () => void, searchLike: (id: string, weight: number) => void,
 *   filter: (facet: Facet, value: Value) => void, results: () => Result[],
 *   facet: (field: string) => Facet | undefined }} Handlers `results`: those of the search */

export class Detail {
  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    this.dialog = $("detail");
    this.renderedKey = "";
    this.abort = new AbortController();
    this.dialog.addEventListener("close", () => this.renderedKey && handlers.close());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
  }

  /** @param {import("./state.js").State} state */
  render(state) {
    const key = state.openId && JSON.stringify([state.openId, state.index]);
    if (key === this.renderedKey) return;
    this.renderedKey = key;
    this.abort.abort();
    if (!state.openId) return this.dialog.close();
    this.show(state.openId, state.index);
  }

  /**
   * @param {string} id
   * @param {string} index
   */
  async show(id, index) {
    this.abort = new AbortController();
    const { signal } = this.abort;
    const listed = this.handlers.results().find((result) => result.id === id);
    this.renderImage(id, index, listed);
    if (!this.dialog.open) this.dialog.showModal();
    first(this.dialog, ".sidebar").scrollTop = 0;
    try {
      // One search returns the image itself and similar images.
      const body = { id, k: NEIGHBOURS + 1, ...(index && { index }) };
      const { results } = await api.search(body, signal);
      const image = results.find((result) => result.id === id);
      if (!listed && image) this.renderImage(id, index, image, false);
      const others = results.filter((result) => result.id !== id).slice(0, NEIGHBOURS);
      this.showStrip(".neighbours", "Similar images", others.map((other) => other.id), index, others);
    } catch (error) {
      if (api.isAbort(error)) return;
      first(this.dialog, ".neighbours").replaceChildren(element("p", { className: "error" }, api.problemOf(error).message));
    }
  }

  /**
   * @param {string} id
   * @param {string} index
   * @param {Result | undefined} result undefined: not loaded yet
   * @param {boolean} isResult whether it is a result of the search
   */
  renderImage(id, index, result, isResult = true) {
    const results = this.handlers.results();
    const rank = results.findIndex((other) => other.id === id);
    const name = result ? fileName(result.uri) : "Image";
    const url = api.original(id, index);
    /** @type {(iconName: string, label: string, click: () => void, properties: object) => HTMLButtonElement} */
    const iconButton = (iconName, label, click, properties) => element("button", { ariaLabel: label, title: label, on: { click }, ...properties }, icon(iconName));
    const focusedLabel = this.dialog.contains(document.activeElement) && document.activeElement?.ariaLabel;
    const stage = element("div", { className: "stage" }, this.frame(id, index, result, name));
    /** @param {1 | -1} direction */
    const step = (direction) => results[rank + direction] && this.handlers.open(results[rank + direction].id);
    if (rank >= 0 && results.length > 1) {
      stage.append(
        iconButton("left", "Previous image", () => step(-1), { className: "icon-button previous", disabled: rank === 0 }),
        iconButton("right", "Next image", () => step(1), { className: "icon-button next", disabled: rank === results.length - 1 }),
      );
    }
    this.listenForSwipes(stage, step);
    const sidebar = element(
      "div",
      { className: "sidebar", tabIndex: -1 },
      element(
        "div",
        { className: "heading" },
        element("h2", { id: "detail-name" }, name),
        iconButton("close", "Close", () => this.dialog.close(), { className: "icon-button close" }),
      ),
      element("p", { className: "muted facts" }, result ? facts(result, rank >= 0 && isResult) : " "),
      element(
        "p",
        { className: "actions" },
        element("button", { className: "button", on: { click: () => this.searchLike(id, 1) } }, icon("plus"), "More like this"),
        element("button", { className: "button", on: { click: () => this.searchLike(id, -1) } }, icon("minus"), "Less like this"),
        element("a", { className: "button", href: url, download: name, ariaLabel: "Download", title: "Download" }, icon("download")),
      ),
      element("section", { className: "duplicate-images" }),
      result && this.metadata(result),
      element("section", { className: "neighbours" }, element("h3", {}, "Similar images"), element("div", { className: "strip loading" })),
    );
    this.dialog.replaceChildren(stage, sidebar);
    if (result?.duplicates?.length) this.showStrip(".duplicate-images", `Near-duplicates of this image: ${result.duplicates.length}`, result.duplicates, index);
    const sameButton = focusedLabel ? [...all(this.dialog, "button:not(:disabled)")].find((button) => button.ariaLabel === focusedLabel) : null;
    const options = { focusVisible: Boolean(sameButton) }; // TypeScript has no type for this option yet
    (sameButton || first(sidebar, ".close")).focus(options);
  }

  /**
   * Shows the thumbnail at once, and the original over it when it is loaded, both in the size of the original.
   *
   * @param {string} id
   * @param {string} index
   * @param {Result | undefined} result
   * @param {string} name
   */
  frame(id, index, result, name) {
    const frame = element("div", { className: "frame" });
    const { width, height } = result || { width: 4, height: 3 };
    frame.style.setProperty("--aspect", String(width / height));
    frame.style.setProperty("--width", `${result ? Math.max(width, Math.min(2 * width, 1100)) : 640}px`);
    const thumbnail = element("img", { src: api.thumbnail(id, index), alt: "" });
    const original = element("img", { className: "original", src: api.original(id, index), alt: result ? name : "", decoding: "async" });
    original.addEventListener("load", () => frame.classList.add("loaded"));
    original.addEventListener("error", () => {
      original.remove();
      thumbnail.alt = name;
      this.dialog.querySelector(".facts")?.append(" · the original is not available; this is its thumbnail");
    });
    frame.append(thumbnail, original);
    return frame;
  }

  /** @param {Result} result */
  metadata(result) {
    const rows = Object.entries(result.metadata).sort(([field], [other]) => field.localeCompare(other));
    const list = element("dl", {});
    for (const [field, value] of rows) list.append(element("dt", {}, fieldLabel(field)), element("dd", {}, ...this.values(field, value)));
    list.append(element("dt", {}, "source"), element("dd", { className: "uri" }, result.uri));
    return list;
  }

  /**
   * @param {string} field
   * @param {Value | Value[]} value
   */
  values(field, value) {
    const facet = this.handlers.facet(field);
    return [value].flat().flatMap((item, i) => {
      const text = String(item);
      const content =
        facet && facet.type !== "number" && !isLink(text)
          ? element("button", { className: "link", title: `Only images with this ${fieldLabel(field)}`, on: { click: () => this.handlers.filter(facet, item) } }, text)
          : isLink(text)
            ? element("a", { href: text, target: "_blank", rel: "noopener noreferrer" }, text)
            : text;
      return i ? [", ", content] : [content];
    });
  }

  /**
   * @param {string} selector of the section that gets the strip
   * @param {string} headline
   * @param {string[]} ids
   * @param {string} index
   * @param {Result[]} results of the ids, if they are loaded
   */
  showStrip(selector, headline, ids, index, results = []) {
    const section = first(this.dialog, selector);
    /** @param {string} id */
    const open = (id) => () => this.handlers.open(id);
    const tiles = ids.map((id, i) => {
      const result = results.at(i);
      const label = result ? `${fileName(result.uri)}, score ${result.score.toFixed(2)}` : `Near-duplicate ${i + 1}`;
      return element(
        "button",
        { title: label, ariaLabel: label, on: { click: open(id) } },
        element("img", { src: api.thumbnail(id, index), alt: "", loading: "lazy", width: 96, height: 96 }),
        result && result.score >= DUPLICATE_SIMILARITY && element("span", { className: "duplicate-mark" }, "="),
      );
    });
    section.replaceChildren(element("h3", {}, headline), tiles.length ? element("div", { className: "strip" }, ...tiles) : element("p", { className: "muted" }, "This index has no other image."));
  }

  /**
   * @param {string} id
   * @param {number} weight
   */
  searchLike(id, weight) {
    this.handlers.searchLike(id, weight);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || closest(event, "input")) return;
    const button = event.key === "ArrowLeft" ? ".previous" : event.key === "ArrowRight" ? ".next" : "";
    if (button) {
      all(this.dialog, button)[0]?.click();
      event.preventDefault();
    } else if (event.key === "+") this.searchLike(JSON.parse(this.renderedKey)[0], 1);
    else if (event.key === "-") this.searchLike(JSON.parse(this.renderedKey)[0], -1);
  }

  /**
   * A horizontal swipe opens the next image, a swipe down closes the view. On a zoomed page a finger pans the page, and
   * on a scrolled page a finger scrolls it back: neither is a swipe.
   *
   * @param {HTMLElement} stage
   * @param {(direction: 1 | -1) => void} step
   */
  listenForSwipes(stage, step) {
    /** @type {{ x: number, y: number, atTop: boolean } | null} */
    let start = null;
    /** @param {TouchEvent} event */
    const begin = ({ touches: [{ clientX: x, clientY: y }, second] }) => {
      const zoomed = visualViewport && visualViewport.scale > 1.05;
      start = second || zoomed ? null : { x, y, atTop: this.dialog.scrollTop <= 0 };
    };
    stage.addEventListener("touchstart", begin, { passive: true });
    stage.addEventListener("touchend", ({ changedTouches: [{ clientX, clientY }] }) => {
      if (!start) return;
      const across = clientX - start.x;
      const down = clientY - start.y;
      const { atTop } = start;
      start = null;
      if (Math.abs(across) > SWIPE_PIXELS && Math.abs(across) > 2 * Math.abs(down)) step(across < 0 ? 1 : -1);
      else if (atTop && down > 2 * SWIPE_PIXELS && down > 2 * Math.abs(across)) this.dialog.close();
    });
  }
}

/** @param {string} text */
const isLink = (text) => /^https?:\/\/\S+$/.test(text);

/**
 * @param {Result} result
 * @param {boolean} isResult whether the search has a score for it
 */
function facts(result, isResult) {
  const size = `${formatNumber(result.width)} × ${formatNumber(result.height)} pixels`;
  return isResult ? `${size} · score ${result.score.toFixed(3)}` : size;
}
