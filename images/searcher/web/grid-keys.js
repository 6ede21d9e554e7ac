// The keyboard in the grid of results: one tab stop, arrow keys from tile to tile, plus and minus for similar images.

import { $, all, closest, first } from "./dom.js";

/** @typedef {{ searchLike: (id: string, weight: number) => void, atEnd: () => void }} Handlers
 *   `atEnd`: a key moves beyond the last tile */

export class GridKeys {
  /**
   * @param {HTMLElement} grid
   * @param {Handlers} handlers
   */
  constructor(grid, handlers) {
    this.grid = grid;
    this.handlers = handlers;
    grid.addEventListener("keydown", (event) => this.key(event));
    grid.addEventListener("focusin", (event) => this.setTabStop(closest(event, ".tile")));
  }

  /** Makes the first tile the tab stop, unless there is one. */
  ensureTabStop() {
    if (!this.grid.querySelector('.open[tabindex="0"]')) this.setTabStop(this.grid.firstElementChild);
  }

  /**
   * Makes a tile the only tab stop. Arrow keys move from there.
   *
   * @param {Element | null} tile
   */
  setTabStop(tile) {
    if (!tile) return;
    for (const other of all(this.grid, '.open[tabindex="0"]')) other.tabIndex = -1;
    first(tile, ".open").tabIndex = 0;
  }

  /**
   * Moves the focus to a tile, and returns whether there is one.
   *
   * @param {string} [id] default: the first image
   */
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
      ArrowDown: () => nearestInNextRow(tile, 1),
      ArrowUp: () => nearestInNextRow(tile, -1) || $("text"),
      Home: () => this.grid.firstElementChild,
      End: () => this.grid.lastElementChild,
    };
    const id = tile.dataset.id ?? "";
    if (Object.hasOwn(moves, event.key)) {
      const next = moves[event.key]();
      const target = next?.matches(".tile") ? first(next, ".open") : next;
      if (target instanceof HTMLElement) target.focus({ preventScroll: true });
      target?.scrollIntoView({ block: "nearest" });
      if (!next) this.handlers.atEnd();
      event.preventDefault();
    } else if (event.key === "+" || event.key === "=") this.handlers.searchLike(id, 1);
    else if (event.key === "-") this.handlers.searchLike(id, -1);
  }
}

/**
 * The nearest tile of the next row (`direction` 1) or of the previous row (-1).
 *
 * @param {HTMLElement} tile
 * @param {1 | -1} direction
 */
function nearestInNextRow(tile, direction) {
  const middle = tile.offsetLeft + tile.offsetWidth / 2;
  const sibling = direction > 0 ? "nextElementSibling" : "previousElementSibling";
  let nearest = null;
  let leastDistance = Infinity;
  let top = null;
  for (let other = tile[sibling]; other instanceof HTMLElement; other = other[sibling]) {
    if (other.offsetTop === tile.offsetTop) continue;
    top ??= other.offsetTop;
    if (other.offsetTop !== top) break;
    const distance = Math.abs(other.offsetLeft + other.offsetWidth / 2 - middle);
    if (distance < leastDistance) [nearest, leastDistance] = [other, distance];
  }
  return nearest;
}
