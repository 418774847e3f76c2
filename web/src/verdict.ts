// One answer first: from everything that is known, the sentence a person came for.

import type { Incident, Status } from "./api";
import { bytes, duration, rate } from "./format";

export type Tone = "crit" | "warn" | "notice" | "calm" | "unknown";
export interface Answer {
  tone: Tone;
  /** Two or three words beside the mark. */
  label: string;
  sentence: string;
}

export const isOpen = (incident: Incident): boolean => incident.closed_at === null;

/** The incident the page is about: the one in the address, else the newest open one. */
export function subject(incidents: Incident[], hash: string): Incident | null {
  const id = /^#\/incident\/(.+)$/.exec(hash)?.[1];
  const linked = id === undefined ? undefined : incidents.find((incident) => incident.id === decode(id));
  return linked ?? incidents.find(isOpen) ?? null;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function answer(status: Status, incident: Incident | null): Answer {
  return incident ? ofIncident(incident, status) : ofMemory(status);
}

function ofIncident(incident: Incident, status: Status): Answer {
  const sentence = incident.verdict || growth(status);
  if (incident.state === "killed") return { tone: "crit", label: "Killed", sentence };
  if (incident.state === "recovered") return { tone: "calm", label: "Recovered", sentence };
  const label = incident.culprits.length > 0 || incident.state === "named" ? "Leak named" : "Growth seen";
  return { tone: incident.severity, label, sentence };
}

function ofMemory(status: Status): Answer {
  const { memory, target, degraded } = status;
  const first = degraded[0];
  if (!target) {
    return { tone: "unknown", label: "No app found", sentence: first ? `${first.what}: ${first.why}` : "Waiting for the app to start." };
  }
  if (memory.rss_bytes === null) {
    return { tone: "unknown", label: "Limited view", sentence: first ? `${first.what}: ${first.why}` : "The app's memory cannot be read." };
  }
  if (memory.state === "learning") {
    return { tone: "unknown", label: "Learning", sentence: `Learning what is normal for ${target.name}; ${used(status)}.` };
  }
  if (memory.state === "quiet") {
    return { tone: "calm", label: "Quiet", sentence: `No leak in sight: ${target.name} is steady, ${used(status)}.` };
  }
  return { tone: memory.state, label: "Growth seen", sentence: growth(status) };
}

function growth(status: Status): string {
  const { slope_bytes_per_second: slope, time_to_limit_seconds: left } = status.memory;
  const name = status.target?.name ?? "The app";
  const speed = slope === null ? "grows" : `grows by ${rate(slope).replace("+", "")}`;
  const end = left === null ? "" : `; the limit is reached in about ${duration(left)}`;
  return `${name} ${speed}${end}.`;
}

function used(status: Status): string {
  const { rss_bytes: rss, limit_bytes: limit } = status.memory;
  return limit ? `${bytes(rss)} of ${bytes(limit)} in use` : `${bytes(rss)} in use, no limit known`;
}
