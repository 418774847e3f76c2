// The API's shapes, and how the page follows them: one stream of events, and polling while that is not to be had.

import type { Flame } from "./flame";

export interface Degraded { what: string; why: string; fix: string }
export interface Status {
  version: string;
  started_at: string;
  target: { pid: number; name: string; rule: string } | null;
  output: { mode: string; last_success: string | null; queued_bytes: number; outage_seconds_left: number | null };
  statsd: { datagrams: number; samples: number; contexts: number; clients: number | null; dropped: Record<string, number> };
  memory: {
    rss_bytes: number | null;
    working_set_bytes: number | null;
    limit_bytes: number | null;
    slope_bytes_per_second: number | null;
    time_to_limit_seconds: number | null;
    state: "learning" | "quiet" | "notice" | "warn" | "crit";
  };
  identities: Record<string, number>;
  degraded: Degraded[];
}
export interface Culprit {
  function: string; file: string; line: number; grew_bytes: number; grew_objects: number; share: number; made_by: string;
  stack: string[];
}
export interface Profile { id: string; type: string; reason: string; taken_at: string; bytes: number }
export interface Incident {
  id: string; kind: string; severity: "notice" | "warn" | "crit"; opened_at: string; closed_at: string | null;
  state: "open" | "named" | "recovered" | "killed"; verdict: string; culprits: Culprit[];
  evidence: { kind: string; text: string }[]; profiles: Profile[];
}
export const FIGURES = [
  "rss_bytes", "working_set_bytes", "heap_bytes", "limit_bytes", "threads", "goroutines", "fds", "statsd_clients",
] as const;
export type Figure = (typeof FIGURES)[number];
export type Reading = { t: number; incarnation: number } & Record<Figure, number | null>;
export interface TopName { name: string; samples: number; contexts: number }
export interface Contexts { names: TopName[]; most_contexts: TopName[]; folded: number }

/** The token is asked for, kept for this tab, and sent as a header: a link with a secret in it gets shared. */
const TOKEN = "oomwatch-token";
export class NeedsToken extends Error {}
export const hasToken = (): boolean => sessionStorage.getItem(TOKEN) !== null;
export const keepToken = (token: string): void => sessionStorage.setItem(TOKEN, token);

export async function ask(path: string, signal?: AbortSignal): Promise<Response> {
  const token = sessionStorage.getItem(TOKEN);
  const headers: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers, signal: signal ?? null, cache: "no-store" });
  if (response.status === 401) throw new NeedsToken(path);
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}

/** Asks for a round of pulls now, and gives the sidecar's own words on why not. */
export async function pullNow(): Promise<string> {
  const token = sessionStorage.getItem(TOKEN);
  const headers: Record<string, string> = { "X-Oomwatch": "1", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch("/api/profiles", { method: "POST", headers });
  return response.ok ? "Pulling: heap and goroutines follow in a moment" : `Not now: ${(await response.text()).trim()}`;
}

/** A profile as a flame graph. Why there is none is told in the sidecar's own words. */
export async function askFlame(id: string, base: string, value: string, signal: AbortSignal): Promise<Flame> {
  const query = new URLSearchParams(Object.entries({ base, value }).filter(([, text]) => text !== ""));
  const token = sessionStorage.getItem(TOKEN);
  const headers: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(`/api/profiles/${encodeURIComponent(id)}/flame?${query}`, { headers, signal, cache: "no-store" });
  if (!response.ok) throw new Error((await response.text()).trim() || `No graph: ${response.status}`);
  return (await response.json()) as Flame;
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await (await ask(path, signal)).json()) as T;
}

/** Columns as they come, to rows as they are kept. */
export async function readings(signal: AbortSignal): Promise<Reading[]> {
  const columns = await get<Record<string, (number | null)[]>>("/api/readings", signal);
  return (columns.t ?? []).map((t, row) => {
    const reading = { t, incarnation: columns.incarnation?.[row] ?? 0 } as Reading;
    for (const figure of FIGURES) reading[figure] = columns[figure]?.[row] ?? null;
    return reading;
  });
}

/** Calls `told` for each event until the stream ends; resolves then. */
export async function follow(signal: AbortSignal, opened: () => void, told: (kind: string, data: unknown) => void): Promise<void> {
  const body = (await ask("/api/stream", signal)).body;
  if (!body) throw new Error("the stream has no body");
  opened();
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const kind = /^event: (.*)$/m.exec(event)?.[1];
      const data = /^data: (.*)$/m.exec(event)?.[1];
      if (kind && data) told(kind, JSON.parse(data));
    }
  }
}
