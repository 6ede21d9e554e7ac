// What was found, as a file to keep.

import * as api from "./api.js";

/** A spreadsheet takes no more, and a person asks for no more. */
const MOST = 1_000;
const PAGE = 200;

/** @typedef {import("./api.js").Result} Result */
/** @typedef {import("./api.js").Search} Search */
/** @typedef {"json" | "csv"} Format */

/**
 * All results of a search, page after page.
 *
 * @param {Search} body
 */
async function all(body) {
  /** @type {Result[]} */
  const found = [];
  /** @type {string | null} */
  let cursor = null;
  do {
    const k = Math.min(PAGE, MOST - found.length);
    /** @type {api.Page} */
    const page = await api.search({ ...body, k, ...(cursor && { cursor }) });
    found.push(...page.results);
    cursor = page.next_cursor;
  } while (cursor && found.length < MOST);
  return found;
}

/**
 * Saves the results of a search to a file, and returns their number.
 *
 * @param {Search} body
 * @param {Format} format
 */
export async function save(body, format) {
  const found = await all(body);
  const text = format === "csv" ? csv(found) : JSON.stringify({ search: body, results: found }, null, 2);
  const address = URL.createObjectURL(new Blob([text], { type: format === "csv" ? "text/csv" : "application/json" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = `${body.index || "images"}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
  return found.length;
}

/** @param {Result[]} found */
function csv(found) {
  const fields = [...new Set(found.flatMap((result) => Object.keys(result.metadata)))].sort();
  const head = ["id", "score", "uri", "width", "height", "duplicates", ...fields];
  const rows = found.map((result) => [
    result.id,
    result.score,
    result.uri,
    result.width,
    result.height,
    (result.duplicates || []).join(" "),
    ...fields.map((field) => [result.metadata[field] ?? ""].flat().join("; ")),
  ]);
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/**
 * A cell by RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe before it.
 *
 * @param {string | number} value
 */
function cell(value) {
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
