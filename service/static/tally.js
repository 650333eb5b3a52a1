// The lines above the grid: how many results, how long each stage took, and a note when the closer look is missing.

import { byId, element, withCode } from "./dom.js";
import { count, milliseconds } from "./format.js";
import { Popup } from "./popup.js";
import { skippedNote } from "./ranking.js";

const STAGES = [
  ["encode_text", "Read the words"],
  ["retrieve", "Find candidates"],
  ["salience", "Choose salient frames"],
  ["tokens", "Fetch their details"],
  ["match", "Compare them with the words"],
  ["fetch", "Gather what is shown"],
];
const ACTIONS = { time: "Give it more time", rerank: "Switch it on" };

const exact = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")} ms`;

function buildStages(answer) {
  const timings = answer.timings_ms;
  const rows = STAGES.filter(([stage]) => timings[stage] > 0).map(([stage, name]) => {
    const bar = element("span", { class: "stage-bar" }, element("span"));
    bar.style.setProperty("--share", Math.min(1, timings[stage] / Math.max(timings.total, 1e-9)).toFixed(3));
    return element(
      "tr",
      { "data-stage": stage },
      element("th", { scope: "row", text: name }),
      element("td", { "aria-hidden": "true" }, bar),
      element("td", { class: "stage-time", text: exact(timings[stage]) }),
    );
  });
  const total = element(
    "tr",
    { class: "stage-total", "data-stage": "total" },
    element("th", { scope: "row", text: "In all" }),
    element("td"),
    element("td", { class: "stage-time", text: exact(timings.total) }),
  );
  const looked = answer.reranked ? `${count(answer.num_candidates, "candidate")} looked at closely · ` : "";
  return [
    element("table", { class: "stages" }, element("tbody", {}, ...rows, total)),
    element("p", { class: "panel-fact", text: `${looked}snapshot ${answer.snapshot}` }),
  ];
}

export class Tally {
  #popup = new Popup(byId("timing"), byId("timing-panel"));
  #act;

  /** `act("time" | "rerank")` does what the note offers. */
  constructor({ act }) {
    this.#act = act;
  }

  /** `deadlineMs` is what was granted beyond the server's own deadline, or null. */
  showAnswer(answer, deadlineMs) {
    byId("count").textContent = answer.hits.length ? count(answer.hits.length, "result") : "No results";
    byId("timing").textContent = milliseconds(answer.timings_ms.total);
    byId("timing-panel").replaceChildren(...buildStages(answer));
    byId("timings").hidden = false;
    this.#showNote(answer.hits.length ? skippedNote(answer.rerank_skipped, deadlineMs) : null, answer.rerank_skipped);
  }

  /** Clears what belongs to an answer; a note stays until the next answer, which often has the same. */
  showBusy() {
    byId("count").textContent = "Searching…";
    this.#clearTimings();
  }

  clear() {
    byId("count").textContent = "";
    this.#clearTimings();
    this.#showNote(null, null);
  }

  #clearTimings() {
    this.#popup.close();
    byId("timings").hidden = true;
  }

  #showNote(note, reason) {
    const place = byId("note");
    place.hidden = note === null;
    place.dataset.reason = reason ?? "";
    if (note === null) {
      byId("note-text").replaceChildren();
      return;
    }
    byId("note-text").replaceChildren(element("strong", { text: note.lead }), " ", ...withCode(note.text));
    const button = byId("note-button");
    button.hidden = note.action === null;
    button.textContent = ACTIONS[note.action] ?? "";
    button.onclick = () => this.#act(note.action);
  }
}
