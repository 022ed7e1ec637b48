"use strict";
// The table of runs: sorting, filtering, and a row of details below a run. All text from runs enters as text, not HTML.

const page = JSON.parse(document.getElementById("data").textContent);
const columns = [{ name: "run", title: "run", kind: "name" }, { name: "status", title: "status", kind: "text" }, ...page.columns];
const shown = new Set(page.runs.keys());
const opened = new Set();
const rowsOf = page.runs.map(() => null);
const best = page.selected === null ? null : page.groups[page.selected];
const inBest = new Set(best === null ? [] : best.runs);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function valueOf(run, index) {
  return index === 0 ? run.run : index === 1 ? run.status : run.cells[index - 2];
}

function isNumber(value) {
  return typeof value === "number";
}

function format(value, kind) {
  if (value === null) return kind === "key" ? "none" : "";
  if (!isNumber(value) || kind === "key") return String(value);
  if (kind === "count") return value.toLocaleString("en");
  if (kind === "large") return value.toExponential(2).replace("e+", "e");
  if (kind === "seconds") return value < 100 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
  return value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5) ? value.toExponential(3) : value.toFixed(4);
}

// A word of the filter, as a test of a run: words are looked for in all of its text, conditions in a column.
function condition(word) {
  const [, name, sign, wanted] = word.match(/^([^<>=]+)(<=|>=|<|>|=)(.*)$/) || [];
  const index = columns.findIndex((column) => column.name === name || column.title === name);
  if (index < 0 || wanted === "") {
    return (run) => run.text.includes(word.toLowerCase());
  }
  const number = Number(wanted);
  const tests = {
    "=": (value) => (isNumber(value) ? value === number : format(value, columns[index].kind).toLowerCase() === wanted.toLowerCase()),
    "<": (value) => isNumber(value) && value < number,
    ">": (value) => isNumber(value) && value > number,
    "<=": (value) => isNumber(value) && value <= number,
    ">=": (value) => isNumber(value) && value >= number,
  };
  return (run) => tests[sign](valueOf(run, index));
}

function applyFilter(text) {
  const tests = text.trim().split(/\s+/).filter(Boolean).map(condition);
  page.runs.forEach((run, i) => {
    const fits = tests.every((test) => test(run));
    if (fits) shown.add(i);
    else shown.delete(i);
    rowsOf[i].hidden = !fits;
    if (rowsOf[i].detail) rowsOf[i].detail.hidden = !fits;
  });
  document.getElementById("count").value = `${shown.size} of ${page.runs.length} runs`;
}

const collator = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  return isNumber(a) && isNumber(b) ? a - b : collator.compare(String(a), String(b));
}

function sortBy(index, descending) {
  const order = [...page.runs.keys()].sort((i, j) => {
    const [a, b] = [valueOf(page.runs[i], index), valueOf(page.runs[j], index)];
    if (a === null || b === null) return (a === null) - (b === null) || i - j; // Without a value: last, either way.
    return (descending ? -1 : 1) * compare(a, b) || i - j;
  });
  const body = document.querySelector("#table tbody");
  body.append(...order.flatMap((i) => (rowsOf[i].detail ? [rowsOf[i], rowsOf[i].detail] : [rowsOf[i]])));
  document.querySelectorAll("#table thead th").forEach((head, i) => {
    if (i === index) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

function sortByClick(index) {
  const now = document.querySelectorAll("#table thead th")[index].getAttribute("aria-sort");
  // Of a metric, the best come first.
  const first = columns[index].kind === "metric" && !/(loss|ece)$/.test(columns[index].name) && columns[index].name.includes("/");
  sortBy(index, now === null ? first : now === "ascending");
}

function detailOf(run, i) {
  const inside = element("div", null, "inside");
  const list = element("dl");
  page.columns.forEach((column, k) => {
    if (column.kind !== "key") return;
    const chosen = best === null || inBest.has(i) || column.name === "seed" ? undefined : best.values[keyNumber.get(column.name)];
    const other = chosen === undefined || same(chosen, run.cells[k]) ? "" : `   (selected: ${plain(chosen)})`;
    list.append(element("dt", column.name), element("dd", plain(run.cells[k]) + other));
  });
  if (list.children.length) inside.append(element("h3", inBest.has(i) ? "Config, of the selected setting" : "Config"), list);
  inside.append(element("h3", "Command"), element("pre", run.command || "not recorded: no sweep started this run"));
  if (run.lines.length) inside.append(element("h3", "Last lines of its output"), element("pre", run.lines.join("\n")));
  const row = element("tr", null, "detail");
  const cell = element("td");
  cell.colSpan = columns.length;
  cell.append(inside);
  row.append(cell);
  return row;
}

function same(a, b) {
  return plain(a) === plain(b);
}

function plain(value) {
  return value === null ? "none" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

function toggle(i, open = !opened.has(i)) {
  const row = rowsOf[i];
  const button = row.querySelector("button.more");
  button.textContent = open ? "▾" : "▸";
  button.setAttribute("aria-expanded", String(open));
  if (open && !row.detail) {
    row.detail = detailOf(page.runs[i], i);
    row.after(row.detail);
  } else if (!open && row.detail) {
    row.detail.remove();
    row.detail = null;
  }
  if (open) opened.add(i);
  else opened.delete(i);
}

const keyNumber = new Map(page.keys.map((key, k) => [key.key, k]));

function buildTable(onToggle) {
  const head = document.querySelector("#table thead tr");
  columns.forEach((column, index) => {
    const cell = element("th", null, column.kind === "name" || column.kind === "text" ? "text" : "");
    cell.scope = "col";
    const button = element("button", column.title);
    button.type = "button";
    button.addEventListener("click", () => sortByClick(index));
    cell.append(button);
    head.append(cell);
  });
  const body = document.createDocumentFragment();
  page.runs.forEach((run, i) => {
    const row = element("tr", null, inBest.has(i) ? "best" : "");
    const name = element("td", null, "text name");
    const more = element("button", "▸", "more");
    more.type = "button";
    more.setAttribute("aria-expanded", "false");
    more.setAttribute("aria-label", `details of ${run.run}`);
    more.addEventListener("click", () => { toggle(i); onToggle(); });
    const link = element("a", run.run);
    link.href = run.href + "/";
    name.title = run.run;
    name.append(more, link);
    row.append(name, element("td", run.status, `text status-${run.status}`));
    columns.slice(2).forEach((column, k) => {
      const value = run.cells[k];
      row.append(element("td", format(value, column.kind), isNumber(value) || value === null ? "" : "text"));
    });
    run.text = [run.run, run.status, ...page.columns.map((column, k) => `${column.name}=${format(run.cells[k], column.kind)}`)]
      .join(" ").toLowerCase();
    rowsOf[i] = row;
    body.append(row);
  });
  document.querySelector("#table tbody").append(body);
}
