// The images that were found, in rows, with as many pages as are scrolled to.

import * as api from "./api.js";
import { $, all, closest, el, fileName, first, icon, images } from "./dom.js";
import { request } from "./state.js";

const PAGE = 40;
/** Wider and narrower ones are shown with their middle. */
const WIDEST = 2;
const NARROWEST = 0.6;

/** @typedef {import("./api.js").Result} Result */
/** @typedef {import("./api.js").Page} Page */
/** @typedef {import("./api.js").Problem} Problem */
/** @typedef {import("./state.js").State} State */
/** @typedef {{ open: (id: string) => void, like: (id: string, weight: number) => void, status: (sentence: string) => void,
 *   found: (page: Page, list: Result[]) => void, grown: () => void, ended: (problem: Problem) => void,
 *   failed: (problem: Problem, again: () => void) => void }} Acts */

/**
 * Width by height, as a tile has it.
 *
 * @param {Result} result
 */
const shape = (result) => Math.min(WIDEST, Math.max(NARROWEST, result.width / result.height || 1));

export class Results {
  /** @param {Acts} acts */
  constructor(acts) {
    this.acts = acts;
    /** @type {Result[]} */
    this.list = [];
    /** @type {import("./api.js").Search} */
    this.body = {};
    this.grid = $("results");
    this.abort = new AbortController();
    /** @type {string | null} */
    this.next = null;
    this.busy = false;
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.grid.addEventListener("focusin", (event) => this.rove(closest(event, ".tile")));
    // Far before the end is seen, so that what is added moves nothing that is.
    new IntersectionObserver(([end]) => end.isIntersecting && this.more(), { rootMargin: "1400px" }).observe($("more"));
  }

  /**
   * Starts the search of a state. A search that runs is given up.
   *
   * @param {State} state
   */
  async find(state) {
    this.abort.abort();
    this.abort = new AbortController();
    this.body = request(state);
    this.next = null;
    this.busy = true;
    this.grid.classList.add("stale");
    this.acts.status("Searching…");
    try {
      const page = await api.search({ ...this.body, k: PAGE }, this.abort.signal);
      this.busy = false;
      this.replace();
      this.take(page);
      this.acts.found(page, this.list);
    } catch (error) {
      if (api.isAbort(error)) return;
      this.busy = false;
      this.clear();
      this.acts.failed(api.problemOf(error), () => this.find(state));
    }
  }

  async more() {
    if (!this.next || this.busy || this.grid.hidden) return;
    this.busy = true;
    const { signal } = this.abort;
    try {
      const page = await api.search({ ...this.body, k: PAGE, cursor: this.next }, signal);
      if (signal.aborted) return;
      this.busy = false;
      this.take(page);
      this.acts.grown();
    } catch (error) {
      if (api.isAbort(error)) return;
      const problem = api.problemOf(error);
      this.busy = false;
      if (problem.retry) setTimeout(() => !signal.aborted && this.more(), problem.retry * 1000);
      else {
        this.next = null;
        this.hold();
        this.acts.ended(problem);
      }
    }
  }

  /** An observer says nothing where the end was in sight before and still is. */
  reach() {
    requestAnimationFrame(() => $("more").getBoundingClientRect().top < innerHeight + 1400 && this.more());
  }

  /** Old images stay until the new ones have come: nothing flickers while a person types. */
  replace() {
    this.clear();
    if (scrollY > 0) scrollTo({ top: 0 });
  }

  clear() {
    this.list = [];
    this.next = null;
    this.grid.replaceChildren();
    this.grid.classList.remove("stale");
  }

  /** @param {Page} page */
  take(page) {
    this.next = page.next_cursor;
    this.grid.append(...page.results.map((result, place) => this.tile(result, this.list.length + place)));
    this.list.push(...page.results);
    if (!this.grid.querySelector('.open[tabindex="0"]')) this.rove(this.grid.firstElementChild);
    this.hold();
    if (this.next) this.reach();
  }

  /** A last row that is not full is not shown before the next page fills it: its images would move. */
  hold() {
    for (const tile of all(this.grid, ".held")) tile.classList.remove("held");
    const [, ...tiles] = all(this.grid, ".tile");
    const top = this.next && tiles.at(-1)?.offsetTop;
    if (!top) return;
    for (const tile of tiles.reverse()) {
      if (tile.offsetTop !== top) return;
      tile.classList.add("held");
    }
  }

