// Query images: files and URLs that the user chooses, drops or pastes, as parts of a search.

import * as api from "./api.js";
import { $, closest } from "./dom.js";
import { packVector } from "./state.js";

/** A larger file is scaled down before it is sent. The model uses a few hundred pixels only. */
const MAX_BYTES = 3_000_000;
const MAX_PIXELS = 1_600;
const PREVIEW_PIXELS = 96;
const ACCEPTED_TYPES = ["image/jpeg", "image/png", "image/webp"];
const PREVIEW_KEY = "imgsearch-image-";

/** @typedef {Omit<import("./state.js").Part, "weight">} Unweighted */

/**
 * The preview of a query image of this tab, or "". A link has only the vector of the image.
 *
 * @param {string} value
 */
export function preview(value) {
  try {
    return sessionStorage.getItem(PREVIEW_KEY + value) || "";
  } catch {
    return "";
  }
}

/**
 * @param {string} value
 * @param {string} url
 */
function savePreview(value, url) {
  try {
    sessionStorage.setItem(PREVIEW_KEY + value, url);
  } catch {
    // The storage is full or forbidden: the chip shows an icon.
  }
}

/**
 * An image file as a part of a search. Throws api.Problem.
 *
 * @param {File} file
 * @param {string} index
 * @returns {Promise<Unweighted>}
 */
export async function fromFile(file, index) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap && !ACCEPTED_TYPES.includes(file.type)) {
    throw new api.Problem(422, `${file.name || "The file"} is not an image that this browser can read.`);
  }
  const sendAsIs = file.size <= MAX_BYTES && ACCEPTED_TYPES.includes(file.type);
  const data = sendAsIs || !bitmap ? await dataUrl(file) : jpegUrl(bitmap, MAX_PIXELS, 0.92);
  const { vectors } = await api.embed(data, index);
  const value = packVector(vectors[0]);
  if (bitmap) savePreview(value, jpegUrl(bitmap, PREVIEW_PIXELS, 0.8));
  return { kind: "vector", value };
}

/**
 * @param {File} file
 * @returns {Promise<string>}
 */
function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(`data:application/octet-stream;base64,${String(reader.result).split(",")[1]}`);
    reader.onerror = () => reject(new api.Problem(422, `${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

/**
 * @param {ImageBitmap} bitmap
 * @param {number} maxPixels of the longer side
 * @param {number} quality from 0 to 1
 */
function jpegUrl(bitmap, maxPixels, quality) {
  const scale = Math.min(1, maxPixels / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const drawing = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  drawing.fillStyle = "#fff"; // behind transparent pixels, as in the index
  drawing.fillRect(0, 0, canvas.width, canvas.height);
  drawing.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", quality);
}

/** @param {string} text */
export const isUrl = (text) => /^https?:\/\/[^\s/]+\S*$/i.test(text.trim());

/**
 * A URL as a part of a search. The URL of an image of this searcher becomes the id of the image.
 *
 * @param {string} text
 * @returns {Unweighted}
 */
export function fromUrl(text) {
  const url = text.trim();
  const images = new URL("v1/images/", document.baseURI).href;
  if (url.startsWith(images)) return { kind: "id", value: decodeURIComponent(url.slice(images.length).split(/[/?]/)[0]) };
  return { kind: "url", value: url };
}

/**
 * Calls a handler for each image that the user chooses, drops or pastes.
 *
 * @param {{ file: (file: File) => void, url: (text: string) => void }} handlers
 */
export function listen(handlers) {
  /** @param {DataTransfer | null} data */
  const receive = (data) => {
    if (!data) return false;
    const file = [...data.files].find(({ type }) => type.startsWith("image/")) || data.files[0];
    const url = data.getData("text/uri-list").split("\n")[0] || data.getData("text/plain");
    if (url && isUrl(url) && (!file || fromUrl(url).kind === "id")) handlers.url(url);
    else if (file) handlers.file(file);
    else return false;
    return true;
  };
  /** @param {boolean} visible */
  const showDropZone = (visible) => ($("drop-zone").hidden = !visible);
  /** @param {DragEvent} event */
  const hasImage = (event) => ["Files", "text/uri-list"].some((type) => event.dataTransfer?.types.includes(type));
  $("file").addEventListener("change", () => {
    const [file] = $("file").files ?? [];
    if (file) handlers.file(file);
    $("file").value = "";
  });
  document.addEventListener("dragover", (event) => {
    if (!hasImage(event)) return;
    event.preventDefault();
    showDropZone(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || showDropZone(false));
  document.addEventListener("drop", (event) => {
    showDropZone(false);
    if (!hasImage(event)) return;
    event.preventDefault();
    receive(event.dataTransfer);
  });
  document.addEventListener("paste", (event) => {
    const field = closest(event, "input, textarea");
    const otherField = field && field !== $("text");
    if (!otherField && receive(event.clipboardData)) event.preventDefault();
  });
}
