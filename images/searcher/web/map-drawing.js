// The drawing of the map on its canvas: the images as tiles of one sprite, or as thumbnails if the tiles are large.

import { Thumbnails } from "./thumbnails.js";

/** Tiles of this size, in pixels, or larger show thumbnails. */
const THUMBNAIL_SIZE = 56;
const MAX_PIXEL_RATIO = 2;
const OUTLINE_WIDTH = 3;

/** @typedef {import("./api.js").Point} Point */
/** @typedef {import("./viewport.js").Viewport} Viewport */
/** @typedef {{ index: string, points: Point[], sprite: HTMLImageElement, tile: number, columns: number }} Content
 *   `sprite`: the tiles of the points, in rows of `columns`; `tile`: the side of a tile in the sprite, in pixels */

export class MapDrawing {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} thumbnailLoaded
   */
  constructor(canvas, thumbnailLoaded) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.thumbnails = new Thumbnails(thumbnailLoaded);
  }

  /**
   * @param {number} width in CSS pixels
   * @param {number} height in CSS pixels
   */
  resize(width, height) {
    const ratio = Math.min(MAX_PIXEL_RATIO, devicePixelRatio || 1);
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  /** Removes all that was drawn, and the thumbnails. */
  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.thumbnails.clear();
  }

  /**
   * Draws all visible points, and loads the thumbnails that are missing, from the center outwards.
   *
   * @param {Content} content
   * @param {Viewport} viewport
   * @param {number} highlighted the index of the point that is drawn on top, with an outline; -1: none
   */
  draw(content, viewport, highlighted) {
    this.context.clearRect(0, 0, viewport.width, viewport.height);
    this.context.imageSmoothingQuality = "high";
    const size = viewport.tileSize(content.points.length);
    const [centerX, centerY] = viewport.center;
    /** @type {[distance: number, id: string][]} */
    const missing = [];
    /** @param {number} i */
    const drawPoint = (i) => {
      const { id } = content.points[i];
      const [x, y] = viewport.position(content.points[i]);
      if (x < -size || y < -size || x > viewport.width + size || y > viewport.height + size) return;
      const isLarge = size >= THUMBNAIL_SIZE;
      if (isLarge && !this.thumbnails.isRequested(id)) missing.push([Math.hypot(x - centerX, y - centerY), id]);
      const thumbnail = isLarge ? this.thumbnails.get(id) : null;
      const [width, height] = thumbnail ? this.drawThumbnail(thumbnail, x, y, size) : this.drawTile(content, i, x, y, size);
      if (i === highlighted) this.drawOutline(x, y, width, height);
    };
    for (let i = 0; i < content.points.length; i++) if (i !== highlighted) drawPoint(i);
    if (highlighted >= 0) drawPoint(highlighted);
    missing.sort(([distance], [other]) => distance - other);
    this.thumbnails.load(
      missing.map(([, id]) => id),
      content.index,
    );
  }

  /** @type {(thumbnail: HTMLImageElement, x: number, y: number, size: number) => [width: number, height: number]} */
  drawThumbnail(thumbnail, x, y, size) {
    const scale = size / Math.max(thumbnail.naturalWidth, thumbnail.naturalHeight);
    const [width, height] = [thumbnail.naturalWidth * scale, thumbnail.naturalHeight * scale];
    this.context.drawImage(thumbnail, x - width / 2, y - height / 2, width, height);
    return [width, height];
  }

  /** @type {(content: Content, i: number, x: number, y: number, size: number) => [width: number, height: number]} */
  drawTile({ sprite, tile, columns }, i, x, y, size) {
    const [left, top] = [(i % columns) * tile, Math.floor(i / columns) * tile];
    this.context.drawImage(sprite, left, top, tile, tile, x - size / 2, y - size / 2, size, size);
    return [size, size];
  }

  /** @type {(x: number, y: number, width: number, height: number) => void} */
  drawOutline(x, y, width, height) {
    this.context.lineWidth = OUTLINE_WIDTH;
    this.context.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--accent") || "#36f";
    this.context.strokeRect(x - width / 2, y - height / 2, width, height);
  }
}
