// Moving charts of the last five minutes, by uPlot (a global of its own script).
import { html, useEffect, useLayoutEffect, useRef, useState } from "./ground.js";

const SPAN_SECONDS = 300;
const GAP_SECONDS = 4;
const colour = (name) => {
  // what light-dark() comes to is known of an element only
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};
const thin = (text, alpha) => text.replace(/^rgb\((.*)\)$/, (_, inner) => `rgba(${inner}, ${alpha})`);

// One column a sample, with an empty one where nothing was seen for a while.
export function columns(samples, pick) {
  const times = [];
  const rows = pick.map(() => []);
  for (const sample of samples) {
    const last = times[times.length - 1];
    if (last !== undefined && sample.t - last > GAP_SECONDS) {
      times.push(last + 1);
      for (const row of rows) row.push(null);
    }
    times.push(sample.t);
    pick.forEach((of, at) => rows[at].push(of(sample)));
  }
  return [times, ...rows];
}

// series: {label, colour, pick, fill, show}. limit: {value, label}. top: at least so much of the scale is shown.
export function Chart({ title, samples, series, limit, top, show, stacked, note }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [at, setAt] = useState(null);
  const [theme, setTheme] = useState(0);
  const picks = stacked ? series.map((_, from) => (sample) => sum(series.slice(from), sample)) : series.map((each) => each.pick);
  const data = columns(samples, picks);
  const key = series.map((each) => each.label).join() + theme;
  useEffect(() => {
    const changed = () => setTheme((each) => each + 1);
    const system = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("theme", changed);
    system.addEventListener("change", changed);
    return () => {
      removeEventListener("theme", changed);
      system.removeEventListener("change", changed);
    };
  }, []);
  useLayoutEffect(() => {
    const made = new uPlot(options(box.current, { series, limit, top, show, stacked, onCursor: setAt }), data, box.current);
    plot.current = made;
    const watching = new ResizeObserver(() => made.setSize({ width: box.current.clientWidth, height: box.current.clientHeight }));
    watching.observe(box.current);
    return () => {
      watching.disconnect();
      made.destroy();
    };
  }, [key, limit?.value]);
  useEffect(() => {
    const now = data[0].length ? data[0][data[0].length - 1] : Date.now() / 1000;
    plot.current.batch(() => {
      plot.current.setData(data, false);
      plot.current.setScale("x", { min: now - SPAN_SECONDS, max: now });
    });
  }, [samples]);
  const place = at ?? samples.length - 1;
  const sample = at === null ? samples[place] : samples.find((each) => each.t === data[0][at]);
  const values = series.map((each) => (sample ? each.pick(sample) : null));
  const said = series.map((each, number) => `${each.label} ${values[number] == null ? "nothing" : show(values[number])}`).join(", ");
  return html`<section class="card chart"><header><h2>${title}</h2><span class="end">${note || "last 5 min"}</span></header><div class="body">
    <div class="series">${series.map((each, number) => html`<span key=${each.label} class=${limit && values[number] > limit.value ? "over" : ""}><i class="swatch" style=${{ color: `var(--${each.colour})` }}></i>${each.label}<b>${values[number] == null ? "–" : show(values[number])}</b></span>`)}
      ${limit ? html`<span class="faint">limit ${show(limit.value)}</span>` : null}</div>
    <div class="canvas" ref=${box} role="img" aria-label=${`${title}: ${said}`}></div></div></section>`;
}

const sum = (series, sample) => series.reduce((whole, each) => whole + (each.pick(sample) || 0), 0);

function options(box, { series, limit, top, show, stacked, onCursor }) {
  const line = colour("line");
  const muted = colour("muted");
  const font = `11.5px ${getComputedStyle(document.body).fontFamily}`;
  const axis = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
  return {
    width: box.clientWidth,
    height: box.clientHeight,
    padding: [10, 8, 0, 0],
    legend: { show: false },
    cursor: { y: false, sync: { key: "rollout" }, points: { size: 7 }, drag: { x: false, y: false } },
    scales: {
      x: { time: true },
      y: { range: (_, low, high) => [0, Math.max((high || 0) * 1.12, top || 0, limit ? limit.value * 1.45 : 0) || 1] },
    },
    axes: [
      { ...axis, grid: { show: false }, space: 64, size: 28, values: (_, ticks) => ticks.map((each) => new Date(each * 1000).toTimeString().slice(0, 8).replace(/:00$/, "")) },
      { ...axis, size: 58, space: 38, gap: 8, values: (_, ticks) => ticks.map((each) => show(each, true)) },
    ],
    series: [{}, ...series.map((each) => {
      const stroke = colour(each.colour);
      return { stroke, width: 2, spanGaps: false, points: { show: false }, fill: stacked ? undefined : each.fill ? thin(stroke, 0.12) : undefined };
    })],
    bands: stacked ? series.slice(1).map((_, number) => ({ series: [number + 1, number + 2], fill: thin(colour(series[number].colour), 0.3) })) : [],
    hooks: {
      setCursor: [(plot) => onCursor(plot.cursor.idx != null && plot.cursor.left >= 0 ? plot.cursor.idx : null)],
      drawAxes: stacked ? [(plot) => floor(plot, thin(colour(series[series.length - 1].colour), 0.22), series.length)] : [],
      draw: limit ? [(plot) => border(plot, limit.value, colour("bad"))] : [],
    },
  };
}

// The lowest layer of a stack, from its line to the ground.
function floor(plot, fill, number) {
  const [times, values] = [plot.data[0], plot.data[number]];
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.beginPath();
  const ground = plot.valToPos(0, "y", true);
  let isOpen = false;
  let last = 0;
  const shut = () => {
    if (isOpen) ctx.lineTo(last, ground);
    isOpen = false;
  };
  times.forEach((time, at) => {
    if (values[at] == null) return shut();
    last = plot.valToPos(time, "x", true);
    if (!isOpen) ctx.moveTo(last, ground);
    isOpen = true;
    ctx.lineTo(last, plot.valToPos(values[at], "y", true));
    return undefined;
  });
  shut();
  ctx.fillStyle = fill;
  ctx.fill();
  ctx.restore();
}

function border(plot, value, stroke) {
  const { ctx, bbox } = plot;
  const y = Math.round(plot.valToPos(value, "y", true)) + 0.5;
  ctx.save();
  ctx.strokeStyle = stroke;
  ctx.lineWidth = devicePixelRatio * 1.25;
  ctx.setLineDash([6 * devicePixelRatio, 5 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}
