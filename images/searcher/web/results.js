// The images that were found, in rows, with as many pages as are scrolled to.

import * as api from "./api.js";
import { $, el, fileName, icon, images } from "./dom.js";
import { request } from "./state.js";

const PAGE = 40;
/** Wider and narrower ones are shown with their middle. */
const WIDEST = 2;
const NARROWEST = 0.6;

export const shape = (result) => Math.min(WIDEST, Math.max(NARROWEST, result.width / result.height || 1));

export class Results {
  /** `acts`: open(id), like(id, weight), status(sentence), found(answer, list), grown(), ended(problem),
   *  failed(problem, again). */
  constructor(acts) {
    this.acts = acts;
    this.list = [];
    this.grid = $("results");
    this.abort = new AbortController();
    this.next = null;
    this.busy = false;
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.grid.addEventListener("focusin", (event) => this.rove(event.target.closest(".tile")));
    // Far before the end is seen, so that what is added moves nothing that is.
    new IntersectionObserver(([end]) => end.isIntersecting && this.more(), { rootMargin: "1400px" }).observe($("more"));
  }

  /** Looks for what the state asks; what was looked for before is given up. */
  async find(state) {
    this.abort.abort();
    this.abort = new AbortController();
    this.body = request(state);
    this.next = null;
    this.busy = true;
    this.grid.classList.add("stale");
    this.acts.status("Searching…");
    try {
      const answer = await api.search({ ...this.body, k: PAGE }, this.abort.signal);
      this.busy = false;
      this.replace(answer);
      this.take(answer);
      this.acts.found(answer, this.list);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.busy = false;
      this.clear();
      this.acts.failed(problem, () => this.find(state));
    }
  }

  async more() {
    if (!this.next || this.busy || this.grid.hidden) return;
    this.busy = true;
    const { signal } = this.abort;
    try {
      const answer = await api.search({ ...this.body, k: PAGE, cursor: this.next }, signal);
      if (signal.aborted) return;
      this.busy = false;
      this.take(answer);
      this.acts.grown();
    } catch (problem) {
      if (problem.name === "AbortError") return;
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

  /** What is shown goes only when what comes instead is there: nothing flickers while a person types. */
  replace(answer) {
    this.clear();
    this.took = answer.took_ms.total;
    this.index = answer.index;
    if (scrollY > 0) scrollTo({ top: 0 });
  }

  clear() {
    this.list = [];
    this.next = null;
    this.grid.replaceChildren();
    this.grid.classList.remove("stale");
  }

  take(answer) {
    this.next = answer.next_cursor;
    this.grid.append(...answer.results.map((result, place) => this.tile(result, this.list.length + place)));
    this.list.push(...answer.results);
    if (this.grid.firstChild && !this.grid.querySelector('.open[tabindex="0"]')) this.rove(this.grid.firstChild);
    this.hold();
    if (this.next) this.reach();
  }

  /** A last row that is not full is not shown before the next page fills it: its images would move. */
  hold() {
    for (const tile of this.grid.querySelectorAll(".held")) tile.classList.remove("held");
    const top = this.next ? this.grid.lastElementChild?.offsetTop : null;
    for (let tile = this.grid.lastElementChild; tile?.offsetTop === top; tile = tile.previousElementSibling) {
      if (top > 0 && tile !== this.grid.firstElementChild) tile.classList.add("held");
    }
  }

  sentence() {
    const some = this.next ? "First " : "";
    return `${some}${images(this.list.length)}, best first`;
  }

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
          on: { load: (event) => event.target.classList.add("there") },
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

  act(id, drawing, words, weight) {
    const props = { tabIndex: -1, title: words, ariaLabel: words, on: { click: () => this.acts.like(id, weight) } };
    return el("button", props, icon(drawing));
  }

  // One image at a time is a stop of the tab key; arrows go on from there.
  rove(tile) {
    if (!tile) return;
    for (const other of this.grid.querySelectorAll('.open[tabindex="0"]')) other.tabIndex = -1;
    tile.querySelector(".open").tabIndex = 0;
  }

  focus(id) {
    const tile = id ? this.grid.querySelector(`[data-id="${CSS.escape(id)}"]`) : this.grid.firstElementChild;
    tile?.querySelector(".open").focus({ preventScroll: !id });
    tile?.scrollIntoView({ block: "nearest" });
    return Boolean(tile);
  }

  key(event) {
    const tile = event.target.closest(".tile");
    if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = {
      ArrowRight: () => tile.nextElementSibling,
      ArrowLeft: () => tile.previousElementSibling,
      ArrowDown: () => this.row(tile, 1),
      ArrowUp: () => this.row(tile, -1) || $("text"),
      Home: () => this.grid.firstElementChild,
      End: () => this.grid.lastElementChild,
    }[event.key];
    if (to) {
      const next = to();
      const target = next?.querySelector?.(".open") || next;
      target?.focus({ preventScroll: true });
      target?.scrollIntoView({ block: "nearest" });
      if (!next) this.more();
      event.preventDefault();
    } else if (event.key === "+" || event.key === "=") this.acts.like(tile.dataset.id, 1);
    else if (event.key === "-") this.acts.like(tile.dataset.id, -1);
  }

  /** The tile of the next row, or the one before, that lies nearest under or above this one. */
  row(tile, way) {
    const middle = tile.offsetLeft + tile.offsetWidth / 2;
    const step = way > 0 ? "nextElementSibling" : "previousElementSibling";
    let best = null;
    let top = null;
    for (let at = tile[step]; at; at = at[step]) {
      if (at.offsetTop === tile.offsetTop) continue;
      top ??= at.offsetTop;
      if (at.offsetTop !== top) break;
      const far = Math.abs(at.offsetLeft + at.offsetWidth / 2 - middle);
      if (!best || far < best.far) best = { at, far };
    }
    return best?.at;
  }
}
