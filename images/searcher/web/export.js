// What was found, as a file to keep.

import * as api from "./api.js";

/** A spreadsheet takes no more, and a person asks for no more. */
const MOST = 1_000;
const PAGE = 200;

/** All results of a search, page after page. */
async function all(body) {
  const found = [];
  let cursor = null;
  do {
    const k = Math.min(PAGE, MOST - found.length);
    const answer = await api.search({ ...body, k, ...(cursor && { cursor }) });
    found.push(...answer.results);
    cursor = answer.next_cursor;
  } while (cursor && found.length < MOST);
  return found;
}

/** Saves them as `format`, "json" or "csv"; gives how many they are. */
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

function csv(found) {
  const fields = [...new Set(found.flatMap((result) => Object.keys(result.metadata)))].sort();
  const head = ["id", "score", "uri", "width", "height", "duplicates", ...fields];
  const rows = found.map((result) => [
    ...head.slice(0, 5).map((name) => result[name]),
    (result.duplicates || []).join(" "),
    ...fields.map((field) => [result.metadata[field] ?? ""].flat().join("; ")),
  ]);
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** As RFC 4180 has it. What a spreadsheet would take for a formula begins with an apostrophe. */
function cell(value) {
  let text = String(value ?? "");
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
