// The search box: searches for the text that the user types, and for images and URLs that the user brings.

import { problemOf } from "./api.js";
import { $, closest, debounce } from "./dom.js";
import * as upload from "./upload.js";

/** After the last keystroke. */
const PAUSE_MILLISECONDS = 220;

/** @typedef {import("./router.js").Router} Router */
/** @typedef {{ status: (message: string) => void, failed: (problem: import("./api.js").Problem, retry: () => void) => void,
 *   focusResults: () => boolean }} Handlers `focusResults` returns whether there are results */

export class SearchBox {
  /**
   * @param {Router} router
   * @param {Handlers} handlers
   */
  constructor(router, handlers) {
    this.router = router;
    this.handlers = handlers;
    this.input = $("text");
    this.searchSoon = debounce(PAUSE_MILLISECONDS, () => this.searchText({ replace: true }));
    this.input.addEventListener("input", () => this.searchSoon());
    this.input.addEventListener("keydown", (event) => this.key(event));
    $("search").addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.input.value;
      if (upload.isUrl(text)) this.searchImage(() => upload.fromUrl(text));
      else this.searchText();
    });
    document.addEventListener("keydown", (event) => this.shortcut(event));
    upload.listen({
      file: (file) => this.searchImage(() => upload.fromFile(file, this.router.state.index)),
      url: (text) => this.searchImage(() => upload.fromUrl(text)),
    });
  }

  /**
   * The text of the state, unless the user is typing it.
   *
   * @param {import("./state.js").State} state
   */
  render({ text }) {
    const isTyping = document.activeElement === this.input && this.input.value.trim() === text;
    if (!isTyping) this.input.value = text;
  }

  /** @param {import("./router.js").Options} [options] */
  searchText(options) {
    this.searchSoon.cancel();
    const text = this.input.value.trim();
    if (upload.isUrl(text) || text === this.router.state.text) return;
    this.router.go({ text, view: "search", openId: "", ...(text ? {} : { textWeight: 1 }) }, options);
  }

  /**
   * Starts a new search for an image. "More like this" keeps the text instead.
   *
   * @param {() => upload.Unweighted | Promise<upload.Unweighted>} read
   */
  async searchImage(read) {
    this.searchSoon.cancel();
    this.handlers.status("Reading the image…");
    try {
      const part = await read();
      this.router.go({ text: "", textWeight: 1, parts: [{ ...part, weight: 1 }], view: "search", openId: "" });
      this.input.value = "";
    } catch (error) {
      this.handlers.failed(problemOf(error), () => this.searchImage(read));
    }
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.key === "ArrowDown" && this.handlers.focusResults()) event.preventDefault();
    if (event.key === "Escape" && !this.input.value) this.input.blur();
  }

  /**
   * The / key moves to the search box from anywhere else.
   *
   * @param {KeyboardEvent} event
   */
  shortcut(event) {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || closest(event, "input, select, dialog")) return;
    event.preventDefault();
    this.input.focus();
    this.input.select();
  }
}
