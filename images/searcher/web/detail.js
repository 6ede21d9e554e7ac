// One image, large: what is known of it, its neighbours, and the way to the one before and the one after.

import * as api from "./api.js";
import { $, el, fileName, icon, number } from "./dom.js";
import { ALIKE } from "./state.js";

const NEIGHBOURS = 12;
const SWIPE = 60;

export class Detail {
  /** `acts`: open(id), close(), like(id, weight), filter(field, value), list() of the results, where(field) its facet. */
  constructor(acts) {
    this.acts = acts;
    this.dialog = $("detail");
    this.shown = "";
    this.abort = new AbortController();
    this.dialog.addEventListener("close", () => this.shown && acts.close());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
  }

  render(state) {
    const key = state.open && JSON.stringify([state.open, state.index]);
    if (key === this.shown) return;
    this.shown = key;
    this.abort.abort();
    if (!state.open) return this.dialog.close();
    this.show(state.open, state.index);
  }

  async show(id, index) {
    this.abort = new AbortController();
    const { signal } = this.abort;
    const known = this.acts.list().find((result) => result.id === id);
    this.paint(id, index, known);
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.querySelector(".side").scrollTop = 0;
    try {
      // One search tells all: what it is, and what is like it.
      const body = { id, k: NEIGHBOURS + 1, ...(index && { index }) };
      const { results } = await api.search(body, signal);
      const itself = results.find((result) => result.id === id);
      if (!known && itself) this.paint(id, index, itself, false);
      const others = results.filter((result) => result.id !== id).slice(0, NEIGHBOURS);
      this.strip(".neighbours", "Similar images", others.map((one) => one.id), index, others);
    } catch (problem) {
      if (problem.name !== "AbortError") this.dialog.querySelector(".neighbours").replaceChildren(el("p", { className: "wrong" }, problem.message));
    }
  }

  paint(id, index, result, ours = true) {
    const list = this.acts.list();
    const place = list.findIndex((one) => one.id === id);
    const name = result ? fileName(result.uri) : "Image";
    const path = api.original(id, index);
    const round = (drawing, words, act, more = {}) => el("button", { className: "round", ariaLabel: words, title: words, on: { click: act }, ...more }, icon(drawing));
    const focused = this.dialog.contains(document.activeElement) && document.activeElement.ariaLabel;
    const stage = el("div", { className: "stage" }, this.frame(id, index, result, name));
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
    const again = focused && [...this.dialog.querySelectorAll("button:not(:disabled)")].find((one) => one.ariaLabel === focused);
    (again || side.querySelector(".closing")).focus({ focusVisible: Boolean(again) });
  }

  /** The thumbnail at once, the original over it once it is there, in the place that it will take. */
  frame(id, index, result, name) {
    const frame = el("div", { className: "frame" });
    const { width, height } = result || { width: 4, height: 3 };
    frame.style.setProperty("--shape", width / height);
    frame.style.setProperty("--width", `${result ? Math.max(width, Math.min(2 * width, 1100)) : 640}px`);
    const whole = el("img", { className: "whole", src: api.original(id, index), alt: result ? name : "", decoding: "async" });
    whole.addEventListener("load", () => frame.classList.add("there"));
    whole.addEventListener("error", () => {
      whole.remove();
      frame.firstChild.alt = name;
      this.dialog.querySelector(".facts")?.append(" · the original is not available; this is its thumbnail");
    });
    frame.append(el("img", { src: api.thumbnail(id, index), alt: "" }), whole);
    return frame;
  }

  about(result) {
    const rows = Object.entries(result.metadata).sort(([one], [other]) => one.localeCompare(other));
    const list = el("dl", {});
    for (const [field, value] of rows) list.append(el("dt", {}, field), el("dd", {}, ...this.values(field, value)));
    list.append(el("dt", {}, "source"), el("dd", { className: "uri" }, result.uri));
    return list;
  }

  values(field, value) {
    const known = this.acts.facet(field);
    return [value].flat().flatMap((one, place) => {
      const text = String(one);
      const shown =
        known && known.type !== "number" && !isLink(text)
          ? el("button", { className: "plain", title: `Only images with this ${field}`, on: { click: () => this.acts.filter(known, one) } }, text)
          : isLink(text)
            ? el("a", { href: text, target: "_blank", rel: "noopener noreferrer" }, text)
            : text;
      return place ? [", ", shown] : [shown];
    });
  }

  strip(where, headline, ids, index, results = []) {
    const section = this.dialog.querySelector(where);
    const open = (id) => () => this.acts.open(id);
    const tiles = ids.map((id, place) => {
      const result = results[place];
      const label = result ? `${fileName(result.uri)}, score ${result.score.toFixed(2)}` : `Near-duplicate ${place + 1}`;
      return el(
        "button",
        { title: label, ariaLabel: label, on: { click: open(id) } },
        el("img", { src: api.thumbnail(id, index), alt: "", loading: "lazy", width: 96, height: 96 }),
        result?.score >= ALIKE && el("span", { className: "same" }, "="),
      );
    });
    section.replaceChildren(el("h3", {}, headline), tiles.length ? el("div", { className: "strip" }, ...tiles) : el("p", { className: "faint" }, "This index has no other image."));
  }

  like(id, weight) {
    this.acts.like(id, weight);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    const button = { ArrowLeft: ".previous", ArrowRight: ".next" }[event.key];
    if (button) {
      this.dialog.querySelector(button)?.click();
      event.preventDefault();
    } else if (event.key === "+") this.like(JSON.parse(this.shown)[0], 1);
    else if (event.key === "-") this.like(JSON.parse(this.shown)[0], -1);
  }

  /** A finger on an enlarged page moves the page, and one on a page that was scrolled scrolls it back: both say nothing. */
  swipe(stage, step) {
    let from = null;
    const begin = ({ touches: [{ clientX: x, clientY: y }, second] }) => {
      from = second || visualViewport.scale > 1.05 ? null : { x, y, atTop: this.dialog.scrollTop <= 0 };
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

const isLink = (text) => /^https?:\/\/\S+$/.test(text);

function facts(result, found) {
  const size = `${number(result.width)} × ${number(result.height)} pixels`;
  return found ? `${size} · score ${result.score.toFixed(3)}` : size;
}
