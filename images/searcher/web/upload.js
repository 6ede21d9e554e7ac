// Images that a person brings: chosen, dropped or pasted, as a file or by its address.

import * as api from "./api.js";
import { $, closest } from "./dom.js";
import { pack } from "./state.js";

/** Sent as it is up to here; a larger one is made smaller first. The model looks at some hundred pixels anyway. */
const BYTES = 3_000_000;
const PIXELS = 1_600;
const FACE = 96;
const DIRECT = ["image/jpeg", "image/png", "image/webp"];
const KEPT = "imgsearch-image-";

/** @typedef {Omit<import("./state.js").Part, "weight">} Unweighted */

/**
 * A small picture of an image that was brought in this tab; a link has only its vector.
 *
 * @param {string} value
 */
export function picture(value) {
  try {
    return sessionStorage.getItem(KEPT + value) || "";
  } catch {
    return "";
  }
}

/**
 * @param {string} value
 * @param {string} small
 */
function keep(value, small) {
  try {
    sessionStorage.setItem(KEPT + value, small);
  } catch {
    // Full, or forbidden: the chip has a drawing instead.
  }
}

/**
 * The part of a search that an image file is. Throws api.Problem.
 *
 * @param {File} file
 * @param {string} index
 * @returns {Promise<Unweighted>}
 */
export async function ofFile(file, index) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap && !DIRECT.includes(file.type)) {
    throw new api.Problem(422, `${file.name || "The file"} is not an image that this browser can read.`);
  }
  const whole = file.size <= BYTES && DIRECT.includes(file.type);
  const data = whole || !bitmap ? await url(file) : drawn(bitmap, PIXELS, 0.92);
  const { vectors } = await api.embed(data, index);
  const value = pack(vectors[0]);
  if (bitmap) keep(value, drawn(bitmap, FACE, 0.8));
  return { kind: "vector", value };
}

/**
 * @param {File} file
 * @returns {Promise<string>}
 */
function url(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(`data:application/octet-stream;base64,${String(reader.result).split(",")[1]}`);
    reader.onerror = () => failed(new api.Problem(422, `${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

/**
 * @param {ImageBitmap} bitmap
 * @param {number} longest in pixels
 * @param {number} quality from 0 to 1
 */
function drawn(bitmap, longest, quality) {
  const scale = Math.min(1, longest / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.fillStyle = "#fff"; // under what is transparent, as the index has it
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", quality);
}

/** @param {string} text */
export const isAddress = (text) => /^https?:\/\/[^\s/]+\S*$/i.test(text.trim());

/**
 * The part of a search that an address is: an image of the index where it is one of ours.
 *
 * @param {string} text
 * @returns {Unweighted}
 */
export function ofAddress(text) {
  const address = text.trim();
  const own = new URL("v1/images/", document.baseURI).href;
  if (address.startsWith(own)) return { kind: "id", value: decodeURIComponent(address.slice(own.length).split(/[/?]/)[0]) };
  return { kind: "url", value: address };
}

/**
 * Calls `acts` with each image that is chosen, dropped or pasted.
 *
 * @param {{ file: (file: File) => void, address: (text: string) => void }} acts
 */
export function listen(acts) {
  /** @param {DataTransfer | null} data */
  const bring = (data) => {
    if (!data) return false;
    const file = [...data.files].find((one) => one.type.startsWith("image/")) || data.files[0];
    const address = data.getData("text/uri-list").split("\n")[0] || data.getData("text/plain");
    if (address && isAddress(address) && (!file || ofAddress(address).kind === "id")) acts.address(address);
    else if (file) acts.file(file);
    else return false;
    return true;
  };
  /** @param {boolean} on */
  const dropping = (on) => ($("dropping").hidden = !on);
  /** @param {DragEvent} event */
  const brings = (event) => ["Files", "text/uri-list"].some((type) => event.dataTransfer?.types.includes(type));
  $("file").addEventListener("change", () => {
    const [file] = $("file").files ?? [];
    if (file) acts.file(file);
    $("file").value = "";
  });
  document.addEventListener("dragover", (event) => {
    if (!brings(event)) return;
    event.preventDefault();
    dropping(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || dropping(false));
  document.addEventListener("drop", (event) => {
    dropping(false);
    if (!brings(event)) return;
    event.preventDefault();
    bring(event.dataTransfer);
  });
  document.addEventListener("paste", (event) => {
    const typing = closest(event, "input, textarea");
    const foreign = typing && typing !== $("text");
    if (!foreign && bring(event.clipboardData)) event.preventDefault();
  });
}
