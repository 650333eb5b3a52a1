// Helpers for the DOM. Data becomes text or attributes, never markup.

/** Creates an element. `properties` are attributes, except `class`, `text` and event handlers (`onclick: …`). */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

/** Turns text into nodes; parts in backticks become code. */
export const withCode = (text) =>
  text.split("`").map((part, index) => (index % 2 ? element("code", { text: part }) : part));

/** Shows items in a list. Those that are there stay in place if others only follow: one may have the focus. */
export function fill(list, items) {
  const isMore = [...list.children].every((child, index) => child === items[index]);
  if (isMore) list.append(...items.slice(list.children.length));
  else list.replaceChildren(...items);
}

/** Shows a text with code, which is replaced only if it changes: screen readers would read it out again. */
export function showWords(node, text) {
  if (node.dataset.text === text) return;
  node.dataset.text = text;
  node.replaceChildren(...withCode(text));
}

export const byId = (name) => document.getElementById(name);

/** Keeps only `current` of `nodes` in the tab order; the arrow keys reach the others. */
export function rove(nodes, current) {
  for (const node of nodes) node.tabIndex = node === current ? 0 : -1;
}

export const hasModifier = (event) => event.altKey || event.ctrlKey || event.metaKey || event.shiftKey;
