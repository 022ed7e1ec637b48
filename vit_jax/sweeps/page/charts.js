// The charts, drawn by plotly from the runs and settings that the filter shows.

const ink = { dark: "#1c2530", soft: "#5b6773", line: "#d9dee4", mark: "#1f5fa8", strong: "#d1495b" };
const distinctColors = ["#1f5fa8", "#d1495b", "#2a9d6f", "#e08a1e", "#7b4fa3", "#2f9fb3", "#8c5a3c", "#6b7280"];
const orderedColors = ["#2a1066", "#5a189a", "#8a2a8c", "#b33a78", "#d1495b", "#e5693f", "#ee8f26", "#dba514"];
const options = {
  responsive: true,
  displaylogo: false,
  displayModeBar: window.innerWidth < 640 ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  showSendToCloud: false, // Data stays in the page.
  plotlyServerURL: "",
};

// Plotly reads some HTML in text.
function escaped(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function wrapped(text, width = 48) {
  return escaped(text).replace(new RegExp(`(.{1,${width}})(?:[ ,] ?|$)|(.{${width}})`, "g"), (part) => `${part}<br>`).replace(/<br>$/, "");
}

function layout(x, y, more = {}) {
  const axis = { gridcolor: ink.line, linecolor: ink.line, zeroline: false, exponentformat: "power", automargin: true };
  return {
    margin: { l: 60, r: 12, t: 12, b: 48 },
    font: { family: "inherit", size: 12, color: ink.dark },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hovermode: "closest",
    hoverlabel: { align: "left" },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    modebar: { bgcolor: "rgba(255,255,255,0.85)", color: ink.soft, activecolor: ink.mark },
    showlegend: false,
    xaxis: { ...axis, ...x },
    yaxis: { ...axis, ...y },
    ...more,
  };
}

function draw(id, traces, form) {
  return Plotly.react(id, traces, form, options);
}

function colorsOf(labels) {
  const ordered = labels.length > 1 && labels.every((label) => /^-?[\d.]/.test(label));
  if (!ordered) return labels.map((_, i) => distinctColors[i % distinctColors.length]);
  return labels.map((_, i) => orderedColors[Math.round((i * (orderedColors.length - 1)) / (labels.length - 1))]);
}

function shownGroups() {
  return page.groups.filter((group) => group.mean !== null && group.runs.some((i) => shown.has(i)));
}

function figure(group) {
  const spread = group.spread === null ? "" : ` ± ${format(group.spread, "metric")}`;
  return `${format(group.mean, "metric")}${spread} (${group.done} of ${group.runs.length} ${group.runs.length === 1 ? "run" : "runs"})`;
}

function hoverOf(group) {
  return `${wrapped(group.label || "all runs")}<br>${escaped(page.metric)} ${figure(group)}`;
}

function bars(groups) {
  return { type: "data", array: groups.map((group) => group.spread || 0), visible: groups.some((g) => g.spread !== null), thickness: 1.2, width: 3 };
}

function metricAxis() {
  return { title: { text: escaped(page.metric) } };
}

// Curves: a trace for each color, since plotly takes a second for hundreds of traces; gaps keep runs apart.

function curveChoices() {
  const names = new Set();
  for (const run of page.runs) {
    for (const [kind, curve] of Object.entries(run.curves)) {
      for (const name of Object.keys(curve)) if (name !== "step" && name !== "seconds") names.add(`${kind}/${name}`);
    }
  }
  return [...names].sort((a, b) => a.startsWith("train/") - b.startsWith("train/") || collator.compare(a, b));
}

function curveOf(run, metric) {
  const kind = metric.slice(0, metric.indexOf("/"));
  const curve = run.curves[kind];
  return curve && { ...curve, value: curve[metric.slice(kind.length + 1)] };
}

function curveTrace(numbers, metric, against, more) {
  const trace = { type: "scatter", x: [], y: [], text: [], customdata: [], hovertemplate: "%{text}<br>%{x}, %{y:.5g}<extra></extra>", ...more };
  let longest = 0;
  for (const i of numbers) {
    const curve = curveOf(page.runs[i], metric);
    if (!curve || !curve.value) continue;
    const name = wrapped(page.runs[i].run);
    curve.value.forEach((value, k) => {
      if (value === null || curve[against][k] === null) return;
      trace.x.push(curve[against][k]);
      trace.y.push(value);
      trace.text.push(name);
      trace.customdata.push(i);
    });
    longest = Math.max(longest, curve.value.length);
    trace.x.push(null);
    trace.y.push(null);
    trace.text.push("");
    trace.customdata.push(i);
  }
  // A line of one point can't be seen.
  trace.mode = longest === 1 || (longest <= 30 && trace.x.length < 3000) ? "lines+markers" : "lines";
  return trace;
}

function drawCurves() {
  const [metric, against, color] = ["curve-metric", "curve-against", "curve-color"].map((id) => document.getElementById(id).value);
  const key = page.keys[keyNumber.get(color)];
  const labels = key ? key.bands : ["all runs"];
  const colors = colorsOf(labels);
  const width = shown.size > 100 ? 0.8 : 1.4;
  const traces = labels.map((label, band) => {
    const numbers = [...shown].filter((i) => !key || page.runs[i].bands[keyNumber.get(color)] === band);
    return curveTrace(numbers, metric, against, {
      name: escaped(label),
      line: { color: colors[band], width },
      marker: { color: colors[band], size: 4 },
      opacity: shown.size > 100 ? 0.6 : 0.9,
    });
  }).filter((trace) => trace.x.length);
  const marked = [...opened].filter((i) => shown.has(i));
  if (marked.length) {
    traces.push(curveTrace(marked, metric, against, { name: "marked in the table", line: { color: "#000", width: 3 }, marker: { color: "#000", size: 6 } }));
  }
  const logarithmic = document.getElementById("curve-log").checked;
  const form = layout(
    { title: { text: against === "step" ? "step" : "seconds, everything included" }, rangemode: "tozero" },
    { title: { text: escaped(metric) }, type: logarithmic ? "log" : "linear" },
    { showlegend: traces.length > 1 },
  );
  if (key) form.legend.title = { text: escaped(key.key) };
  return draw("curve-chart", traces, form);
}

// A key against the metric.

function keyAxis(key, groups) {
  const axis = { title: { text: escaped(key.key) } };
  if (key.scale === "log") axis.type = "log";
  if (key.ticks) Object.assign(axis, { tickmode: "array", tickvals: key.ticks.map(([x]) => x), ticktext: key.ticks.map(([, text]) => escaped(text)) });
  if (key.scale === "category") axis.range = [-0.5, key.ticks.length - 0.5];
  return axis;
}

function drawKey(key, k, id) {
  const index = new Map(page.groups.map((group, i) => [group, i]));
  const visible = new Set(shownGroups().map((group) => index.get(group)));
  const joined = key.lines.map((line) => ({ ...line, groups: line.groups.filter((i) => visible.has(i)) })).filter((line) => line.groups.length);
  const named = joined.length <= distinctColors.length && joined.some((line) => line.groups.length > 1);
  const metric = page.columns.findIndex((column) => column.name === page.metric);
  const dots = { type: "scatter", mode: "markers", x: [], y: [], text: [], marker: { size: 4, color: "#9aa5b1" }, hovertemplate: "%{text}<extra></extra>", showlegend: false };
  for (const i of visible) {
    const group = page.groups[i];
    for (const run of group.runs.length > 1 && metric >= 0 ? group.runs : []) {
      const value = page.runs[run].cells[metric];
      if (!shown.has(run) || page.runs[run].status !== "done" || value === null) continue;
      dots.x.push(group.places[k]);
      dots.y.push(value);
      dots.text.push(`${wrapped(page.runs[run].run)}<br>${format(value, "metric")}`);
    }
  }
  const colors = colorsOf(joined.map((line) => line.label.replace(/^.*=/, "")));
  const lines = joined.map((line, n) => {
    const groups = line.groups.map((i) => page.groups[i]);
    const color = named ? colors[n] : ink.mark;
    return {
      type: "scatter",
      mode: groups.length > 1 ? "lines+markers" : "markers",
      name: escaped(line.label || "mean"),
      x: groups.map((group) => group.places[k]),
      y: groups.map((group) => group.mean),
      error_y: bars(groups),
      text: groups.map(hoverOf),
      hovertemplate: "%{text}<extra></extra>",
      line: { color, width: named ? 1.8 : 0.8 },
      marker: { color, size: 7 },
      showlegend: named && joined.length > 1,
    };
  });
  const form = layout(keyAxis(key), metricAxis(), { showlegend: named && joined.length > 1 });
  return draw(id, [dots, ...(named ? lines : together(lines))], form);
}

// Many lines in one trace, with gaps between them.
function together(lines) {
  if (lines.length === 0) return [];
  const all = { ...lines[0], mode: "lines+markers", x: [], y: [], text: [], error_y: { ...lines[0].error_y, array: [], visible: lines.some((line) => line.error_y.visible) } };
  for (const line of lines) {
    all.x.push(...line.x, null);
    all.y.push(...line.y, null);
    all.text.push(...line.text, "");
    all.error_y.array.push(...line.error_y.array, 0);
  }
  return [all];
}

// All keys at once: parallel axes, drawn as lines, since plotly's own need WebGL, which many a remote desktop lacks.

function parallelAxes() {
  const axes = page.keys.flatMap((key, k) => {
    const places = page.groups.filter((group) => group.mean !== null).map((group) => group.places[k]);
    if (key.key === "seed" || new Set(places).size < 2) return [];
    return [{ title: key.key, ...span(places, key.scale === "log"), ticks: key.ticks, of: (group) => group.places[k] }];
  });
  const means = page.groups.map((group) => group.mean);
  return [...axes, { title: page.metric, ...span(means, false), ticks: null, of: (group) => group.mean }];
}

// Where values lie on an axis of length 1.
function span(values, logarithmic) {
  const scaled = (x) => (logarithmic ? Math.log10(x) : x);
  const known = values.filter((x) => x !== null).map(scaled);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  return { low, high, at: (x) => (x === null ? null : low < high ? (scaled(x) - low) / (high - low) : 0.5) };
}

function ticksOf(axis) {
  const even = [0, 0.25, 0.5, 0.75, 1].map((part) => axis.low + part * (axis.high - axis.low));
  const ticks = axis.ticks || even.map((value) => [value, String(Number(value.toPrecision(3)))]);
  const every = Math.ceil(ticks.length / 12);
  return ticks.filter((_, i) => i % every === 0);
}

function drawParallel() {
  const axes = parallelAxes();
  document.getElementById("parallel-chart").style.minWidth = `${axes.length * 90}px`;
  const { at } = axes[axes.length - 1];
  const traces = orderedColors.map((color) => ({
    type: "scatter", mode: "lines", x: [], y: [], text: [], hovertemplate: "%{text}<extra></extra>", line: { color, width: 1.2 }, opacity: 0.75,
  }));
  const chosen = { ...traces[0], x: [], y: [], text: [], line: { color: ink.dark, width: 3 }, opacity: 1 };
  for (const group of shownGroups()) {
    const good = page.lower ? 1 - at(group.mean) : at(group.mean);
    const trace = group === best ? chosen : traces[Math.min(Math.floor(good * traces.length), traces.length - 1)];
    trace.x.push(...axes.keys(), null);
    trace.y.push(...axes.map((axis) => axis.at(axis.of(group))), null);
    trace.text.push(...axes.map(() => hoverOf(group)), "");
  }
  const labels = axes.flatMap((axis, i) => ticksOf(axis).map(([value, text]) => ({
    x: i, y: axis.at(value), text: escaped(text), xanchor: "right", xshift: -4, showarrow: false, font: { size: 11 }, bgcolor: "rgba(255,255,255,0.75)", borderpad: 1,
  })));
  const form = layout(
    { side: "top", tickvals: [...axes.keys()], ticktext: axes.map((axis) => escaped(axis.title)), range: [-0.4, axes.length - 0.7], showgrid: false, showline: false, fixedrange: true },
    { visible: false, range: [-0.05, 1.05], fixedrange: true },
    {
      annotations: labels,
      shapes: [...axes.keys()].map((i) => ({ type: "line", x0: i, x1: i, y0: 0, y1: 1, layer: "below", line: { color: ink.soft, width: 1 } })),
      margin: { l: 12, r: 12, t: 36, b: 12 },
    },
  );
  return draw("parallel-chart", [...traces, chosen].filter((trace) => trace.x.length), form);
}

// The metric over what it costs.

function drawCost() {
  const cost = page.costs.find((each) => each.name === document.getElementById("cost-name").value);
  const groups = shownGroups().filter((group) => group.costs[cost.name] !== null);
  const points = (own, more) => ({
    type: "scatter",
    mode: "markers",
    x: own.map((group) => group.costs[cost.name]),
    y: own.map((group) => group.mean),
    error_y: { ...bars(own), color: "#9aa5b1" },
    text: own.map((group) => `${hoverOf(group)}<br>${escaped(cost.title)} ${format(group.costs[cost.name], "large")}`),
    hovertemplate: "%{text}<extra></extra>",
    ...more,
  });
  const all = page.groups.filter((group) => group.mean !== null).map((group) => group.costs[cost.name]).filter((x) => x !== null);
  const front = cost.front.map((i) => page.groups[i]);
  const traces = [
    points(groups, { name: "settings, means over seeds", marker: { color: ink.mark, size: 8 } }),
    {
      type: "scatter", mode: "lines", name: "Pareto front", line: { shape: "hv", color: ink.strong, width: 1.6 }, hoverinfo: "skip",
      x: [...front.map((group) => group.costs[cost.name]), Math.max(...all)],
      y: [...front, front[front.length - 1]].map((group) => group.mean),
    },
  ];
  if (groups.includes(best)) traces.push(points([best], { name: "selected", marker: { color: ink.strong, size: 13, symbol: "star" } }));
  const form = layout(
    { title: { text: escaped(cost.title + (groups.length ? " of a run" : "")) }, type: Math.max(...all) / Math.min(...all) >= 9.9 ? "log" : "linear" },
    metricAxis(),
    { showlegend: true },
  );
  return draw("cost-chart", traces, form);
}
