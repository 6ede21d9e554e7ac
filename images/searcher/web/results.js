// The results of a search: rows of images. The next page loads before the user scrolls to it.

import * as api from "./api.js";
import { $, all, element, fileName, icon, imageCount } from "./dom.js";
import { GridKeys } from "./grid-keys.js";
import { request } from "./state.js";

const PAGE_SIZE = 40;
/** The aspect ratios of tiles. A wider or narrower image is cropped. */
const WIDEST = 2;
const NARROWEST = 0.6;

/** @typedef {import("./api.js").Result} Result */
/** @typedef {import("./api.js").Page} Page */
/** @typedef {import("./api.js").Problem} Problem */
/** @typedef {import("./state.js").State} State */
/** @typedef {{ open: (id: string) => void, searchLike: (id: string, weight: number) => void, status: (message: string) => void,
 *   found: (page: Page, list: Result[]) => void, appended: () => void, pageFailed: (problem: Problem) => void,
 *   failed: (problem: Problem, retry: () => void) => void }} Handlers */

/**
 * The aspect ratio of a tile: width by height.
 *
 * @param {Result} result
 */
const aspect = (result) => Math.min(WIDEST, Math.max(NARROWEST, result.width / result.height || 1));

export class Results {
  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    /** @type {Result[]} */
    this.list = [];
    /** @type {import("./api.js").Search} */
    this.body = {};
    this.grid = $("results");
    this.abort = new AbortController();
    /** @type {string | null} */
    this.cursor = null;
    this.loading = false;
    this.keys = new GridKeys(this.grid, { searchLike: handlers.searchLike, atEnd: () => this.loadMore() });
    // The next page loads far before the end is visible: visible images must not move.
    new IntersectionObserver(([entry]) => entry.isIntersecting && this.loadMore(), { rootMargin: "1400px" }).observe($("sentinel"));
  }

  /**
   * Starts the search of a state, and cancels the search before it.
   *
   * @param {State} state
   */
  async search(state) {
    this.abort.abort();
    this.abort = new AbortController();
    this.body = request(state);
    this.cursor = null;
    this.loading = true;
    this.grid.classList.add("stale");
    this.handlers.status("Searching…");
    try {
      const page = await api.search({ ...this.body, k: PAGE_SIZE }, this.abort.signal);
      this.loading = false;
      this.replace();
      this.append(page);
      this.handlers.found(page, this.list);
    } catch (error) {
      if (api.isAbort(error)) return;
      this.loading = false;
      this.clear();
      this.handlers.failed(api.problemOf(error), () => this.search(state));
    }
  }

  async loadMore() {
    if (!this.cursor || this.loading || this.grid.hidden) return;
    this.loading = true;
    const { signal } = this.abort;
    try {
      const page = await api.search({ ...this.body, k: PAGE_SIZE, cursor: this.cursor }, signal);
      if (signal.aborted) return;
      this.loading = false;
      this.append(page);
      this.handlers.appended();
    } catch (error) {
      if (api.isAbort(error)) return;
      const problem = api.problemOf(error);
      this.loading = false;
      if (problem.retryAfter) setTimeout(() => !signal.aborted && this.loadMore(), problem.retryAfter * 1000);
      else {
        this.cursor = null;
        this.hideIncompleteRow();
        this.handlers.pageFailed(problem);
      }
    }
  }

  /** An observer does not report an element that stays visible. */
  loadIfEndIsNear() {
    requestAnimationFrame(() => $("sentinel").getBoundingClientRect().top < innerHeight + 1400 && this.loadMore());
  }

  /** Old images stay until new ones arrive: nothing flickers while the user types. */
  replace() {
    this.clear();
    if (scrollY > 0) scrollTo({ top: 0 });
  }

  clear() {
    this.list = [];
    this.cursor = null;
    this.grid.replaceChildren();
    this.grid.classList.remove("stale");
  }

  /** @param {Page} page */
  append(page) {
    this.cursor = page.next_cursor;
    this.grid.append(...page.results.map((result, i) => this.tile(result, this.list.length + i)));
    this.list.push(...page.results);
    this.keys.ensureTabStop();
    this.hideIncompleteRow();
    if (this.cursor) this.loadIfEndIsNear();
  }

  /** Hides an incomplete last row until the next page completes it: its images would move. */
  hideIncompleteRow() {
    for (const tile of all(this.grid, ".incomplete")) tile.classList.remove("incomplete");
    const [, ...tiles] = all(this.grid, ".tile");
    const top = this.cursor && tiles.at(-1)?.offsetTop;
    if (!top) return;
    for (const tile of tiles.reverse()) {
      if (tile.offsetTop !== top) return;
      tile.classList.add("incomplete");
    }
  }

  summary() {
    const prefix = this.cursor ? "First " : "";
    return `${prefix}${imageCount(this.list.length)}, best first`;
  }

  /**
   * @param {Result} result
   * @param {number} rank from 0
   */
  tile(result, rank) {
    const name = fileName(result.uri);
    const duplicates = result.duplicates?.length || 0;
    const open = () => this.handlers.open(result.id);
    const tile = element(
      "li",
      { className: "tile" },
      element(
        "button",
        {
          className: "open",
          tabIndex: -1,
          ariaLabel: `${name}, score ${result.score.toFixed(2)}${duplicates ? `, near-duplicates: ${duplicates}` : ""}`,
          on: { click: open },
        },
        element("img", {
          src: api.relative(result.thumbnail),
          alt: "",
          width: result.width,
          height: result.height,
          loading: rank < PAGE_SIZE ? "eager" : "lazy",
          decoding: "async",
          on: { load: ({ currentTarget }) => currentTarget.classList.add("loaded") },
        }),
      ),
      duplicates > 0 &&
        element(
          "button",
          { className: "duplicates", tabIndex: -1, title: `Near-duplicates: ${duplicates}`, on: { click: open } },
          icon("layers"),
          `+${duplicates}`,
        ),
      element("span", { className: "score", ariaHidden: "true" }, result.score.toFixed(2)),
      element(
        "span",
        { className: "actions" },
        this.likeButton(result.id, "plus", "More like this", 1),
        this.likeButton(result.id, "minus", "Less like this", -1),
      ),
    );
    tile.style.setProperty("--aspect", aspect(result).toFixed(4));
    tile.dataset.id = result.id;
    return tile;
  }

  /**
   * @param {string} id
   * @param {string} iconName
   * @param {string} label
   * @param {number} weight
   */
  likeButton(id, iconName, label, weight) {
    const properties = { tabIndex: -1, title: label, ariaLabel: label, on: { click: () => this.handlers.searchLike(id, weight) } };
    return element("button", properties, icon(iconName));
  }
}
