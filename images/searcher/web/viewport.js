// The geometry of the map's view: the part of the map that the canvas shows, and conversions between map and canvas.

const MIN_ZOOM = 0.5;
const MAX_ZOOM = 60;
const MARGIN = 48;
/** The map fills the canvas, but its longer side is at most this multiple of the shorter one. */
const MAX_STRETCH = 1.8;
const MIN_TILE = 10;
const MAX_TILE = 240;
/** Tiles cover this share of the map's width and height if the points are evenly spread. */
const COVERAGE = 0.75;

/** @typedef {import("./state.js").View} View */
/** @typedef {{ x: number, y: number }} Point A point of the map: x and y are from 0 to 1. */
/** @typedef {[x: number, y: number]} Position A position on the canvas, in pixels from its top left corner. */

/** A view on a canvas of a certain size. Immutable: each change returns a new viewport. */
export class Viewport {
  /**
   * @param {number} width of the canvas, in pixels
   * @param {number} height of the canvas, in pixels
   * @param {View} view
   */
  constructor(width = 0, height = 0, view = [0.5, 0.5, 1]) {
    const [x, y, zoom] = view;
    this.width = width;
    this.height = height;
    this.x = clamp(x, 0, 1);
    this.y = clamp(y, 0, 1);
    this.zoom = clamp(zoom, MIN_ZOOM, MAX_ZOOM);
  }

  /** @returns {View} */
  get view() {
    return [this.x, this.y, this.zoom];
  }

  /** @returns {Position} */
  get center() {
    return [this.width / 2, this.height / 2];
  }

  /** The map's width and height, in pixels. */
  get mapSize() {
    const width = Math.max(100, this.width - 2 * MARGIN);
    const height = Math.max(100, this.height - 2 * MARGIN);
    return [Math.min(width, height * MAX_STRETCH) * this.zoom, Math.min(height, width * MAX_STRETCH) * this.zoom];
  }

  /**
   * The side of a tile, in pixels.
   *
   * @param {number} count the number of tiles on the map
   */
  tileSize(count) {
    const [width, height] = this.mapSize;
    return clamp(Math.sqrt((width * height) / (count || 1)) * COVERAGE, MIN_TILE, MAX_TILE);
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  resized(width, height) {
    return new Viewport(width, height, this.view);
  }

  /** @param {View} view */
  at(view) {
    return new Viewport(this.width, this.height, view);
  }

  /**
   * The view after the map is dragged.
   *
   * @param {number} right in pixels
   * @param {number} down in pixels
   */
  panned(right, down) {
    const [width, height] = this.mapSize;
    return this.at([this.x - right / width, this.y - down / height, this.zoom]);
  }

  /**
   * The view after zooming. The point of the map at this position of the canvas stays there.
   *
   * @param {number} factor
   * @param {Position} position
   */
  zoomed(factor, position = this.center) {
    const [width, height] = this.mapSize;
    const zoom = clamp(this.zoom * factor, MIN_ZOOM, MAX_ZOOM);
    const shift = 1 - this.zoom / zoom;
    const right = ((position[0] - this.width / 2) / width) * shift;
    const down = ((position[1] - this.height / 2) / height) * shift;
    return this.at([this.x + right, this.y + down, zoom]);
  }

  /**
   * @param {Point} point
   * @returns {Position}
   */
  position(point) {
    const [width, height] = this.mapSize;
    return [(point.x - this.x) * width + this.width / 2, (point.y - this.y) * height + this.height / 2];
  }

  /**
   * The index of the point that is nearest to a position, or -1. Of points at the same distance, the last one: it is
   * drawn on top.
   *
   * @param {Point[]} points
   * @param {Position} position
   * @param {number} maxDistance in pixels, horizontally and vertically
   */
  nearest(points, position, maxDistance = Infinity) {
    let nearest = -1;
    let leastDistance = maxDistance;
    points.forEach((point, i) => {
      const [x, y] = this.position(point);
      const distance = Math.max(Math.abs(x - position[0]), Math.abs(y - position[1]));
      if (distance <= leastDistance) [nearest, leastDistance] = [i, distance];
    });
    return nearest;
  }

  /**
   * Whether another view differs visibly from this one.
   *
   * @param {View} view
   */
  differsFrom(view) {
    return this.view.some((value, i) => Math.abs(value - view[i]) > 1e-3);
  }
}

/** @type {(value: number, low: number, high: number) => number} */
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
