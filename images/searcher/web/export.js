// Results of a search as a JSON or CSV file.

import * as api from "./api.js";
import * as json from "./json.js";

/** More rows make a spreadsheet slow. */
export const MAX_RESULTS = 1_000;
const PAGE_SIZE = 200;

/** @typedef {import("./api.js").Result} Result */
/** @typedef {import("./api.js").Search} Search */
/** @typedef {"json" | "csv"} Format */

/**
 * All results of a search, page after page.
 *
 * @param {Search} body
 */
async function allResults(body) {
  /** @type {Result[]} */
  const results = [];
  /** @type {string | null} */
  let cursor = null;
  do {
    const k = Math.min(PAGE_SIZE, MAX_RESULTS - results.length);
    /** @type {api.Page} */
    const page = await api.search({ ...body, k, ...(cursor && { cursor }) });
    results.push(...page.results);
    cursor = page.next_cursor;
  } while (cursor && results.length < MAX_RESULTS);
  return results;
}

/**
 * Saves the results of a search to a file, and returns their number.
 *
 * @param {Search} body
 * @param {Format} format
 */
export async function save(body, format) {
  const results = await allResults(body);
  const text = format === "csv" ? csv(results) : json.stringify({ search: body, results }, 2);
  const url = URL.createObjectURL(new Blob([text], { type: format === "csv" ? "text/csv" : "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `${body.index || "images"}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  return results.length;
}

const COLUMNS = ["id", "score", "uri", "width", "height", "duplicates"];
const PREFIX = "metadata.";

/** @param {Result[]} results */
function csv(results) {
  const fields = [...new Set(results.flatMap((result) => Object.keys(result.metadata)))].sort();
  const header = [...COLUMNS, ...fields.map(column)];
  const rows = results.map((result) => [
    result.id,
    result.score,
    result.uri,
    result.width,
    result.height,
    (result.duplicates || []).join(" "),
    ...fields.map((field) => (Object.hasOwn(result.metadata, field) ? result.metadata[field] : "")).map((value) => (Array.isArray(value) ? value.join("; ") : value)),
  ]);
  return [header, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/**
 * The name of a field's column. No two columns have the same name: a field with the name of one of ours, or with the
 * prefix, gets the prefix.
 *
 * @param {string} field
 */
function column(field) {
  return COLUMNS.includes(field) || field.startsWith(PREFIX) ? PREFIX + field : field;
}

/**
 * A cell as in RFC 4180. A text that a spreadsheet reads as a formula gets an apostrophe before it.
 *
 * @param {import("./api.js").Value} value
 */
function cell(value) {
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
