// Filters, made from the fields that the index has: values with their counts, ranges of numbers, true and false; the
// score; near-duplicates; and what was found, to save.

import { $, after, el, icon, number } from "./dom.js";
import { ALIKE } from "./state.js";

/** So many fields have a button of their own, the others share one. */
const OWN = 5;
/** A longer list of values gets a box to narrow it. */
const LONG = 10;
const PAUSE = 250;
/** A text with more different values than this, for one image, is a name and nothing to choose. */
const NAMES = 0.8;
/** What says most of what an image shows comes first. */
const ORDER = ["list", "text", "number", "bool"];

/** `acts.change({where}|{score}|{fold})` searches anew; `acts.save(format)`. */
export class Filters {
  constructor(acts) {
    this.acts = acts;
    this.row = $("tools");
    this.fields = [];
    this.best = 1;
    this.changes = {};
    this.send = after(PAUSE, () => {
      acts.change(this.changes);
      this.changes = {};
    });
    document.addEventListener("pointerdown", ({ target }) => this.close(target.closest("details.menu")));
    document.addEventListener("keydown", (event) => {
      const open = event.key === "Escape" && event.target.closest?.("details.menu[open]");
      if (!open) return;
      open.open = false;
      open.querySelector("summary").focus();
      event.stopPropagation();
    });
  }

  close(except = null) {
    for (const menu of this.row.querySelectorAll("details.menu[open]")) if (menu !== except) menu.open = false;
  }

  /** The fields of another index: the whole row is made anew. */
  make(fields, state) {
    this.fields = fields.filter(useful).sort((one, other) => ORDER.indexOf(one.type) - ORDER.indexOf(other.type) || other.images - one.images);
    const own = this.fields.slice(0, this.fields.length > OWN + 1 ? OWN : OWN + 1);
    const others = this.fields.slice(own.length);
    this.row.replaceChildren(
      ...own.map((facet) => this.menu(facet.field, () => this.form(facet), facet.field)),
      ...(others.length ? [this.menu("more fields", () => this.many(others), "")] : []),
      this.menu("score", () => this.score(), "#score"),
      el(
        "label",
        { className: "toggle", title: `Show images with a similarity of ${ALIKE} or more as one` },
        el("input", {
          id: "fold",
          type: "checkbox",
          checked: state.fold,
          on: { change: ({ target }) => this.acts.change({ fold: target.checked }) },
        }),
        "fold near-duplicates",
      ),
      el("button", { id: "reset", className: "plain", hidden: true, on: { click: () => this.acts.change({ where: {}, score: null }) } }, "Clear filters"),
      el("span", { className: "space" }),
      this.menu("save", () => this.save(), "#save"),
    );
    this.render(state);
  }

  render(state) {
    this.state = state;
    for (const menu of this.row.querySelectorAll("details.menu")) {
      const { field } = menu.dataset;
      const said = field === "#score" ? scoreWords(state.score) : words(state.where[field]);
      menu.querySelector(".said").textContent = said;
      menu.classList.toggle("on", Boolean(said));
    }
    if ($("fold")) $("fold").checked = state.fold;
    if ($("reset")) $("reset").hidden = state.score === null && !Object.keys(state.where).length;
  }

  menu(name, content, field) {
    const sheet = el("div", { className: "sheet" });
    const menu = el(
      "details",
      { className: "menu" },
      el("summary", {}, el("span", {}, name), el("span", { className: "said" }), icon("down")),
      sheet,
    );
    menu.dataset.field = field;
    menu.fill = () => sheet.replaceChildren(content());
    menu.addEventListener("toggle", () => {
      if (!menu.open) return;
      this.close(menu);
      menu.fill();
      // To the left where it would not fit to the right.
      sheet.classList.remove("left");
      sheet.classList.toggle("left", sheet.getBoundingClientRect().right > innerWidth - 8);
    });
    return menu;
  }

  many(facets) {
    return el("div", { className: "many" }, ...facets.map((facet) => el("details", {}, el("summary", {}, facet.field), this.form(facet))));
  }

  form(facet) {
    const kinds = { number: () => this.range(facet), bool: () => this.either(facet) };
    return (kinds[facet.type] || (() => this.values(facet)))();
  }

  later(change) {
    Object.assign(this.changes, change);
    this.send();
  }

  want(field, wanted) {
    const { [field]: _, ...others } = this.state.where;
    this.state = { ...this.state, where: wanted ? { ...others, [field]: wanted } : others };
    this.later({ where: this.state.where });
  }

