// The panels below the answer: each is filled from values and left alone while they stay the same.

import type { Contexts, Culprit, Incident, Profile, Status } from "./api";
import { ask, hasToken, pullNow } from "./api";
import { command, copyButton, fill, byId, h, prose } from "./dom";
import { ago, bytes, count, duration, moment, rate, words } from "./format";
import { answer, isOpen } from "./verdict";

const title = (id: string, text: string, ...rest: (Node | false)[]): HTMLElement =>
  h("div", { class: "head" }, h("h2", { id: `${id}-title` }, text), ...rest);

// The verdict's parts stay for the life of the page: its numbers change with each reading, and a button must not lose its
// focus over that. Only a change of what is said, not of a number in it, is announced.
const label = h("p", { class: "label" });
const sentence = h("p", { class: "sentence" });
const spoken = { text: "", link: "" };
const copyLink = copyButton("Copy link", () => spoken.link);
byId("verdict").append(label, sentence, h("div", { class: "actions" }, copyButton("Copy verdict", () => spoken.text), copyLink));

export function showVerdict(status: Status, incident: Incident | null): void {
  const said = answer(status, incident);
  spoken.text = said.sentence;
  spoken.link = `${location.origin}/#/incident/${encodeURIComponent(incident?.id ?? "")}`;
  copyLink.hidden = incident === null;
  byId("verdict").dataset.tone = said.tone;
  fill(label, [said.label, incident?.id], () => [
    h("span", { class: "shape", "aria-hidden": "true" }), said.label,
    incident && h("span", { class: "meta" }, `${words(incident.kind)} · since ${moment(incident.opened_at)}`),
  ]);
  fill(sentence, said.sentence, () => prose(said.sentence));
  fill(byId("announce"), [said.label, incident?.id, incident?.verdict], () => [`${said.label}. ${said.sentence}`]);
  document.title = `${said.label} · ${status.target?.name ?? "oomwatch"}`;
}

export function showFigures(status: Status): void {
  const { memory, statsd } = status;
  const share = memory.rss_bytes !== null && memory.limit_bytes ? memory.rss_bytes / memory.limit_bytes : null;
  const figures: [string, string, string][] = [
    ["Memory", bytes(memory.rss_bytes), memory.limit_bytes ? `of ${bytes(memory.limit_bytes)}${share === null ? "" : `, ${Math.round(share * 100)} %`}` : "no limit known"],
    ["Growth", rate(memory.slope_bytes_per_second), memory.slope_bytes_per_second === null ? "not growing" : "over the last readings"],
    ["Limit reached in", memory.time_to_limit_seconds === null ? "–" : duration(memory.time_to_limit_seconds), memory.time_to_limit_seconds === null ? "not in sight" : "at this pace"],
    ["StatsD clients", count(statsd.clients), statsd.clients === null ? "cannot be counted" : "open now"],
  ];
  fill(byId("figures"), figures, () => figures.map(([name, value, note]) =>
    h("div", { class: "figure" }, h("span", { class: "name" }, name), h("strong", {}, value), h("span", { class: "note" }, note))));
}

export function showDegraded(status: Status): void {
  const section = byId("degraded");
  section.hidden = status.degraded.length === 0;
  fill(section, status.degraded, () => [
    title("degraded", "What is missing"),
    h("ul", {}, ...status.degraded.map((view) =>
      h("li", {}, h("p", {}, h("strong", {}, view.what), " ", ...prose(view.why)), view.fix !== "" && command(view.fix)))),
  ]);
}

export function showCulprits(incident: Incident | null): void {
  const section = byId("culprits");
  const culprits = incident?.culprits ?? [];
  section.hidden = culprits.length === 0;
  fill(section, culprits, () => [
    title("culprits", "What grew"),
    h("div", { class: "scroll" }, h("table", { role: "table" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...["Function", "Made by", "Where", "Grew", "Share"].map((name, column) =>
        h("th", { scope: "col", role: "columnheader", class: column > 2 ? "number" : "" }, name)))),
      h("tbody", { role: "rowgroup" }, ...culprits.flatMap(culpritRows)))),
  ]);
}

