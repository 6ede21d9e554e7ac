// The thumbnails of the map: a cache that loads a few images at a time and drops the oldest.

import * as api from "./api.js";

const MAX_LOADING = 8;
const MAX_CACHED = 400;

export class Thumbnails {
  /** @param {() => void} loaded is called when a thumbnail has loaded or failed */
  constructor(loaded) {
    this.loaded = loaded;
    /** @type {Map<string, HTMLImageElement>} by image id, oldest first */
    this.cache = new Map();
    this.loading = 0;
  }

  clear() {
    this.cache.clear();
  }

  /** @param {string} id */
  isRequested(id) {
    return this.cache.has(id);
  }

  /**
   * The thumbnail, or null while it has not loaded.
   *
   * @param {string} id
   */
  get(id) {
    const image = this.cache.get(id);
    return image?.naturalWidth ? image : null;
  }

  /**
   * Loads the first of these images, as many as may load at the same time.
   *
   * @param {string[]} ids
   * @param {string} index
   */
  load(ids, index) {
    for (const id of ids.slice(0, MAX_LOADING - this.loading)) {
      const image = new Image();
      this.loading += 1;
      this.cache.set(id, image);
      const [oldest] = this.cache.keys();
      if (this.cache.size > MAX_CACHED) this.cache.delete(oldest);
      image.onload = image.onerror = () => {
        this.loading -= 1;
        this.loaded();
      };
      image.src = api.thumbnail(id, index);
    }
  }
}