  values(facet) {
    const key = facet.type === "list" ? "has" : "any";
    const chosen = new Set(this.state.where[facet.field]?.[key]);
    const choose = (value, on) => {
      if (on) chosen.add(value);
      else chosen.delete(value);
      this.want(facet.field, chosen.size ? { [key]: [...chosen] } : null);
    };
    const counts = new Map(facet.values.map(({ value, count }) => [value, count]));
    const all = [...new Set([...chosen, ...counts.keys()])];
    const rows = all.map((value) =>
      el(
        "label",
        { className: "value" },
        el("input", { type: "checkbox", checked: chosen.has(value), on: { change: ({ target }) => choose(value, target.checked) } }),
        el("span", { className: "name" }, String(value)),
        el("span", { className: "count" }, number(counts.get(value) || 0)),
      ),
    );
    const list = el("div", { className: "values", role: "group", ariaLabel: facet.field }, ...rows);
    const none = el("p", { className: "faint", hidden: true }, "No such value");
    const narrow = ({ target }) => {
      const wanted = target.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !row.querySelector(".name").textContent.toLowerCase().includes(wanted);
      none.hidden = rows.some((row) => !row.hidden);
    };
    const box = el("input", { type: "search", placeholder: "Narrow the list", ariaLabel: `Narrow the values of ${facet.field}`, on: { input: narrow } });
    const rest = (facet.distinct ?? Infinity) > facet.values.length;
    return el("div", {}, all.length > LONG && box, list, none, rest && el("p", { className: "faint" }, `The ${facet.values.length} most frequent values`));
  }

  range(facet) {
    const { min, max } = facet;
    const whole = facet.values.every(({ value }) => Number.isInteger(value));
    const step = whole ? 1 : (max - min) / 100 || "any";
    const at = { ...this.state.where[facet.field] };
    const set = (side, text) => {
      const value = text === "" ? null : Number(text);
      const free = value === null || !Number.isFinite(value) || (side === "min" ? value <= min : value >= max);
      at[side] = free ? null : value;
      this.want(facet.field, at.min == null && at.max == null ? null : { ...at });
    };
    const side = (name, label, start) => {
      const box = el("input", { type: "number", step: "any", placeholder: start, value: at[name] ?? "", ariaLabel: `${facet.field} ${label}` });
      const slide = el("input", { type: "range", min, max, step, value: at[name] ?? start, ariaLabel: `${facet.field} ${label}, slider` });
      box.addEventListener("input", () => {
        slide.value = box.value === "" ? start : box.value;
        set(name, box.value);
      });
      slide.addEventListener("input", () => {
        box.value = Number(slide.value) === start ? "" : +slide.valueAsNumber.toPrecision(6);
        set(name, slide.value);
      });
      return el("div", { className: "side" }, el("span", { ariaHidden: "true" }, label), slide, box);
    };
    return el("div", { className: "range" }, side("min", "from", min), side("max", "to", max));
  }

  either(facet) {
    const counts = new Map(facet.values.map(({ value, count }) => [value, count]));
    const choice = (label, is, count) =>
      el(
        "label",
        { className: "value" },
        el("input", {
          type: "radio",
          name: `is-${facet.field}`,
          checked: this.state.where[facet.field]?.is === is,
          on: { change: () => this.want(facet.field, is === undefined ? null : { is }) },
        }),
        el("span", { className: "name" }, label),
        el("span", { className: "count" }, count === undefined ? "" : number(count)),
      );
    const choices = [choice("either", undefined), choice("true", true, counts.get(true) || 0), choice("false", false, counts.get(false) || 0)];
    return el("div", { className: "values", role: "radiogroup", ariaLabel: facet.field }, ...choices);
  }

  score() {
    const most = Math.max(0.05, Math.ceil(this.best * 100) / 100);
    const said = el("output", {}, scoreWords(this.state.score) || "any");
    const slide = el("input", {
      id: "score",
      type: "range",
      min: 0,
      max: most,
      step: 0.01,
      value: this.state.score ?? 0,
      ariaLabel: "Minimum score",
      on: {
        input: ({ target }) => {
          const score = target.valueAsNumber || null;
          this.state = { ...this.state, score };
          said.textContent = scoreWords(score) || "any";
          this.later({ score });
        },
      },
    });
    return el("div", { className: "range" }, el("div", { className: "side" }, slide, said), el("p", { className: "faint" }, "Hide images with a lower score."));
  }

  save() {
    const one = (format, label) => el("button", { className: "row", on: { click: () => this.acts.save(format) } }, label);
    return el("div", {}, one("json", "JSON, with all metadata"), one("csv", "CSV, for a spreadsheet"), el("p", { className: "faint" }, "The first 1,000 results"));
  }

  /** The best score that was found: the slider goes up to it. */
  found(results, state) {
    if (state.score === null && results.length) this.best = results[0].score;
  }
}

/** Whether there is something to choose between. */
function useful(facet) {
  if (facet.type === "number") return facet.min < facet.max;
  if (!facet.values.length) return false;
  return facet.type === "list" || facet.values.length <= LONG || (facet.distinct ?? Infinity) < facet.images * NAMES;
}

function words(wanted) {
  if (!wanted) return "";
  const values = wanted.any || wanted.has;
  if (values) return values.length === 1 ? String(values[0]) : `${values.length}`;
  if ("is" in wanted) return String(wanted.is);
  if (wanted.min != null && wanted.max != null) return `${wanted.min}–${wanted.max}`;
  return wanted.min != null ? `≥ ${wanted.min}` : `≤ ${wanted.max}`;
}

const scoreWords = (score) => (score === null ? "" : `≥ ${score.toFixed(2)}`);