  sentence() {
    const some = this.next ? "First " : "";
    return `${some}${images(this.list.length)}, best first`;
  }

  /**
   * @param {Result} result
   * @param {number} place
   */
  tile(result, place) {
    const name = fileName(result.uri);
    const twins = result.duplicates?.length || 0;
    const open = () => this.acts.open(result.id);
    const tile = el(
      "li",
      { className: "tile" },
      el(
        "button",
        {
          className: "open",
          tabIndex: -1,
          ariaLabel: `${name}, score ${result.score.toFixed(2)}${twins ? `, near-duplicates: ${twins}` : ""}`,
          on: { click: open },
        },
        el("img", {
          src: api.below(result.thumbnail),
          alt: "",
          width: result.width,
          height: result.height,
          loading: place < PAGE ? "eager" : "lazy",
          decoding: "async",
          on: { load: ({ currentTarget }) => currentTarget.classList.add("there") },
        }),
      ),
      twins > 0 &&
        el(
          "button",
          { className: "twins", tabIndex: -1, title: `Near-duplicates: ${twins}`, on: { click: open } },
          icon("layers"),
          `+${twins}`,
        ),
      el("span", { className: "score", ariaHidden: "true" }, result.score.toFixed(2)),
      el(
        "span",
        { className: "acts" },
        this.act(result.id, "plus", "More like this", 1),
        this.act(result.id, "minus", "Less like this", -1),
      ),
    );
    tile.style.setProperty("--shape", shape(result).toFixed(4));
    tile.dataset.id = result.id;
    return tile;
  }

  /**
   * @param {string} id
   * @param {string} drawing
   * @param {string} words
   * @param {number} weight
   */
  act(id, drawing, words, weight) {
    const props = { tabIndex: -1, title: words, ariaLabel: words, on: { click: () => this.acts.like(id, weight) } };
    return el("button", props, icon(drawing));
  }

  /**
   * One image at a time is a stop of the tab key; arrows go on from there.
   *
   * @param {Element | null} tile
   */
  rove(tile) {
    if (!tile) return;
    for (const other of all(this.grid, '.open[tabindex="0"]')) other.tabIndex = -1;
    first(tile, ".open").tabIndex = 0;
  }

  /** @param {string} [id] that of the first image, if none is given */
  focus(id) {
    const tile = id ? this.grid.querySelector(`[data-id="${CSS.escape(id)}"]`) : this.grid.firstElementChild;
    if (!tile) return false;
    first(tile, ".open").focus({ preventScroll: !id });
    tile.scrollIntoView({ block: "nearest" });
    return true;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const tile = closest(event, ".tile");
    if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
    /** @type {Record<string, () => Element | null>} */
    const moves = {
      ArrowRight: () => tile.nextElementSibling,
      ArrowLeft: () => tile.previousElementSibling,
      ArrowDown: () => this.row(tile, 1),
      ArrowUp: () => this.row(tile, -1) || $("text"),
      Home: () => this.grid.firstElementChild,
      End: () => this.grid.lastElementChild,
    };
    const id = tile.dataset.id ?? "";
    if (Object.hasOwn(moves, event.key)) {
      const next = moves[event.key]();
      const target = next?.matches(".tile") ? first(next, ".open") : next;
      if (target instanceof HTMLElement) target.focus({ preventScroll: true });
      target?.scrollIntoView({ block: "nearest" });
      if (!next) this.more();
      event.preventDefault();
    } else if (event.key === "+" || event.key === "=") this.acts.like(id, 1);
    else if (event.key === "-") this.acts.like(id, -1);
  }

  /**
   * The tile of the next row (`way` 1) or of the one before (-1) that lies nearest under or above this one.
   *
   * @param {HTMLElement} tile
   * @param {1 | -1} way
   */
  row(tile, way) {
    const middle = tile.offsetLeft + tile.offsetWidth / 2;
    const step = way > 0 ? "nextElementSibling" : "previousElementSibling";
    let best = null;
    let least = Infinity;
    let top = null;
    for (let other = tile[step]; other instanceof HTMLElement; other = other[step]) {
      if (other.offsetTop === tile.offsetTop) continue;
      top ??= other.offsetTop;
      if (other.offsetTop !== top) break;
      const far = Math.abs(other.offsetLeft + other.offsetWidth / 2 - middle);
      if (far < least) [best, least] = [other, far];
    }
    return best;
  }
}
