// One image, large: what is known of it, its neighbours, and the way to the one before and the one after.

import * as api from "./api.js";
import { $, all, closest, el, fileName, first, icon, number } from "./dom.js";
import { ALIKE } from "./state.js";

const NEIGHBOURS = 12;
const SWIPE = 60;

/** @typedef {import("./api.js").Facet} Facet */
/** @typedef {import("./api.js").Result} Result */
/** @typedef {import("./api.js").Value} Value */
/** @typedef {{ open: (id: string) => void, close: () => void, like: (id: string, weight: number) => void,
 *   filter: (facet: Facet, value: Value) => void, list: () => Result[],
 *   facet: (field: string) => Facet | undefined }} Acts `list`: the results of the search */

export class Detail {
  /** @param {Acts} acts */
  constructor(acts) {
    this.acts = acts;
    this.dialog = $("detail");
    this.shown = "";
    this.abort = new AbortController();
    this.dialog.addEventListener("close", () => this.shown && acts.close());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
  }

  /** @param {import("./state.js").State} state */
  render(state) {
    const key = state.open && JSON.stringify([state.open, state.index]);
    if (key === this.shown) return;
    this.shown = key;
    this.abort.abort();
    if (!state.open) return this.dialog.close();
    this.show(state.open, state.index);
  }

  /**
   * @param {string} id
   * @param {string} index
   */
  async show(id, index) {
    this.abort = new AbortController();
    const { signal } = this.abort;
    const known = this.acts.list().find((result) => result.id === id);
    this.paint(id, index, known);
    if (!this.dialog.open) this.dialog.showModal();
    first(this.dialog, ".side").scrollTop = 0;
    try {
      // One search has it all: the image itself, and the images that are like it.
      const body = { id, k: NEIGHBOURS + 1, ...(index && { index }) };
      const { results } = await api.search(body, signal);
      const itself = results.find((result) => result.id === id);
      if (!known && itself) this.paint(id, index, itself, false);
      const others = results.filter((result) => result.id !== id).slice(0, NEIGHBOURS);
      this.strip(".neighbours", "Similar images", others.map((other) => other.id), index, others);
    } catch (error) {
      if (api.isAbort(error)) return;
      first(this.dialog, ".neighbours").replaceChildren(el("p", { className: "wrong" }, api.problemOf(error).message));
    }
  }

  /**
   * @param {string} id
   * @param {string} index
   * @param {Result | undefined} result undefined: not loaded yet
   * @param {boolean} ours whether it is a result of the search
   */
  paint(id, index, result, ours = true) {
    const list = this.acts.list();
    const place = list.findIndex((other) => other.id === id);
    const name = result ? fileName(result.uri) : "Image";
    const path = api.original(id, index);
    /** @type {(drawing: string, words: string, act: () => void, more: object) => HTMLButtonElement} */
    const round = (drawing, words, act, more) => el("button", { ariaLabel: words, title: words, on: { click: act }, ...more }, icon(drawing));
    const focused = this.dialog.contains(document.activeElement) && document.activeElement?.ariaLabel;
    const stage = el("div", { className: "stage" }, this.frame(id, index, result, name));
    /** @param {1 | -1} way */
    const step = (way) => list[place + way] && this.acts.open(list[place + way].id);
    if (place >= 0 && list.length > 1) {
      stage.append(
        round("left", "Previous image", () => step(-1), { className: "round previous", disabled: place === 0 }),
        round("right", "Next image", () => step(1), { className: "round next", disabled: place === list.length - 1 }),
      );
    }
    this.swipe(stage, step);
    const side = el(
      "div",
      { className: "side", tabIndex: -1 },
      el(
        "div",
        { className: "head" },
        el("h2", { id: "detail-name" }, name),
        round("close", "Close", () => this.dialog.close(), { className: "round closing" }),
      ),
      el("p", { className: "faint facts" }, result ? facts(result, place >= 0 && ours) : " "),
      el(
        "p",
        { className: "acts" },
        el("button", { className: "act", on: { click: () => this.like(id, 1) } }, icon("plus"), "More like this"),
        el("button", { className: "act", on: { click: () => this.like(id, -1) } }, icon("minus"), "Less like this"),
        el("a", { className: "act", href: path, download: name, ariaLabel: "Download", title: "Download" }, icon("download")),
      ),
      el("section", { className: "twins-of" }),
      result && this.about(result),
      el("section", { className: "neighbours" }, el("h3", {}, "Similar images"), el("div", { className: "strip waiting" })),
    );
    this.dialog.replaceChildren(stage, side);
    if (result?.duplicates?.length) this.strip(".twins-of", `Near-duplicates of this image: ${result.duplicates.length}`, result.duplicates, index);
    const again = focused ? [...all(this.dialog, "button:not(:disabled)")].find((button) => button.ariaLabel === focused) : null;
    const options = { focusVisible: Boolean(again) }; // an option that TypeScript has no type for yet
    (again || first(side, ".closing")).focus(options);
  }

