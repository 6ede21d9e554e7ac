// The map of an index: like beside like, from one image of small tiles; nearer, with real thumbnails.

import * as api from "./api.js";
import { $, after, el, icon, images } from "./dom.js";

const FARTHEST = 0.5;
const NEAREST = 60;
/** Pixels of a tile on the screen from which on its thumbnail is worth a request. */
const REAL = 56;
const LARGEST = 240;
const LOADING = 8;
const KEPT = 400;
const MARGIN = 48;
const STRETCH = 1.8;

/** @typedef {import("./state.js").State} State */
/** @typedef {[x: number, y: number]} Spot A place on the canvas, in pixels. */
/** @typedef {[x: number, y: number, zoom: number]} View The middle of what is shown, and how large it is. */
/** @typedef {{ open: (id: string) => void, moved: (at: View) => void, status: (sentence: string) => void,
 *   problem: (problem: api.Problem, again: () => void) => void }} Acts */

export class ImageMap {
  /** @param {Acts} acts */
  constructor(acts) {
    this.acts = acts;
    this.canvas = el("canvas", {
      tabIndex: 0,
      role: "application",
      ariaLabel: "Map of the images. Arrow keys move, plus and minus zoom, Enter opens the image in the middle, 0 shows all.",
    });
    this.name = el("p", { className: "hint faint" }, "Scroll or pinch to zoom, drag to move, click an image to open it");
    /** @type {(drawing: string, words: string, act: () => void) => HTMLElement} */
    const button = (drawing, words, act) => el("button", { className: "round", ariaLabel: words, title: words, on: { click: act } }, icon(drawing));
    const buttons = el(
      "div",
      { className: "zoom" },
      button("plus", "Zoom in", () => this.zoom(1.6)),
      button("minus", "Zoom out", () => this.zoom(1 / 1.6)),
      button("fit", "Show all", () => this.fit()),
    );
    $("map").append(this.canvas, buttons, this.name);
    this.pen = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.view = { x: 0.5, y: 0.5, z: 1 };
    /** @type {string | null} */
    this.index = null;
    /** @type {api.Point[]} */
    this.points = [];
    /** @type {HTMLImageElement | null} */
    this.sprite = null;
    this.tile = 0;
    this.columns = 1;
    this.wide = 0;
    this.high = 0;
    /** @type {Map<string, HTMLImageElement>} */
    this.thumbs = new Map();
    this.loading = 0;
    /** @type {Map<number, Spot>} */
    this.pointers = new Map();
    /** @type {Spot} */
    this.start = [0, 0];
    this.moved = false;
    this.keys = false;
    this.hovered = -1;
    this.due = 0;
    this.tell = after(300, () => this.acts.moved([this.view.x, this.view.y, this.view.z]));
    this.listen();
    new ResizeObserver(() => this.resize()).observe($("map"));
  }

  /** @param {State} state */
  async render(state) {
    $("map").hidden = state.view !== "map";
    if ($("map").hidden) return;
    if (state.index !== this.index) return this.load(state);
    const { x, y, z } = this.view;
    if (state.at && state.at.some((value, place) => Math.abs(value - [x, y, z][place]) > 1e-3)) this.go(state.at);
  }

  /** @param {State} state */
  async load(state) {
    this.index = state.index;
    this.points = [];
    this.thumbs.clear();
    this.acts.status("Loading the map…");
    try {
      const map = await api.map(state.index);
      const sprite = new Image();
      sprite.src = api.below(map.sprite);
      await sprite.decode();
      if (this.index !== state.index) return;
      Object.assign(this, { points: map.points, sprite, tile: map.tile, columns: map.columns });
      const sample = map.points.length < map.images ? `A sample of ${images(map.points.length)} of ${images(map.images)}` : images(map.images);
      this.acts.status(`${sample}, similar images near each other`);
      this.resize();
      if (state.at) this.go(state.at);
      else this.fit();
    } catch (error) {
      this.index = null;
      this.acts.problem(api.problemOf(error), () => this.load(state));
    }
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return;
    this.wide = clientWidth;
    this.high = clientHeight;
    const dense = Math.min(2, devicePixelRatio || 1);
    this.canvas.width = Math.round(clientWidth * dense);
    this.canvas.height = Math.round(clientHeight * dense);
    this.pen.setTransform(dense, 0, 0, dense, 0, 0);
    this.draw();
  }

