// Elements from values. Text always becomes a text node, so a name from the wire can never become markup.

type Child = Node | string | number | null | undefined | false;
type Attributes = Record<string, string | number | boolean | null | undefined | ((event: Event) => void)>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false).map((child) =>
    child instanceof Node ? child : String(child)));
  return element;
}

export function byId(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/** Words with `names` between backticks, as the sidecar writes them. */
export function prose(text: string): Node[] {
  const parts = text.split("`");
  if (parts.length % 2 === 0) return [document.createTextNode(text)];
  return parts.map((part, index) => (index % 2 ? h("code", {}, part) : document.createTextNode(part)));
}

const shown = new WeakMap<HTMLElement, string>();

/** Fills `element` when `key` is new: an unchanged panel keeps its focus, its selection and what was opened in it. */
export function fill(element: HTMLElement, key: unknown, make: () => Child[]): void {
  const text = JSON.stringify(key);
  if (shown.get(element) === text) return;
  shown.set(element, text);
  const children = make().filter((child): child is Node | string => child instanceof Node || typeof child === "string");
  element.replaceChildren(...children);
}

/** A button that copies what `text` gives then, and says so. */
export function copyButton(label: string, text: () => string, describedAs = label): HTMLButtonElement {
  const button = h("button", { type: "button", class: "copy", "aria-label": describedAs }, label);
  button.addEventListener("click", () => void copy(text()).then((ok) => {
    button.textContent = ok ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = label), 1600);
  }));
  return button;
}

async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // Outside of a secure context there is no clipboard API.
  }
}

function copyBySelection(text: string): boolean {
  const field = h("textarea", { class: "offscreen", "aria-hidden": "true" });
  field.value = text;
  document.body.append(field);
  field.select();
  const ok = document.execCommand("copy");
  field.remove();
  return ok;
}

/** A command on one line with its copy button. */
export function command(text: string): HTMLElement {
  return h("div", { class: "command" }, h("code", { tabindex: "0" }, text), copyButton("Copy", () => text, `Copy: ${text}`));
}
