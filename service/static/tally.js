// The lines above the grid: the number of results, the time of each stage, and notes on what was not done as asked.

import { byId, element, withCode } from "./dom.js";
import { count, milliseconds } from "./format.js";
import { isUnlikely } from "./level.js";
import { Popup } from "./popup.js";
import { skippedNote } from "./ranking.js";

const STAGES = [
  ["encode_text", "Read the query"],
  ["retrieve", "Find candidates"],
  ["salience", "Choose salient frames"],
  ["tokens", "Read their tokens"],
  ["match", "Match them with the query"],
  ["moments", "Find moments"],
  ["texts", "Find lines of text"],
  ["fetch", "Collect the results"],
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
    element("th", { scope: "row", text: "Total" }),
    element("td"),
    element("td", { class: "stage-time", text: exact(timings.total) }),
  );
  const { num_candidates: done, num_candidates_wanted: wanted } = answer;
  const candidates = (done < wanted ? `${done} of ` : "") + count(wanted, "candidate");
  const reranked = answer.reranked ? `${candidates} re-ranked · ` : "";
  return [
    element("table", { class: "stages" }, element("tbody", {}, ...rows, total)),
    element("p", { class: "panel-fact", text: `${reranked}snapshot ${answer.snapshot}` }),
  ];
}

function countOf({ hits, best_guess: isGuess }) {
  if (isGuess && hits.length) return count(hits.length, "guess", "guesses");
  const likely = hits.filter((hit) => !isUnlikely(hit)).length;
  return likely ? count(likely, "result") : "No results";
}

export class Tally {
  #popup = new Popup(byId("timing"), byId("timing-panel"));
  #act;

  /** `act("time" | "rerank")` is called by the button of the note. */
  constructor({ act }) {
    this.#act = act;
  }

  /** `deadlineMs` is the deadline after "Give it more time"; null: the server's own. */
  showAnswer(answer, deadlineMs) {
    byId("count").textContent = countOf(answer);
    byId("guess").hidden = !(answer.best_guess && answer.hits.length);
    byId("timing").textContent = milliseconds(answer.timings_ms.total);
    byId("timing-panel").replaceChildren(...buildStages(answer));
    byId("timings").hidden = false;
    this.#showWarnings([...answer.query_warnings, ...answer.library_warnings]);
    this.#showNote(answer.hits.length ? skippedNote(answer.rerank_skipped, deadlineMs) : null, answer.rerank_skipped);
  }

  /** Clears count and timings; a note stays until the next answer, which often has the same note. */
  showBusy() {
    byId("count").textContent = "Searching…";
    byId("guess").hidden = true;
    this.#clearTimings();
  }

  clear() {
    byId("count").textContent = "";
    byId("guess").hidden = true;
    this.#clearTimings();
    this.#showNote(null, null);
    this.#showWarnings([]);
  }

  #clearTimings() {
    this.#popup.close();
    byId("timings").hidden = true;
  }

  /** Says what of the query was not understood or not read, and what of the library is damaged. */
  #showWarnings(warnings) {
    const place = byId("query-warnings");
    place.hidden = warnings.length === 0;
    place.replaceChildren(...warnings.map(({ kind, message }) => element("p", { "data-kind": kind, text: message })));
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