function culpritRows(culprit: Culprit, index: number): HTMLElement[] {
  const cell = (name: string, ...children: (Node | string)[]): HTMLElement => h("td", { role: "cell", class: name }, ...children);
  const stack = h("tr", { id: `stack-${index}`, class: "stack", role: "row", hidden: true },
    h("td", { colspan: 5, role: "cell" }, h("ol", {}, ...culprit.stack.map((frame) => h("li", {}, h("code", {}, frame))))));
  const open = h("button", { type: "button", class: "open", "aria-expanded": "false", "aria-controls": stack.id }, h("code", {}, culprit.function));
  open.addEventListener("click", () => {
    stack.hidden = !stack.hidden;
    open.setAttribute("aria-expanded", String(!stack.hidden));
  });
  return [
    h("tr", { role: "row" },
      h("th", { scope: "row", role: "rowheader" }, open),
      cell("made", culprit.made_by ? h("code", {}, culprit.made_by) : h("span", { class: "soft" }, "not known")),
      cell("file", h("code", { class: "where", title: `${culprit.file}:${culprit.line}` }, `${tail(culprit.file)}:${culprit.line}`)),
      cell("number grew", h("strong", {}, bytes(culprit.grew_bytes)), h("span", { class: "note" }, `${count(culprit.grew_objects)} objects`)),
      cell("number", `${Math.round(culprit.share * 100)} %`, shareBar(culprit.share))),
    stack,
  ];
}

function shareBar(share: number): HTMLElement {
  const filled = h("span", {});
  filled.style.width = `${Math.round(Math.min(1, Math.max(0, share)) * 100)}%`;
  return h("span", { class: "share", "aria-hidden": "true" }, filled);
}

/** The last two parts of a path: enough to know the file, short enough for a column. */
const tail = (path: string): string => path.split("/").slice(-2).join("/");

export function showEvidence(incident: Incident | null): void {
  const section = byId("evidence");
  const evidence = incident?.evidence ?? [];
  section.hidden = evidence.length === 0;
  fill(section, evidence, () => [
    title("evidence", "Why we think so"),
    h("dl", { class: "evidence" }, ...evidence.flatMap(({ kind, text }) => [h("dt", {}, words(kind)), h("dd", {}, ...prose(text))])),
  ]);
}

export const fileName = (id: string): string => `oomwatch-${id}.pb.gz`;

export function showProfiles(incident: Incident | null): void {
  const section = byId("profiles");
  const profiles = [...(incident?.profiles ?? [])].sort((a, b) => b.taken_at.localeCompare(a.taken_at));
  section.hidden = false;
  fill(section, profiles, () => [
    title("profiles", "Profiles", pullButton()),
    profiles.length === 0 && h("p", { class: "soft" }, "Those of an incident are listed here; all that are kept are under /api/profiles."),
    profiles.length > 0 && h("ul", { class: "profiles" }, ...profiles.map((profile) => h("li", {},
      h("p", {}, h("strong", {}, words(profile.type)), ` ${profile.reason}`, h("span", { class: "note" }, `${moment(profile.taken_at)} · ${bytes(profile.bytes)}`)),
      downloadLink(profile)))),
    profiles.length > 0 && h("p", { class: "soft hint" }, "After the download, in its folder:"),
    ...pprofCommands(profiles).map(command),
  ]);
}

/** A round by hand: under the same cool-down and budget as an alert's. */
function pullButton(): HTMLElement {
  const answer = h("span", { class: "note", role: "status" });
  const button = h("button", { type: "button", class: "copy", id: "pull-now" }, "Pull now");
  button.addEventListener("click", () => {
    button.disabled = true;
    void pullNow().catch(() => "Not reachable, try again").then((words) => {
      answer.textContent = words;
      button.disabled = false;
    });
  });
  return h("div", { class: "pull" }, answer, button);
}

/** The latest profile alone, and compared with the earliest of its type. */
function pprofCommands(profiles: Profile[]): string[] {
  const latest = profiles.find((profile) => profile.type.startsWith("heap")) ?? profiles[0];
  if (!latest) return [];
  const base = profiles.findLast((profile) => profile.type.startsWith("heap") && profile !== latest);
  const single = `go tool pprof -http=: ${fileName(latest.id)}`;
  if (!base || !latest.type.startsWith("heap")) return [single];
  return [single, `go tool pprof -http=: -diff_base ${fileName(base.id)} ${fileName(latest.id)}`];
}

