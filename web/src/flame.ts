// A flame graph with its root at the top: what is held, or what grew, by function below its caller. Knows cells and pixels;
// which profiles are drawn is chosen in flame-panel.

import { fill, h } from "./dom";
import { bytes, count } from "./format";

export interface FlameCell { parent: number | null; name: string; function?: string; value: number; grew?: number; folded?: boolean }
export interface Flame { value: string; unit: string; values: { name: string; unit: string }[]; compared: boolean; cells: FlameCell[] }
export type Width = "size" | "growth";

interface Cell extends FlameCell { index: number; depth: number; weight: number; children: Cell[]; up: Cell | null; onPath: boolean }
interface Box { cell: Cell; left: number; width: number }

const ROW = 26;
/** In pixels: what is narrower is not drawn, has no name in it, has no figure beside its name. */
const LEAST = 2;
const READABLE = 44;
const ROOMY = 150;

export const fullName = (cell: FlameCell): string => cell.function ?? cell.name;

export class FlameGraph {
  readonly element = h("div", { class: "flame-graph", role: "tree", "aria-label": "Flame graph, the outermost function first" });
  readonly told = h("p", { class: "flame-told" });
  readonly reset = h("button", { type: "button", class: "copy", hidden: true }, "Whole graph");
  private cells: Cell[] = [];
  private flame: Flame | null = null;
  private zoomed = 0;
  private current = 0;
  private drawnWidth = 0;

  constructor() {
    this.element.addEventListener("keydown", (event) => this.pressed(event));
    this.reset.addEventListener("click", () => this.zoom(0));
    const tell = (event: Event): void => {
      const cell = this.cellOf(event.target);
      if (cell) this.tell(cell);
    };
    for (const kind of ["mouseover", "focusin"]) this.element.addEventListener(kind, tell);
    this.element.addEventListener("mouseleave", () => this.tell(this.cells[this.current]));
    this.element.addEventListener("click", (event) => {
      const cell = this.cellOf(event.target);
      if (cell) this.zoom(cell.index);
    });
    new ResizeObserver(() => {
      if (this.element.clientWidth !== this.drawnWidth) this.draw();
    }).observe(this.element);
  }

  /** `stacks` are those of the culprits, leaf first; the first that is found is marked. */
  show(flame: Flame, width: Width, stacks: string[][]): void {
    this.flame = flame;
    this.cells = grown(flame.cells);
    weigh(this.cells, flame.compared ? width : "size");
    mark(this.cells, stacks);
    this.zoomed = 0;
    this.current = 0;
    this.draw();
  }

  clear(): void {
    this.cells = [];
    this.draw();
  }

  private cellOf(target: EventTarget | null): Cell | undefined {
    const element = target instanceof Element ? target.closest<HTMLElement>("[data-cell]") : null;
    return element ? this.cells[Number(element.dataset.cell)] : undefined;
  }

  private zoom(index: number): void {
    const hadFocus = this.element.contains(document.activeElement) || document.activeElement === this.reset;
    this.zoomed = index;
    this.current = index;
    this.draw();
    if (hadFocus) this.focus();
  }

  private focus(): void {
    this.element.querySelector<HTMLElement>(`[data-cell="${this.current}"]`)?.focus();
  }

  /** Arrows go where they point, Enter makes a cell as wide as the graph, Escape shows the whole. */
  private pressed(event: KeyboardEvent): void {
    const at = this.cells[this.current];
    if (!at || event.ctrlKey || event.altKey || event.metaKey) return;
    const seen = (cell: Cell | undefined | null): boolean => !!cell && !!this.element.querySelector(`[data-cell="${cell.index}"]`);
    const beside = (step: number): Cell | undefined => {
      const row = at.up?.children.filter(seen) ?? [at];
      return row[row.indexOf(at) + step];
    };
    const next: Record<string, () => Cell | null | undefined> = {
      ArrowUp: () => at.up, ArrowDown: () => at.children.find(seen), ArrowLeft: () => beside(-1), ArrowRight: () => beside(1),
      Home: () => this.cells[0],
    };
    if (event.key === "Enter" || event.key === " ") this.zoom(at.index === this.zoomed ? at.up?.index ?? 0 : at.index);
    else if (event.key === "Escape") this.zoom(0);
    else if (event.key in next) this.go(next[event.key]?.());
    else return;
    event.preventDefault();
  }

  private go(cell: Cell | null | undefined): void {
    if (!cell || !this.element.querySelector(`[data-cell="${cell.index}"]`)) return;
    this.current = cell.index;
    for (const box of this.element.children) box.setAttribute("tabindex", box.getAttribute("data-cell") === String(cell.index) ? "0" : "-1");
    this.focus();
  }

  private tell(cell: Cell | undefined): void {
    fill(this.told, cell && [cell.index, this.flame?.value, this.words(cell)], () => cell
      ? [h("code", {}, fullName(cell)), h("span", {}, this.words(cell))]
      : []);
  }

  /** Everything that width and colour say, in words. */
  private words(cell: Cell): string {
    const [all, flame] = [this.cells[0], this.flame];
    if (!all || !flame) return "";
    const parts = [`${amount(cell.value, flame.unit)}${share(cell.value, all.value, "of all")}`];
    if (cell.grew !== undefined) parts.push(change(cell.grew, flame.unit) + share(cell.grew, all.grew ?? 0, "of the growth"));
    if (cell.onPath && cell.parent !== null) parts.push("on the culprit's path");
    return parts.join(" · ");
  }