  /** The map's width and height in pixels. It is stretched to the screen, but not out of recognition. */
  get size() {
    const [wide, high] = [Math.max(100, this.wide - 2 * MARGIN), Math.max(100, this.high - 2 * MARGIN)];
    return [Math.min(wide, high * STRETCH) * this.view.z, Math.min(high, wide * STRETCH) * this.view.z];
  }

  /** Of a tile: they touch where images lie evenly. */
  get side() {
    const [wide, high] = this.size;
    return Math.min(LARGEST, Math.max(10, Math.sqrt((wide * high) / (this.points.length || 1)) * 0.75));
  }

  fit() {
    this.go([0.5, 0.5, 1]);
    this.tell();
  }

  /** @param {View} view */
  go([x, y, z]) {
    this.view = { x: clamp(x, 0, 1), y: clamp(y, 0, 1), z: clamp(z, FARTHEST, NEAREST) };
    this.draw();
  }

  /**
   * @param {number} across in pixels
   * @param {number} down in pixels
   */
  move(across, down) {
    const [wide, high] = this.size;
    this.go([this.view.x - across / wide, this.view.y - down / high, this.view.z]);
    this.tell();
  }

  /**
   * The place of the map at (x, y) of the canvas stays there.
   *
   * @param {number} factor
   */
  zoom(factor, x = this.wide / 2, y = this.high / 2) {
    const [wide, high] = this.size;
    const z = clamp(this.view.z * factor, FARTHEST, NEAREST);
    const kept = 1 - this.view.z / z;
    const across = ((x - this.wide / 2) / wide) * kept;
    const down = ((y - this.high / 2) / high) * kept;
    this.go([this.view.x + across, this.view.y + down, z]);
    this.tell();
  }

  draw() {
    if (this.due) return;
    this.due = requestAnimationFrame(() => {
      this.due = 0;
      this.paint();
    });
  }

  /**
   * @param {api.Point} point
   * @returns {Spot}
   */
  screen(point) {
    const [wide, high] = this.size;
    return [(point.x - this.view.x) * wide + this.wide / 2, (point.y - this.view.y) * high + this.high / 2];
  }

  paint() {
    const { pen, side, sprite, tile } = this;
    if (!sprite || !this.wide) return;
    pen.clearRect(0, 0, this.wide, this.high);
    pen.imageSmoothingQuality = "high";
    /** @type {[far: number, id: string][]} */
    const wanted = [];
    const marked = this.marked();
    /** @param {number} place */
    const paintPoint = (place) => {
      const point = this.points[place];
      const [x, y] = this.screen(point);
      if (x < -side || y < -side || x > this.wide + side || y > this.high + side) return;
      const thumb = side >= REAL ? this.thumbs.get(point.id) : undefined;
      if (side >= REAL && !this.thumbs.has(point.id)) wanted.push([Math.hypot(x - this.wide / 2, y - this.high / 2), point.id]);
      if (thumb?.naturalWidth) {
        const scale = side / Math.max(thumb.naturalWidth, thumb.naturalHeight);
        const [width, height] = [thumb.naturalWidth * scale, thumb.naturalHeight * scale];
        pen.drawImage(thumb, x - width / 2, y - height / 2, width, height);
        if (place === marked) this.mark(x, y, width, height);
      } else {
        pen.drawImage(sprite, (place % this.columns) * tile, Math.floor(place / this.columns) * tile, tile, tile, x - side / 2, y - side / 2, side, side);
        if (place === marked) this.mark(x, y, side, side);
      }
    };
    for (let place = 0; place < this.points.length; place++) if (place !== marked) paintPoint(place);
    if (marked >= 0) paintPoint(marked);
    wanted.sort(([near], [far]) => near - far);
    for (const [, id] of wanted.slice(0, LOADING - this.loading)) this.fetch(id);
  }

  /** The image under the pointer, or the one that Enter would open. */
  marked() {
    const keys = this.keys && document.activeElement === this.canvas;
    return keys && this.hovered < 0 ? this.nearest(this.wide / 2, this.high / 2) : this.hovered;
  }

  /**
   * @param {number} x
   * @param {number} y
   * @param {number} width
   * @param {number} height
   */
  mark(x, y, width, height) {
    this.pen.lineWidth = 3;
    this.pen.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--accent") || "#36f";
    this.pen.strokeRect(x - width / 2, y - height / 2, width, height);
  }

