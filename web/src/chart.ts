// The memory chart and the small multiples. uPlot draws on canvas: the same figures stand as text beside each plot.

import uPlot from "uplot";
import type { Figure, Incident, Reading, Status } from "./api";
import { bytes, clock, count } from "./format";
import { byId, fill, h } from "./dom";

const color = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const FONT = "12px Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
/** Powers of two: a grid at 64 MiB rather than at 61.03 MiB. */
const BYTE_STEPS = Array.from({ length: 45 }, (_, power) => 2 ** power);
/** The projection may take this share of what was measured, so that it never squeezes the facts. */
const AHEAD = 0.45;

const LINES: { figure: Figure; label: string; color: string; width: number; dash?: number[] }[] = [
  { figure: "rss_bytes", label: "Resident", color: "--line-rss", width: 2.25 },
  { figure: "working_set_bytes", label: "Working set", color: "--line-set", width: 1.25 },
  { figure: "heap_bytes", label: "Go heap", color: "--line-heap", width: 2 },
];

export interface Mark { t: number; label: string }

/** Moments worth a vertical line: where an incident opened or a restart shows in the readings. */
export function marks(incident: Incident | null, readings: Reading[]): Mark[] {
  const all: Mark[] = [];
  if (incident) all.push({ t: Date.parse(incident.opened_at) / 1000, label: "alert" });
  readings.forEach((reading, row) => {
    const before = readings[row - 1];
    if (before && before.incarnation !== reading.incarnation) all.push({ t: reading.t, label: "restart" });
  });
  return all;
}

export class MemoryChart {
  private plot: uPlot | null = null;
  private marks: Mark[] = [];
  private readonly at = byId("memory");

  constructor() {
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.at);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plot?.redraw(false));
  }

  show(readings: Reading[], status: Status, incident: Incident | null): void {
    this.marks = marks(incident, readings);
    this.legend(readings, status);
    const last = readings.at(-1);
    this.at.setAttribute("aria-label", last
      ? `Memory over time: now ${bytes(last.rss_bytes)} resident, limit ${bytes(last.limit_bytes)}`
      : "Memory over time: no readings yet");
    this.at.classList.toggle("empty", readings.length < 2);
    if (readings.length < 2) return;
    const data = columns(readings, status);
    if (this.plot) this.plot.setData(data);
    else this.plot = new uPlot(this.options(), data, this.at);
  }

  private size(): { width: number; height: number } {
    const width = Math.max(240, Math.floor(this.at.clientWidth));
    return { width, height: width < 560 ? 220 : 280 };
  }

  private legend(readings: Reading[], status: Status): void {
    const known = LINES.filter((line) => readings.some((reading) => reading[line.figure] !== null));
    const limited = readings.some((reading) => reading.limit_bytes !== null);
    const ahead = status.memory.time_to_limit_seconds !== null;
    fill(byId("legend"), [known.map((line) => line.figure), limited, ahead], () => [
      ...known.map((line) => h("span", { class: `key ${line.figure}` }, line.label)),
      limited && h("span", { class: "key limit" }, "Limit"),
      ahead && h("span", { class: "key ahead" }, "Projection"),
    ]);
  }

  private options(): uPlot.Options {
    const axis = { stroke: () => color("--ink-soft"), font: FONT, grid: { stroke: () => color("--grid"), width: 1 }, ticks: { show: false } };
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { points: { size: 7 }, drag: { x: true, y: false } },
      padding: [18, 12, 0, 4],
      scales: { x: { time: true }, y: { range: (_plot, _low, high) => [0, Math.max(high, 1) * 1.08] } },
      axes: [
        { ...axis, size: 30, space: 70, values: (plot, splits) => {
          const span = (plot.scales.x?.max ?? 0) - (plot.scales.x?.min ?? 0);
          return splits.map((t) => clock(t, span < 240));
        } },
        { ...axis, size: 68, incrs: BYTE_STEPS, space: 44, values: (_plot, splits) => splits.map((value) => bytes(value)) },
      ],
      series: [
        {},
        ...LINES.map((line): uPlot.Series => ({
          label: line.label,
          stroke: () => color(line.color),
          width: line.width,
          points: { show: false },
          ...(line.figure === "rss_bytes" ? { fill: () => color("--line-fill") } : {}),
        })),
        { label: "Limit", stroke: () => color("--line-limit"), width: 1.75, dash: [8, 5], points: { show: false } },
        { label: "Projection", stroke: () => color("--line-rss"), width: 1.75, dash: [2, 5], points: { show: false }, spanGaps: true },
      ],
      hooks: { draw: [(plot) => this.drawMarks(plot)] },
    };
  }

  /** Vertical lines with a word, and the limit's size at its line. */
  private drawMarks(plot: uPlot): void {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.font = FONT.replace("12px", `${11 * ratio}px`);
    ctx.textAlign = "left";
    ctx.textBaseline = "alphabetic";
    ctx.lineWidth = ratio;
    for (const mark of this.marks) {
      const x = plot.valToPos(mark.t, "x", true);
      if (!(x >= bbox.left && x <= bbox.left + bbox.width)) continue;
      ctx.strokeStyle = ctx.fillStyle = color("--ink-soft");
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(mark.label, x + 5 * ratio, bbox.top + bbox.height - 8 * ratio);
    }
    const limits = plot.data[LINES.length + 1] as (number | null)[] | undefined;
    const limit = limits?.findLast((value) => typeof value === "number");
    if (typeof limit === "number") {
      ctx.fillStyle = color("--line-limit");
      ctx.fillText(`limit ${bytes(limit)}`, bbox.left + 8 * ratio, plot.valToPos(limit, "y", true) - 6 * ratio);
    }
    ctx.restore();
  }
}

