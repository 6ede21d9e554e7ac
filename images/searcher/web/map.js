// The map of an index: similar images near each other. The user moves, zooms, and opens images.

import * as api from "./api.js";
import { $, debounce, element, icon, imageCount } from "./dom.js";
import { listenForGestures } from "./gestures.js";
import { MapDrawing } from "./map-drawing.js";
import { Viewport } from "./viewport.js";

const BUTTON_ZOOM = 1.6;
const KEY_ZOOM = 1.4;

/** @typedef {import("./state.js").State} State */
/** @typedef {import("./state.js").View} View */
/** @typedef {import("./viewport.js").Position} Position */
/** @typedef {{ open: (id: string) => void, viewed: (view: View) => void, status: (message: string) => void,
 *   failed: (problem: api.Problem, retry: () => void) => void }} Handlers `viewed`: the user has chosen another view */

export class ImageMap {
  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    this.canvas = element("canvas", {
      tabIndex: 0,
      role: "application",
      ariaLabel: "Map of the images. Arrow keys move, plus and minus zoom, Enter opens the image in the middle, 0 shows all.",
    });
    /** @type {(iconName: string, label: string, click: () => void) => HTMLElement} */
    const button = (iconName, label, click) => element("button", { className: "icon-button", ariaLabel: label, title: label, on: { click } }, icon(iconName));
    const buttons = element(
      "div",
      { className: "zoom" },
      button("plus", "Zoom in", () => this.zoom(BUTTON_ZOOM)),
      button("minus", "Zoom out", () => this.zoom(1 / BUTTON_ZOOM)),
      button("fit", "Show all", () => this.showAll()),
    );
    const help = element("p", { className: "help muted" }, "Scroll or pinch to zoom, drag to move, click an image to open it");
    $("map").append(this.canvas, buttons, help);
    this.drawing = new MapDrawing(this.canvas, () => this.draw());
    this.viewport = new Viewport();
    /** @type {string | null} */
    this.index = null;
    /** @type {import("./map-drawing.js").Content | null} */
    this.content = null;
    this.usesKeys = false;
    this.hovered = -1;
    this.frame = 0;
    this.reportSoon = debounce(300, () => this.handlers.viewed(this.viewport.view));
    this.listen();
    new ResizeObserver(() => this.resize()).observe($("map"));
  }

  /** @param {State} state */
  async render(state) {
    $("map").hidden = state.view !== "map";
    if ($("map").hidden) return;
    if (state.index !== this.index) return this.load(state);
    if (state.mapView && this.viewport.differsFrom(state.mapView)) this.show(this.viewport.at(state.mapView));
  }

  /** @param {State} state */
  async load(state) {
    this.index = state.index;
    this.content = null;
    this.drawing.clear();
    this.handlers.status("Loading the map…");
    try {
      const { points, images, tile, columns, sprite: path } = await api.map(state.index);
      const sprite = new Image();
      sprite.src = api.relative(path);
      await sprite.decode();
      if (this.index !== state.index) return;
      this.content = { index: state.index, points, sprite, tile, columns };
      const sample = points.length < images ? `A sample of ${imageCount(points.length)} of ${imageCount(images)}` : imageCount(images);
      this.handlers.status(`${sample}, similar images near each other`);
      this.resize();
      if (state.mapView) this.show(this.viewport.at(state.mapView));
      else this.showAll();
    } catch (error) {
      this.index = null;
      this.handlers.failed(api.problemOf(error), () => this.load(state));
    }
  }

  get points() {
    return this.content?.points ?? [];
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return;
    this.drawing.resize(clientWidth, clientHeight);
    this.show(this.viewport.resized(clientWidth, clientHeight));
  }

  /** @param {Viewport} viewport */
  show(viewport) {
    this.viewport = viewport;
    this.draw();
  }

  /** Draws the map in the browser's next frame, once. */
  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.content && this.viewport.width) this.drawing.draw(this.content, this.viewport, this.highlighted());
    });
  }

  /** The index of the point under the pointer, or of the point that the Enter key opens. -1: none. */
  highlighted() {
    const hasKeyboard = this.usesKeys && document.activeElement === this.canvas;
    return hasKeyboard && this.hovered < 0 ? this.viewport.nearest(this.points, this.viewport.center) : this.hovered;
  }

  /**
   * Shows a view that the user has chosen.
   *
   * @param {Viewport} viewport
   */
  choose(viewport) {
    this.show(viewport);
    this.reportSoon();
  }

  showAll() {
    this.choose(this.viewport.at([0.5, 0.5, 1]));
  }

  /**
   * @param {number} factor
   * @param {Position} [position] default: the center of the canvas
   */
  zoom(factor, position) {
    this.choose(this.viewport.zoomed(factor, position));
  }

  /**
   * @param {number} right in pixels
   * @param {number} down in pixels
   */
  pan(right, down) {
    this.choose(this.viewport.panned(right, down));
  }

  /**
   * The index of the point whose tile is at this position, or -1.
   *
   * @param {Position} position
   */
  pointAt(position) {
    return this.viewport.nearest(this.points, position, this.viewport.tileSize(this.points.length) / 2);
  }

  listen() {
    listenForGestures(this.canvas, {
      pan: (right, down) => this.pan(right, down),
      zoom: (factor, position) => this.zoom(factor, position),
      press: () => (this.usesKeys = false),
      click: (position) => this.open(this.pointAt(position)),
      hover: (position) => this.hover(position ? this.pointAt(position) : -1),
    });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => this.draw());
    this.canvas.addEventListener("focus", () => this.draw());
    document.documentElement.addEventListener("themechange", () => this.draw());
  }

  /**
   * Opens the image of a point. The address gets the view first: the browser's back button returns to it.
   *
   * @param {number} i the index of the point; -1: none
   */
  open(i) {
    if (i < 0) return;
    this.reportSoon.cancel();
    this.handlers.viewed(this.viewport.view);
    this.handlers.open(this.points[i].id);
  }

  /** @param {number} i the index of the point; -1: none */
  hover(i) {
    if (i === this.hovered) return;
    this.hovered = i;
    this.canvas.classList.toggle("hovering", i >= 0);
    this.draw();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = Math.min(this.viewport.width, this.viewport.height) / 6;
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
      "+": () => this.zoom(KEY_ZOOM),
      "=": () => this.zoom(KEY_ZOOM),
      "-": () => this.zoom(1 / KEY_ZOOM),
      0: () => this.showAll(),
      Enter: () => this.open(this.viewport.nearest(this.points, this.viewport.center)),
    };
    if (!Object.hasOwn(actions, event.key)) return;
    this.usesKeys = true;
    this.hovered = -1;
    actions[event.key]();
    this.draw();
    event.preventDefault();
  }
}
