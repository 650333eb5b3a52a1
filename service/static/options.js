// The search options: chosen in the panel, kept in the address, sent with each search.

import { writeAsked } from "./asked.js";
import { byId } from "./dom.js";
import { Popup } from "./popup.js";

/** For numbers, null means that the server chooses. */
const DEFAULTS = Object.freeze({ rerank: true, numCandidates: null, numSalientFrames: null });

const NUMBERS = { numCandidates: "num_candidates", numSalientFrames: "num_salient_frames" };

const toCount = (text) => (/^[1-9][0-9]{0,8}$/.test(text ?? "") ? Number(text) : null);

/** The options in an address; invalid values count as absent. */
export function optionsIn(search) {
  const given = new URLSearchParams(search);
  const options = { ...DEFAULTS, rerank: given.get("rerank") !== "false" };
  for (const [name, parameter] of Object.entries(NUMBERS)) options[name] = toCount(given.get(parameter));
  return options;
}

/** The query string for what is asked and the options that differ from the defaults; may be empty. */
export function searchPart(asked, options) {
  const parameters = new URLSearchParams();
  writeAsked(asked, parameters);
  if (!options.rerank) parameters.set("rerank", "false");
  for (const [name, parameter] of Object.entries(NUMBERS)) {
    if (options[name] !== null) parameters.set(parameter, options[name]);
  }
  const text = parameters.toString();
  return text && `?${text}`;
}

export class OptionsPanel {
  #rerank = byId("option-rerank");
  #inputs = { numCandidates: byId("option-candidates"), numSalientFrames: byId("option-frames") };
  #reset = byId("options-reset");
  #popup = new Popup(byId("options-toggle"), byId("options-panel"));
  #timer = 0;

  /** `changed()` is called after the user changes an option, if all numbers are valid. */
  constructor({ changed }) {
    const apply = () => {
      this.#describe();
      if (!this.check()) return;
      // Enter in a field changes it and submits the form: then only the submission counts.
      clearTimeout(this.#timer);
      this.#timer = setTimeout(changed);
    };
    for (const input of [this.#rerank, ...Object.values(this.#inputs)]) input.addEventListener("change", apply);
    this.#reset.addEventListener("click", () => {
      this.show(DEFAULTS);
      this.#rerank.focus();
      apply();
    });
  }

  /** The chosen options. */
  get options() {
    const numbers = Object.entries(this.#inputs).map(([name, input]) => [name, toCount(input.value)]);
    return { rerank: this.#rerank.checked, ...Object.fromEntries(numbers) };
  }

  show(options) {
    this.#rerank.checked = options.rerank;
    for (const [name, input] of Object.entries(this.#inputs)) input.value = options[name] ?? "";
    this.#describe();
    this.check();
  }

  /** Opens the panel and focuses the first invalid number, or the first option. */
  open() {
    this.#popup.open();
    const wrong = Object.values(this.#inputs).find((input) => input.hasAttribute("aria-invalid"));
    (wrong ?? this.#rerank).focus();
  }

  /** Cancels a pending call of `changed`, because a search with the change begins anyway. */
  settle() {
    clearTimeout(this.#timer);
  }

  /** Whether every number is valid; shows a message if one is not. */
  check() {
    let problem = "";
    for (const input of Object.values(this.#inputs)) {
      const isWrong = input.validity.badInput || (input.value !== "" && toCount(input.value) === null);
      if (isWrong) problem = `${input.labels[0].textContent}: enter a whole number from 1, or nothing.`;
      if (isWrong) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
    byId("options-problem").textContent = problem;
    return problem === "";
  }

  #describe() {
    const { rerank } = this.options;
    const isChanged = searchPart({}, this.options) !== "";
    for (const input of Object.values(this.#inputs)) input.disabled = !rerank;
    this.#reset.disabled = !isChanged;
    byId("options-toggle").toggleAttribute("data-changed", isChanged);
    byId("options-state").textContent = isChanged ? ", changed" : "";
  }
}