  /** @param {string} id */
  fetch(id) {
    const thumb = new Image();
    this.loading += 1;
    this.thumbs.set(id, thumb);
    const [oldest] = this.thumbs.keys();
    if (this.thumbs.size > KEPT) this.thumbs.delete(oldest);
    thumb.onload = thumb.onerror = () => {
      this.loading -= 1;
      this.draw();
    };
    thumb.src = api.thumbnail(id, this.index ?? "");
  }

  /**
   * The point whose tile is under (x, y), the one on top first; without `within`, whichever is nearest. -1: none.
   *
   * @param {number} x
   * @param {number} y
   */
  nearest(x, y, within = Infinity) {
    let best = -1;
    let least = within;
    this.points.forEach((point, place) => {
      const [px, py] = this.screen(point);
      const far = Math.max(Math.abs(px - x), Math.abs(py - y));
      if (far <= least) [best, least] = [place, far];
    });
    return best;
  }

  listen() {
    const { canvas } = this;
    /** @type {(event: MouseEvent) => Spot} */
    const spot = (event) => {
      const { left, top } = canvas.getBoundingClientRect();
      return [event.clientX - left, event.clientY - top];
    };
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
        this.zoom(Math.exp(-clamp(pixels, -240, 240) * (event.ctrlKey ? 0.01 : 0.0025)), ...spot(event));
      },
      { passive: false },
    );
    canvas.addEventListener("pointerdown", (event) => {
      this.pointers.set(event.pointerId, spot(event));
      this.moved = this.pointers.size > 1;
      this.start = spot(event);
      canvas.setPointerCapture(event.pointerId);
      this.keys = false;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = spot(event);
      const before = this.pointers.get(event.pointerId);
      if (!before) return this.hover(now);
      if (Math.hypot(now[0] - this.start[0], now[1] - this.start[1]) > 4) this.moved = true;
      if (!this.moved) return;
      const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
      if (others.length === 1) {
        const [[, other]] = others;
        /** @param {Spot} at */
        const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1;
        this.move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
        this.zoom(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      } else if (!others.length) this.move(now[0] - before[0], now[1] - before[1]);
      this.pointers.set(event.pointerId, now);
    });
    /** @param {PointerEvent} event */
    const end = (event) => this.pointers.delete(event.pointerId);
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    // Not before the click: after a tap it would go to what has opened under the finger.
    canvas.addEventListener("click", (event) => {
      const place = this.moved ? -1 : this.nearest(...spot(event), this.side / 2);
      if (place >= 0) this.open(place);
    });
    canvas.addEventListener("pointerleave", () => this.hover(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.draw());
    canvas.addEventListener("focus", () => this.draw());
    document.documentElement.addEventListener("themechange", () => this.draw());
  }

  /**
   * The address gets the place on the map first: the way back leads there.
   *
   * @param {number} place
   */
  open(place) {
    this.tell.cancel();
    this.acts.moved([this.view.x, this.view.y, this.view.z]);
    this.acts.open(this.points[place].id);
  }

  /** @param {Spot | null} at */
  hover(at) {
    const place = at ? this.nearest(...at, this.side / 2) : -1;
    if (place === this.hovered) return;
    this.hovered = place;
    this.canvas.classList.toggle("over", place >= 0);
    this.draw();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = Math.min(this.wide, this.high) / 6;
    /** @type {Record<string, () => void>} */
    const acts = {
      ArrowLeft: () => this.move(step, 0),
      ArrowRight: () => this.move(-step, 0),
      ArrowUp: () => this.move(0, step),
      ArrowDown: () => this.move(0, -step),
      "+": () => this.zoom(1.4),
      "=": () => this.zoom(1.4),
      "-": () => this.zoom(1 / 1.4),
      0: () => this.fit(),
      Enter: () => {
        const place = this.nearest(this.wide / 2, this.high / 2);
        if (place >= 0) this.open(place);
      },
    };
    if (!Object.hasOwn(acts, event.key)) return;
    this.keys = true;
    this.hovered = -1;
    acts[event.key]();
    this.draw();
    event.preventDefault();
  }
}

/** @type {(value: number, low: number, high: number) => number} */
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
