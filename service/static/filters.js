// The bar above the results: what is asked for as chips that can be taken away, the filters, and the order.

import { fetchFolders, fetchTags, frameAddress, posterAddress } from "./api.js";
import { hasExample, isSearch, without, withoutExample } from "./asked.js";
import { byId, element } from "./dom.js";
import { clock, fileName } from "./format.js";
import { pictureNamed, smallAddress } from "./pictures.js";
import { Popup } from "./popup.js";

const ORDERS = [
  ["-captured_at", "Newest first"],
  ["captured_at", "Oldest first"],
  ["-indexed_at", "Added last first"],
  ["-duration_seconds", "Longest first"],
  ["duration_seconds", "Shortest first"],
  ["title", "By title"],
];

const minutes = (seconds) => (seconds ? String(Number((Number(seconds) / 60).toFixed(2))) : "");
const length = (text) => clock(Number(text));
const seconds = (text) => (Number(text) > 0 ? String(Math.round(Number(text) * 60 * 1000) / 1000) : "");

/** The words for what is asked for, without a text: what the chips say. */
export function wordsOf(asked) {
  const words = [];
  if (asked.picture) words.push("like a picture");
  if (asked.frame) words.push("like a frame");
  if (asked.like) words.push("like a video");
  if (asked.folder) words.push(`in ${fileName(asked.folder)}`);
  if (asked.from && asked.to) words.push(`${asked.from} to ${asked.to}`);
  else if (asked.from || asked.to) words.push(asked.from ? `from ${asked.from}` : `until ${asked.to}`);
  if (asked.shortest && asked.longest) words.push(`${length(asked.shortest)} to ${length(asked.longest)} long`);
  else if (asked.shortest) words.push(`at least ${length(asked.shortest)} long`);
  else if (asked.longest) words.push(`at most ${length(asked.longest)} long`);
  if (asked.verdict) words.push(`verdict ${asked.verdict}`);
  return [...words, ...asked.tags.map((tag) => `#${tag}`)];
}

function buildChip(words, rest, ask, picture = null) {
  const chip = element(
    "button",
    { class: "chip", type: "button", "aria-label": `Remove: ${words}`, title: "Remove", onclick: () => ask(rest) },
    element("span", { dir: "auto", text: words }),
    element("span", { class: "chip-cross", "aria-hidden": "true", text: "×" }),
  );
  if (picture) {
    picture.onerror = () => picture.remove();
    chip.prepend(picture);
  }
  return element("li", {}, chip);
}

/** The small picture of the example; null: there is none. */
function exampleImage(asked) {
  const image = element("img", { class: "chip-picture", alt: "" });
  if (asked.frame) image.src = frameAddress(asked.frame);
  else if (asked.like) image.src = posterAddress(asked.like);
  else {
    image.hidden = true;
    pictureNamed(asked.picture).then(async (picture) => {
      const address = picture && (await smallAddress(picture));
      if (address) image.src = address;
      image.hidden = !address;
    });
  }
  return image;
}

function chipsOf(asked, ask) {
  const chip = (words, rest, picture) => buildChip(words, rest, ask, picture);
  const chips = [];
  const only = (...names) => ({ ...asked, ...Object.fromEntries(BLANK), ...Object.fromEntries(names.map((n) => [n, asked[n]])) });
  if (hasExample(asked)) {
    const words = asked.picture ? "Like this picture" : asked.frame ? "Like this frame" : "Like this video";
    chips.push(chip(words, withoutExample(asked), exampleImage(asked)));
  }
  for (const [names, rest] of [
    [["folder"], without(asked, "folder")],
    [["from", "to"], without(without(asked, "from"), "to")],
    [["shortest", "longest"], without(without(asked, "shortest"), "longest")],
    [["verdict"], without(asked, "verdict")],
  ]) {
    const [words] = wordsOf(only(...names));
    if (words) chips.push(chip(words, rest));
  }
  return [...chips, ...asked.tags.map((tag) => chip(`#${tag}`, without(asked, "tags", tag)))];
}

