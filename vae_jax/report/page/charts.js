// All charts, drawn by Plotly in the colours of the page.

const PALETTE = [
  "#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#8c8c94",
];
const SYMBOLS = ["circle", "diamond", "square", "cross", "triangle-up"];
const redraws = [];

function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim(); }

// Plotly reads its texts as HTML.
function plain(text) { return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); }

function layoutOf(xTitle, yTitle, more = {}) {
  const axis = (title) => ({
    title: { text: title, standoff: 8 }, gridcolor: colour("line"), linecolor: colour("line"), zeroline: false,
    automargin: true, nticks: 6, separatethousands: true,
  });
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: colour("quiet") },
    margin: { l: 8, r: 8, t: 8, b: 8 },
    xaxis: axis(xTitle), yaxis: axis(yTitle),
    hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("text") } },
    showlegend: false, dragmode: "zoom",
    ...more,
  };
}

// `make` gives traces and layout; it is asked again when the colours change.
function chart(div, make) {
  const draw = () => {
    const { traces, layout } = make();
    return Plotly.react(div, traces, layout, { displayModeBar: false, responsive: true });
  };
  redraws.push(draw);
  return draw();
}

const STYLES = {
  test: () => ({ color: colour("accent"), width: 2.25 }),
  validation: () => ({ color: colour("accent"), width: 1.25, dash: "dot" }),
  train: () => ({ color: colour("faint"), width: 1.5 }),
};

const FRONT = /test$/;

function curveTraces(curves, term, lineOf, named) {
  return Object.entries(curves).filter(([, columns]) => columns[term] && columns[term][0] !== null)
    .flatMap(([split, columns]) => {
      const line = lineOf(split), spread = columns[`${term}_spread`];
      const trace = {
        x: columns.step, y: columns[term], name: plain(named(split)), line, opacity: FRONT.test(split) ? 1 : 0.5,
        mode: columns.step.length > 1 ? "lines" : "markers",
        hovertemplate: "step %{x:,}: <b>%{y:.2f}</b>",
      };
      if (!spread || split === "train") return [trace];
      const edge = (sign) => ({
        x: columns.step, y: columns[term].map((value, i) => value + sign * spread[i]), mode: "lines",
        line: { width: 0 }, hoverinfo: "skip", fillcolor: `${line.color}30`,
      });
      return [edge(-1), { ...edge(1), fill: "tonexty" }, trace];
    });
}

// What the curves do after a tenth of the steps; double click shows all of it.
function rangeOf(curves, term) {
  const late = Object.values(curves).flatMap(({ step, [term]: values }) =>
    (values || []).filter((value, i) => value !== null && step[i] >= 0.1 * step[step.length - 1]));
  if (late.length < 2) return undefined;
  const low = Math.min(...late), high = Math.max(...late), margin = 0.06 * (high - low || 1);
  return [low - margin, high + margin];
}

function showCurves(root, curves, lineOf, named) {
  for (const div of root.querySelectorAll("[data-term]")) {
    const { term } = div.dataset;
    chart(div, () => {
      const layout = layoutOf("step", "", { hovermode: "x unified" });
      layout.yaxis.range = rangeOf(curves, term);
      return { traces: curveTraces(curves, term, lineOf, named), layout };
    });
  }
}

function withAllTicks(layout, count) {
  layout.xaxis.type = "category";
  if (count <= 50) Object.assign(layout.xaxis, { tickmode: "linear", dtick: 1, nticks: undefined });
  return layout;
}

function showKl(div, { kl, order, numActive }) {
  const names = order.map((dimension) => `z${dimension + 1}`);
  // A few bars needn't fill the page.
  div.style.maxWidth = `${6 + 4 * names.length}rem`;
  chart(div, () => ({
    traces: [{
      type: "bar", x: names, y: order.map((dimension) => kl[dimension]),
      marker: { color: order.map((_, rank) => colour(rank < numActive ? "accent" : "faint")) },
      hovertemplate: "%{x}: <b>%{y:.3f} nats</b><extra></extra>",
    }],
    layout: withAllTicks(layoutOf("latent dimension", "nats", { bargap: 0.25 }), names.length),
  }));
}

function showScatter(div, { x, y, labels, titles }, classNames) {
  const groups = labels ? [...new Set(labels)].sort((a, b) => a - b) : [null];
  return chart(div, () => ({
    traces: groups.map((label, number) => {
      const rows = x.map((_, i) => i).filter((i) => label === null || labels[i] === label);
      return {
        x: rows.map((i) => x[i]), y: rows.map((i) => y[i]), mode: "markers", type: "scatter",
        name: label === null ? "" : plain(classNames[label]),
        marker: {
          size: 4.5, opacity: 0.85, symbol: SYMBOLS[Math.floor(number / PALETTE.length) % SYMBOLS.length],
          color: label === null ? colour("accent") : PALETTE[number % PALETTE.length],
        },
        hovertemplate: `${label === null ? "" : `${plain(classNames[label])}: `}(%{x:.2f}, %{y:.2f})<extra></extra>`,
      };
    }),
    layout: layoutOf(titles[0], titles[1], {
      showlegend: labels !== null, hovermode: "closest",
      legend: { itemsizing: "constant", orientation: "h", y: -0.18, x: 0 },
    }),
  }));
}

function colourOfRun(number) { return PALETTE[number % PALETTE.length]; }

// KL by rank, one line a run.
function showKlOfRuns(div, runs) {
  chart(div, () => ({
    traces: runs.map(({ name, kl }, number) => ({
      x: kl.map((_, i) => i + 1), y: kl, name: plain(name), mode: "lines+markers",
      line: { color: colourOfRun(number) },
      hovertemplate: "%{y:.3f} nats",
    })),
    layout: layoutOf("rank of the dimension", "nats", { hovermode: "x unified" }),
  }));
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((draw) => draw()));
