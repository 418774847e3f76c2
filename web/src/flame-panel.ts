// Which profile is drawn as a flame graph and against which: read when it is asked for, never before.

import { askFlame } from "./api";
import type { Incident, Profile } from "./api";
import { byId, fill, h } from "./dom";
import { FlameGraph } from "./flame";
import type { Flame, Width } from "./flame";
import { moment, words } from "./format";

const graph = new FlameGraph();
const choice = { profile: h("select", {}), base: h("select", {}), value: h("select", {}), width: h("select", {}) };
const note = h("p", { class: "soft flame-note", role: "status" });
const body = h("div", { id: "flame-body", hidden: true },
  h("div", { class: "flame-choice" }, field("Profile", choice.profile), field("Compared with", choice.base), field("Value", choice.value), field("Width", choice.width), graph.reset),
  note, graph.element, graph.told, legend());
const open = h("button", { type: "button", class: "open", "aria-expanded": "false", "aria-controls": body.id }, "Flame graph");

let incident: Incident | null = null;
let drawn: Flame | null = null;
let asking: AbortController | null = null;

byId("flame").append(h("div", { class: "head" }, h("h2", { id: "flame-title" }, open), h("span", { class: "note" }, "what is held and what grew, by call")), body);
open.addEventListener("click", () => {
  body.hidden = !body.hidden;
  open.setAttribute("aria-expanded", String(!body.hidden));
  if (!body.hidden && !drawn) ask();
});
choice.profile.addEventListener("change", () => (offerBases(), ask()));
choice.base.addEventListener("change", ask);
choice.value.addEventListener("change", ask);
choice.width.addEventListener("change", () => drawn && draw(drawn));

export function showFlame(shown: Incident | null): void {
  incident = shown;
  const profiles = newest();
  byId("flame").hidden = profiles.length === 0;
  // A profile that came while a graph is open is offered; what is drawn stays.
  const kept = choice.profile.value;
  fill(choice.profile, [shown?.id, profiles], () => profiles.map((it) => option(it.id, described(it))));
  const still = body.hidden ? undefined : profiles.find((it) => it.id === kept);
  const first = still ?? profiles.find((it) => it.type.startsWith("heap")) ?? profiles[0];
  if (!first || (choice.profile.value === first.id && kept === first.id)) return;
  choice.profile.value = first.id;
  if (still) return;
  offerBases();
  drawn = null;
  graph.clear();
  if (!body.hidden) ask();
}

const newest = (): Profile[] => [...(incident?.profiles ?? [])].sort((a, b) => b.taken_at.localeCompare(a.taken_at));
const family = (profile: Profile): string => (profile.type.startsWith("heap") ? "heap" : profile.type);
const described = (profile: Profile): string => `${words(profile.type)}, ${words(profile.reason)}, ${moment(profile.taken_at)}`;
const option = (value: string, text: string): HTMLOptionElement => h("option", { value }, text);

/** Profiles of the same kind; the oldest, which is the baseline, unless another is chosen. */
function offerBases(): void {
  const now = newest().find((it) => it.id === choice.profile.value);
  const others = newest().filter((it) => now && it !== now && family(it) === family(now) && it.taken_at <= now.taken_at);
  choice.base.replaceChildren(...others.toReversed().map((it) => option(it.id, described(it))), option("", "nothing"));
  choice.value.replaceChildren();
}

/** Reads the chosen ones; what was asked before is of no interest any more. */
function ask(): void {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  note.textContent = "Reading …";
  askFlame(choice.profile.value, choice.base.value, choice.value.value, signal).then((flame) => {
    drawn = flame;
    offerValues(flame);
    draw(flame);
  }).catch((error: unknown) => {
    if (signal.aborted) return;
    drawn = null;
    graph.clear();
    note.textContent = error instanceof Error ? error.message : "Not reachable, try again";
  });
}

function offerValues(flame: Flame): void {
  choice.value.replaceChildren(...flame.values.map((it) => option(it.name, words(it.name))));
  choice.value.value = flame.value;
  const width = choice.width.value || "size";
  choice.width.replaceChildren(option("size", "by size"), ...(flame.compared ? [option("growth", "by growth")] : []));
  choice.width.value = flame.compared ? width : "size";
}

function draw(flame: Flame): void {
  const root = flame.cells[0];
  const isEmpty = !root || flame.cells.length === 1;
  note.textContent = isEmpty ? "The profile holds nothing of this." : "";
  graph.show(flame, choice.width.value as Width, (incident?.culprits ?? []).map((it) => it.stack));
}

function field(label: string, select: HTMLSelectElement): HTMLElement {
  return h("label", { class: "flame-field" }, h("span", { class: "note" }, label), select);
}

function legend(): HTMLElement {
  const key = (heat: string, text: string): HTMLElement => h("span", { class: "flame-key", "data-heat": heat }, text);
  return h("p", { class: "flame-legend" }, key("3", "grew"), key("0", "unchanged"), key("-3", "shrank"),
    h("span", { class: "flame-key", "data-heat": "0", "data-path": "true" }, "the culprit's path"),
    h("span", {}, "Click or Enter zooms, Escape shows the whole, arrows go from call to call."));
}