function downloadLink(profile: Profile): HTMLElement {
  const path = `/api/profiles/${encodeURIComponent(profile.id)}`;
  const link = h("a", { href: path, download: fileName(profile.id), class: "download", "aria-label": `Download ${profile.type} profile ${profile.id}` }, "Download");
  link.addEventListener("click", (event) => {
    if (!hasToken()) return;
    event.preventDefault(); // A link cannot carry the token.
    void ask(path).then((response) => response.blob()).then((blob) => {
      const url = URL.createObjectURL(blob);
      h("a", { href: url, download: fileName(profile.id) }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    }).catch(() => (link.textContent = "Not there any more"));
  });
  return link;
}

export function showIncidents(incidents: Incident[], shown: Incident | null): void {
  fill(byId("incidents"), [incidents.map((i) => [i.id, i.state, i.verdict, i.closed_at]), shown?.id], () => [
    title("incidents", "Incidents"),
    incidents.length === 0
      ? h("p", { class: "soft" }, "None since the start.")
      : h("ol", { class: "incidents" }, ...incidents.map((incident) => h("li", { "data-tone": incident.state === "recovered" ? "calm" : incident.severity },
          h("a", { href: `#/incident/${encodeURIComponent(incident.id)}`, "aria-current": incident === shown && "true" },
            h("span", { class: "shape", "aria-hidden": "true" }),
            h("span", { class: "what" }, ...prose(incident.verdict || words(incident.kind))),
            h("span", { class: "note" }, `${incident.state} · ${words(incident.kind)} · ${moment(incident.opened_at)}${isOpen(incident) ? "" : ` to ${moment(incident.closed_at ?? "")}`}`))))),
  ]);
}

export function showPipeline(status: Status, contexts: Contexts | null): void {
  const { statsd, output } = status;
  const drops = Object.entries(statsd.dropped).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
  const errors = Object.entries(status.identities).filter(([, error]) => error !== 0);
  const modes: Record<string, string> = { intake: "Datadog intake", agent: "Datadog Agent", none: "nowhere (no key, no Agent)" };
  const rows: [string, string | Node][] = [
    ["Sent to", modes[output.mode] ?? output.mode],
    ["Last success", output.mode === "none" ? "–" : ago(output.last_success)],
    ["Waiting", output.outage_seconds_left === null ? bytes(output.queued_bytes) : `${bytes(output.queued_bytes)}, room for ${duration(output.outage_seconds_left)} of outage`],
    ["Datagrams", count(statsd.datagrams)],
    ["Samples", count(statsd.samples)],
    ["Contexts", count(statsd.contexts)],
    ["Dropped", drops.length === 0 ? "nothing" : h("ul", { class: "drops" }, ...drops.map(([reason, n]) => h("li", {}, h("code", {}, reason), ` ${count(n)}`)))],
  ];
  if (errors.length > 0) rows.push(["Accounting", errors.map(([id, error]) => `${id} is off by ${error}`).join(", ")]);
  const names = contexts?.names ?? [];
  fill(byId("pipeline"), [rows.map(([name, value]) => [name, value instanceof Node ? drops : value]), names], () => [
    title("pipeline", "Metrics on their way"),
    h("dl", { class: "rows" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    names.length > 0 && h("div", { class: "scroll" }, h("table", { class: "names" },
      h("caption", {}, "Busiest metric names"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Name"), h("th", { scope: "col", class: "number" }, "Samples"), h("th", { scope: "col", class: "number" }, "Contexts"))),
      h("tbody", {}, ...names.map((name) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, name.name)), h("td", { class: "number" }, count(name.samples)), h("td", { class: "number" }, count(name.contexts))))))),
  ]);
}

export function showFrame(status: Status): void {
  const { target } = status;
  fill(byId("target"), target, () => target
    ? [h("strong", {}, target.name), h("span", { class: "note", title: target.rule }, `pid ${target.pid}`)]
    : [h("span", { class: "note" }, "no app found yet")]);
  fill(byId("foot"), [status.version, status.started_at], () => [
    `oomwatch ${status.version} · up since ${moment(status.started_at)} · `, h("a", { href: "/assets/third-party.txt" }, "licences")]);
}
