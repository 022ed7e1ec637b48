// What is drawn when. Charts are drawn one after the other, so that the page answers in between.

let waiting = [];

function drawAll() {
  const running = waiting.length > 0;
  waiting = charts.slice();
  if (!running) next();
}

async function next() {
  while (waiting.length > 0) {
    const chart = waiting.shift();
    await chart();
    await new Promise((resolve) => setTimeout(resolve));
  }
  document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
}

function fill(id, choices, wanted) {
  const select = document.getElementById(id);
  select.append(...choices.map(([value, text]) => new Option(text, value, false, value === wanted)));
  return select;
}

const charts = [];
buildTable(drawCurves);
const metricColumn = columns.findIndex((column) => column.name === page.metric);
sortBy(Math.max(metricColumn, 0), metricColumn > 0 && !page.lower);
applyFilter("");

const curveNames = curveChoices();
const studied = page.keys.filter((key) => key.key !== "seed");
if (curveNames.length) {
  fill("curve-metric", curveNames.map((name) => [name, name]), page.metric.replace(/^best /, ""));
  fill("curve-color", [...page.keys.map((key) => [key.key, key.key]), ["", "one for all"]], studied.length ? studied[0].key : "");
  for (const id of ["curve-metric", "curve-against", "curve-color", "curve-log"]) document.getElementById(id).addEventListener("change", drawCurves);
  charts.push(drawCurves);
} else {
  document.getElementById("curves").remove();
}

const means = page.groups.filter((group) => group.mean !== null);
if (means.length && studied.length) {
  page.keys.forEach((key, k) => {
    if (key.key === "seed" || new Set(means.map((group) => group.places[k])).size < 2) return;
    const chart = element("div", null, "chart");
    chart.id = `key-chart-${k}`;
    document.getElementById("key-charts").append(chart);
    charts.push(() => drawKey(key, k, chart.id));
  });
}
if (!document.querySelector("#key-charts .chart")) document.getElementById("keys").remove();

if (means.length > 1 && studied.length) charts.push(drawParallel);
else document.getElementById("parallel").remove();

if (means.length && page.costs.length) {
  fill("cost-name", page.costs.map((cost) => [cost.name, cost.title]), page.costs[0].name).addEventListener("change", drawCost);
  charts.push(drawCost);
} else {
  document.getElementById("cost").remove();
}

let timer = null;
document.getElementById("filter").addEventListener("input", (event) => {
  clearTimeout(timer);
  timer = setTimeout(() => {
    applyFilter(event.target.value);
    drawAll();
  }, 150);
});

drawAll();
const curveChart = document.getElementById("curve-chart");
if (curveChart) {
  // Plotly adds `on` when it draws.
  const wait = setInterval(() => {
    if (!curveChart.on) return;
    clearInterval(wait);
    curveChart.on("plotly_click", ({ points }) => {
      const i = points[0].customdata;
      toggle(i);
      rowsOf[i].scrollIntoView({ block: "nearest" });
      drawCurves();
    });
  }, 100);
}