const BLANK = [
  ...["picture", "frame", "like", "folder", "from", "to", "shortest", "longest", "verdict"].map((name) => [name, ""]),
  ["tags", []],
];

export class Filters {
  #chips = byId("chips");
  #order = byId("order");
  #form = byId("filters-panel");
  #popup = new Popup(byId("filters-toggle"), byId("filters-panel"));
  #ask;
  #asked = null;

  /** `ask(asked)` goes to what is asked for then. */
  constructor({ ask }) {
    this.#ask = ask;
    this.#order.addEventListener("change", () => ask({ ...this.#asked, sort: this.#order.value }));
    byId("filters-toggle").addEventListener("click", () => this.#onOpen());
    byId("filter-folder").addEventListener("change", () => this.#suggestFolders());
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#check()) return;
      this.#popup.close();
      byId("filters-toggle").focus();
      ask(this.#filled());
    });
    byId("filters-clear").addEventListener("click", () => {
      this.#popup.close();
      byId("filters-toggle").focus();
      ask({ ...this.#asked, folder: "", from: "", to: "", shortest: "", longest: "", verdict: "", tags: [] });
    });
  }

  show(asked) {
    this.#asked = asked;
    this.#popup.close();
    const hadFocus = this.#chips.contains(document.activeElement);
    this.#chips.replaceChildren(...chipsOf(asked, this.#ask));
    if (hadFocus) (this.#chips.querySelector("button") ?? byId("filters-toggle")).focus();
    const known = ORDERS.some(([value]) => value === asked.sort) || asked.sort === "";
    const orders = [["", isSearch(asked) ? "Best first" : "By file"], ...ORDERS, ...(known ? [] : [[asked.sort, asked.sort]])];
    this.#order.replaceChildren(...orders.map(([value, text]) => element("option", { value, text })));
    this.#order.value = asked.sort;
  }

  #onOpen() {
    if (!this.#popup.isOpen) return;
    const asked = this.#asked;
    byId("filter-folder").value = asked.folder;
    byId("filter-from").value = asked.from;
    byId("filter-to").value = asked.to;
    byId("filter-shortest").value = minutes(asked.shortest);
    byId("filter-longest").value = minutes(asked.longest);
    byId("filter-tags").value = asked.tags.join(", ");
    byId("filters-problem").textContent = "";
    byId("filter-folder").focus();
    this.#suggestFolders();
    this.#suggestTags();
  }

  #filled() {
    const value = (name) => byId(`filter-${name}`).value.trim();
    const tags = value("tags").split(",").map((tag) => tag.trim()).filter(Boolean);
    return {
      ...this.#asked,
      folder: value("folder"),
      from: value("from"),
      to: value("to"),
      shortest: seconds(value("shortest")),
      longest: seconds(value("longest")),
      tags: [...new Set(tags)],
      list: "",
    };
  }

  #check() {
    const { from, to, shortest, longest } = this.#filled();
    let problem = "";
    if (from && to && from > to) problem = "The first day is after the last one.";
    if (shortest && longest && Number(shortest) > Number(longest)) problem = "The least length is above the greatest.";
    for (const name of ["from", "to", "shortest", "longest"]) {
      if (byId(`filter-${name}`).validity.badInput) problem = "A date or a number is not complete.";
    }
    byId("filters-problem").textContent = problem;
    return problem === "";
  }

  /** Suggests the folders below the one that is typed, or the topmost. They are a help, and may fail. */
  async #suggestFolders() {
    const typed = byId("filter-folder").value.trim();
    const level = await fetchFolders(typed || null).catch(() => null);
    if (!level) return;
    const options = level.folders.map(({ path }) => element("option", { value: path }));
    byId("folder-choices").replaceChildren(...options);
  }

  async #suggestTags() {
    const found = await fetchTags().catch(() => null);
    if (!found) return;
    byId("tag-choices").replaceChildren(...found.tags.map(({ tag }) => element("option", { value: tag })));
  }
}