/** uPlot's columns: time, the lines, the limit, and the projection beyond the last reading. */
function columns(readings: Reading[], status: Status): uPlot.AlignedData {
  const first = readings[0] as Reading;
  const last = readings.at(-1) as Reading;
  const { slope_bytes_per_second: slope, time_to_limit_seconds: left } = status.memory;
  const ahead = slope !== null && left !== null && slope > 0 && last.rss_bytes !== null
    ? Math.min(left, (last.t - first.t) * AHEAD) : 0;
  const more = <T>(list: T[], value: T): T[] => (ahead > 0 ? [...list, value] : list);
  const lines = LINES.map((line) => more(readings.map((reading) => reading[line.figure]), null));
  const limit = more(readings.map((reading) => reading.limit_bytes), last.limit_bytes);
  const projection: (number | null)[] = readings.map((reading) => (reading === last && ahead > 0 ? last.rss_bytes : null));
  const end = (last.rss_bytes ?? 0) + (slope ?? 0) * ahead;
  return [more(readings.map((reading) => reading.t), last.t + ahead), ...lines, limit, more(projection, end)];
}

const SMALL: { figure: Figure; label: string }[] = [
  { figure: "statsd_clients", label: "StatsD clients" },
  { figure: "goroutines", label: "Goroutines" },
  { figure: "threads", label: "Threads" },
  { figure: "fds", label: "Open files" },
];

/** Four small plots with one idea: what else grows with the memory. Each starts at zero, so a small wobble stays small. */
export class Multiples {
  private readonly plots = new Map<Figure, { plot: uPlot | null; box: HTMLElement; now: HTMLElement; from: HTMLElement }>();

  constructor() {
    for (const { figure, label } of SMALL) {
      const [now, from] = [h("span", { class: "now" }), h("span", { class: "from" })];
      const box = h("div", { class: "spark", "aria-hidden": "true" });
      byId("multiples").append(h("figure", {}, h("figcaption", {}, h("span", { class: "name" }, label), now, from), box));
      this.plots.set(figure, { plot: null, box, now, from });
      new ResizeObserver(() => {
        const plot = this.plots.get(figure)?.plot;
        plot?.setSize({ width: box.clientWidth, height: 48 });
      }).observe(box);
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plots.forEach(({ plot }) => plot?.redraw(false)));
  }

  show(readings: Reading[]): void {
    for (const [figure, small] of this.plots) {
      const known = readings.filter((reading) => reading[figure] !== null);
      const [first, last] = [known[0]?.[figure], known.at(-1)?.[figure]];
      small.now.textContent = count(last);
      small.from.textContent = first === undefined || last === undefined ? "not seen" : first === last ? "steady" : `from ${count(first)}`;
      if (known.length < 2) continue;
      const data: uPlot.AlignedData = [readings.map((reading) => reading.t), readings.map((reading) => reading[figure])];
      if (small.plot) small.plot.setData(data);
      else small.plot = new uPlot(sparkOptions(small.box.clientWidth), data, small.box);
    }
  }
}

function sparkOptions(width: number): uPlot.Options {
  return {
    width, height: 48, legend: { show: false }, cursor: { show: false }, padding: [4, 2, 2, 2],
    axes: [{ show: false }, { show: false }],
    scales: { x: { time: true }, y: { range: (_plot, _low, high) => [0, Math.max(high, 1) * 1.1] } },
    series: [{}, { stroke: () => color("--line-rss"), width: 1.75, fill: () => color("--line-fill"), points: { show: false }, spanGaps: true }],
  };
}
