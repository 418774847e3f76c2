// Keeps what the sidecar told, follows the stream, and shows it. Nothing here is computed that the API already says.

import { follow, get, keepToken, NeedsToken, readings as askReadings } from "./api";
import type { Contexts, Incident, Reading, Status } from "./api";
import { MemoryChart, Multiples } from "./chart";
import { byId, h } from "./dom";
import { showFlame } from "./flame-panel";
import { showCulprits, showDegraded, showEvidence, showFigures, showFrame, showIncidents, showPipeline, showProfiles, showVerdict } from "./panels";
import { subject } from "./verdict";

/** As many points as the sidecar keeps; a page left open for days must not grow either. */
const MAX_READINGS = 1000;
const POLL_MS = 3000;
const CONTEXTS_MS = 10_000;

let status: Status | null = null;
let incidents: Incident[] = [];
let readings: Reading[] = [];
let contexts: Contexts | null = null;
const chart = new MemoryChart();
const multiples = new Multiples();

let drawing = 0;
/** Draws once in a frame, however many events came. */
function draw(): void {
  if (drawing) return;
  drawing = requestAnimationFrame(() => {
    drawing = 0;
    if (status) show(status);
  });
}

function show(status: Status): void {
  const incident = subject(incidents, location.hash);
  showFrame(status);
  showVerdict(status, incident);
  showFigures(status);
  showDegraded(status);
  chart.show(readings, status, incident);
  multiples.show(readings);
  showCulprits(incident);
  showFlame(incident);
  showEvidence(incident);
  showProfiles(incident);
  showIncidents(incidents, incident);
  showPipeline(status, contexts);
  document.body.classList.add("ready");
}

function told(kind: string, data: unknown): void {
  if (kind === "status") status = data as Status;
  if (kind === "reading") addReading(data as Reading);
  if (kind === "incident") addIncident(data as Incident);
  draw();
}

function addReading(reading: Reading): void {
  const last = readings.at(-1);
  if (last && reading.t <= last.t) return;
  readings.push(reading);
  if (readings.length > MAX_READINGS) readings = readings.slice(-MAX_READINGS);
}

function addIncident(incident: Incident): void {
  incidents = [incident, ...incidents.filter((other) => other.id !== incident.id)];
  incidents.sort((a, b) => b.opened_at.localeCompare(a.opened_at));
}

async function askAll(signal: AbortSignal): Promise<void> {
  [status, incidents, readings, contexts] = await Promise.all([
    get<Status>("/api/status", signal),
    get<Incident[]>("/api/incidents", signal),
    askReadings(signal),
    get<Contexts>("/api/contexts?top=6", signal),
  ]);
  draw();
}

async function keepContexts(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await pause(CONTEXTS_MS, signal);
    contexts = await get<Contexts>("/api/contexts?top=6", signal).catch(() => contexts);
    draw();
  }
}

/** One stay with the page in sight: follows the stream, and asks again and again where it breaks. */
async function stay(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await askAll(signal);
      live("polling");
      await follow(signal, () => {
        live("live");
        void askAll(signal).catch(() => undefined); // What changed before the stream was open.
      }, told);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof NeedsToken) return askToken();
      live("lost");
    }
    await pause(POLL_MS, signal);
  }
}

const LIVE = { live: "Live", polling: "Polling", lost: "Not reachable, trying again", paused: "Paused" };

function live(state: keyof typeof LIVE): void {
  const element = byId("live");
  element.dataset.state = state;
  if (element.textContent !== LIVE[state]) element.textContent = LIVE[state];
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

function askToken(): void {
  const field = h("input", { type: "password", id: "token-field", autocomplete: "off", required: true });
  const use = h("button", { type: "submit" }, "Open");
  const form = h("form", {}, h("label", { for: "token-field" }, "This page asks for its token (page.token_file)."), field, use);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken(field.value.trim());
    byId("token").hidden = true;
    begin();
  });
  byId("token").replaceChildren(form);
  byId("token").hidden = false;
  field.focus();
}

let stopping: AbortController | null = null;

function begin(): void {
  stopping?.abort();
  stopping = new AbortController();
  void stay(stopping.signal);
  void keepContexts(stopping.signal);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return begin();
  stopping?.abort();
  live("paused");
});
addEventListener("hashchange", () => {
  draw();
  byId("verdict").focus({ preventScroll: false });
});
// "Last success 12 s ago" grows old without any event.
setInterval(draw, 5000);
begin();