  private draw(): void {
    this.drawnWidth = this.element.clientWidth;
    const zoomed = this.cells[this.zoomed];
    this.reset.hidden = this.zoomed === 0;
    const boxes = zoomed ? lay(zoomed, LEAST / Math.max(this.drawnWidth, 1)) : [];
    const steepest = Math.max(...this.cells.map((cell) => Math.abs(cell.grew ?? 0)), 1);
    this.element.replaceChildren(...boxes.map((box) => this.box(box, steepest)));
    const rows = boxes.reduce((most, { cell }) => Math.max(most, cell.depth + 1), 0);
    this.element.style.height = `${rows * ROW}px`;
    this.tell(this.cells[this.current]);
  }

  private box({ cell, left, width }: Box, steepest: number): HTMLElement {
    const { flame, zoomed, current } = this;
    const [name, words] = [cell.name, this.words(cell)];
    const figure = cell.grew ? change(cell.grew, flame?.unit ?? "") : amount(cell.value, flame?.unit ?? "");
    const pixels = width * this.drawnWidth;
    const readable = pixels >= READABLE;
    const element = h("div", {
      class: "flame-cell", role: "treeitem", "data-cell": cell.index, "data-heat": heat(cell, steepest, this.cells[0]?.value ?? 0),
      "data-readable": readable && "true", "data-path": cell.onPath && "true", "data-folded": cell.folded && "true", "data-above": cell.depth < (this.cells[zoomed]?.depth ?? 0) && "true",
      tabindex: cell.index === current ? 0 : -1, "aria-level": cell.depth + 1, "aria-label": `${fullName(cell)}: ${words}`,
      "aria-current": cell.index === zoomed && zoomed !== 0 && "true", title: `${fullName(cell)}\n${words}`,
    }, readable && h("span", { class: "flame-name" }, name), pixels >= ROOMY && h("span", { class: "flame-figure" }, figure));
    element.style.left = `${left * 100}%`;
    element.style.width = `${width * 100}%`;
    element.style.top = `${cell.depth * ROW}px`;
    return element;
  }
}

/** Cells that know each other. A parent comes before its children. */
function grown(flat: FlameCell[]): Cell[] {
  const cells: Cell[] = [];
  for (const [index, it] of flat.entries()) {
    const up = it.parent === null ? null : cells[it.parent] ?? null;
    const cell: Cell = { ...it, index, depth: up ? up.depth + 1 : 0, weight: 0, children: [], up, onPath: false };
    up?.children.push(cell);
    cells.push(cell);
  }
  return cells;
}

/** By size a cell is as wide as its value; by growth as what it grew or shrank, and never narrower than what is below it. */
function weigh(cells: Cell[], width: Width): void {
  for (const cell of cells.toReversed()) {
    const own = width === "size" ? Math.max(cell.value, 0) : Math.abs(cell.grew ?? 0);
    cell.weight = Math.max(own, cell.children.reduce((sum, child) => sum + child.weight, 0));
  }
}

/** Marks the first culprit's stack that is drawn, or as much of its outer part as is. */
function mark(cells: Cell[], stacks: string[][]): void {
  for (const stack of stacks) {
    for (let from = 0; from < stack.length - 1; from += 1) {
      const leaves = cells.filter((cell) => follows(cell, stack, from));
      for (const leaf of leaves) for (let cell: Cell | null = leaf; cell; cell = cell.up) cell.onPath = true;
      if (leaves.length > 0) return;
    }
  }
}

function follows(leaf: Cell, stack: string[], from: number): boolean {
  let cell: Cell | null = leaf;
  for (const name of stack.slice(from)) {
    if (!cell || fullName(cell) !== name) return false;
    cell = cell.up;
  }
  return true;
}

/** Callers of the zoomed cell as wide as the graph, and what is below it by weight, down to a share of the width. */
function lay(zoomed: Cell, least: number): Box[] {
  const boxes: Box[] = [];
  for (let cell: Cell | null = zoomed; cell; cell = cell.up) boxes.unshift({ cell, left: 0, width: 1 });
  const inner = (parent: Cell, left: number, width: number): void => {
    for (const cell of parent.children) {
      const own = parent.weight > 0 ? (width * cell.weight) / parent.weight : 0;
      if (own >= least) {
        boxes.push({ cell, left, width: own });
        inner(cell, left, own);
      }
      left += own;
    }
  };
  inner(zoomed, 0, 1);
  return boxes;
}

/** From -3, shrank most, to 3, grew most. What is nothing beside the whole is unchanged, though nothing grew more. */
function heat(cell: Cell, steepest: number, whole: number): number {
  const grew = Math.abs(cell.grew ?? 0);
  const part = grew < whole / 2000 ? 0 : grew / steepest;
  return Math.sign(cell.grew ?? 0) * (part < 0.005 ? 0 : part < 0.08 ? 1 : part < 0.4 ? 2 : 3);
}

const amount = (value: number, unit: string): string => (unit === "bytes" ? bytes(value) : `${count(value)}${unit === "count" ? "" : ` ${unit}`}`);

function change(grew: number, unit: string): string {
  return grew === 0 ? "unchanged" : `${grew > 0 ? "+" : "−"}${amount(Math.abs(grew), unit)}`;
}

function share(part: number, whole: number, of: string): string {
  // Where others shrank, a part of the growth may be more than all of it.
  if (part <= 0 || whole <= 0 || part > whole * 2) return "";
  const percent = (part / whole) * 100;
  return ` (${percent < 1 ? percent.toPrecision(1) : Math.round(percent)} % ${of})`;
}