  /**
   * The thumbnail at once, the original over it once it is there, in the place that it will take.
   *
   * @param {string} id
   * @param {string} index
   * @param {Result | undefined} result
   * @param {string} name
   */
  frame(id, index, result, name) {
    const frame = el("div", { className: "frame" });
    const { width, height } = result || { width: 4, height: 3 };
    frame.style.setProperty("--shape", String(width / height));
    frame.style.setProperty("--width", `${result ? Math.max(width, Math.min(2 * width, 1100)) : 640}px`);
    const small = el("img", { src: api.thumbnail(id, index), alt: "" });
    const whole = el("img", { className: "whole", src: api.original(id, index), alt: result ? name : "", decoding: "async" });
    whole.addEventListener("load", () => frame.classList.add("there"));
    whole.addEventListener("error", () => {
      whole.remove();
      small.alt = name;
      this.dialog.querySelector(".facts")?.append(" · the original is not available; this is its thumbnail");
    });
    frame.append(small, whole);
    return frame;
  }

  /** @param {Result} result */
  about(result) {
    const rows = Object.entries(result.metadata).sort(([field], [other]) => field.localeCompare(other));
    const list = el("dl", {});
    for (const [field, value] of rows) list.append(el("dt", {}, field), el("dd", {}, ...this.values(field, value)));
    list.append(el("dt", {}, "source"), el("dd", { className: "uri" }, result.uri));
    return list;
  }

  /**
   * @param {string} field
   * @param {Value | Value[]} value
   */
  values(field, value) {
    const known = this.acts.facet(field);
    return [value].flat().flatMap((item, place) => {
      const text = String(item);
      const shown =
        known && known.type !== "number" && !isLink(text)
          ? el("button", { className: "plain", title: `Only images with this ${field}`, on: { click: () => this.acts.filter(known, item) } }, text)
          : isLink(text)
            ? el("a", { href: text, target: "_blank", rel: "noopener noreferrer" }, text)
            : text;
      return place ? [", ", shown] : [shown];
    });
  }

  /**
   * @param {string} selector of the section that gets the strip
   * @param {string} headline
   * @param {string[]} ids
   * @param {string} index
   * @param {Result[]} results those of the ids, if they are known
   */
  strip(selector, headline, ids, index, results = []) {
    const section = first(this.dialog, selector);
    /** @param {string} id */
    const open = (id) => () => this.acts.open(id);
    const tiles = ids.map((id, place) => {
      const result = results.at(place);
      const label = result ? `${fileName(result.uri)}, score ${result.score.toFixed(2)}` : `Near-duplicate ${place + 1}`;
      return el(
        "button",
        { title: label, ariaLabel: label, on: { click: open(id) } },
        el("img", { src: api.thumbnail(id, index), alt: "", loading: "lazy", width: 96, height: 96 }),
        result && result.score >= ALIKE && el("span", { className: "same" }, "="),
      );
    });
    section.replaceChildren(el("h3", {}, headline), tiles.length ? el("div", { className: "strip" }, ...tiles) : el("p", { className: "faint" }, "This index has no other image."));
  }

  /**
   * @param {string} id
   * @param {number} weight
   */
  like(id, weight) {
    this.acts.like(id, weight);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || closest(event, "input")) return;
    const button = event.key === "ArrowLeft" ? ".previous" : event.key === "ArrowRight" ? ".next" : "";
    if (button) {
      all(this.dialog, button)[0]?.click();
      event.preventDefault();
    } else if (event.key === "+") this.like(JSON.parse(this.shown)[0], 1);
    else if (event.key === "-") this.like(JSON.parse(this.shown)[0], -1);
  }

  /**
   * A swipe across steps to the next image, one down closes. A finger on an enlarged page moves the page, and one on a
   * page that was scrolled scrolls it back: neither is a swipe.
   *
   * @param {HTMLElement} stage
   * @param {(way: 1 | -1) => void} step
   */
  swipe(stage, step) {
    /** @type {{ x: number, y: number, atTop: boolean } | null} */
    let from = null;
    /** @param {TouchEvent} event */
    const begin = ({ touches: [{ clientX: x, clientY: y }, second] }) => {
      const enlarged = visualViewport && visualViewport.scale > 1.05;
      from = second || enlarged ? null : { x, y, atTop: this.dialog.scrollTop <= 0 };
    };
    stage.addEventListener("touchstart", begin, { passive: true });
    stage.addEventListener("touchend", ({ changedTouches: [{ clientX, clientY }] }) => {
      if (!from) return;
      const across = clientX - from.x;
      const down = clientY - from.y;
      const { atTop } = from;
      from = null;
      if (Math.abs(across) > SWIPE && Math.abs(across) > 2 * Math.abs(down)) step(across < 0 ? 1 : -1);
      else if (atTop && down > 2 * SWIPE && down > 2 * Math.abs(across)) this.dialog.close();
    });
  }
}

/** @param {string} text */
const isLink = (text) => /^https?:\/\/\S+$/.test(text);

/**
 * @param {Result} result
 * @param {boolean} found whether the search has found it, and so has a score for it
 */
function facts(result, found) {
  const size = `${number(result.width)} × ${number(result.height)} pixels`;
  return found ? `${size} · score ${result.score.toFixed(3)}` : size;
}
