// A message in place of results, and the repetition of what may still succeed.

import { byId, withCode } from "./dom.js";
import { count } from "./format.js";

const RETRY_SECONDS = [2, 4, 8, 15, 30];

function headingFor(problem) {
  if (problem.kind === "unreachable") return navigator.onLine ? "The server cannot be reached" : "You are offline";
  if (problem.kind === "late") return "No answer yet";
  if (problem.kind === "overloaded") return "The server is busy";
  if (problem.status === 503) return "The library is not ready";
  return problem.status >= 500 ? "The server failed" : "That search did not work";
}

export class Notice {
  #place = byId("notice");
  #heading = byId("notice-heading");
  #text = byId("notice-text");
  #refuge;
  #timer = 0;
  #attempt = 0;

  /** `refuge` takes the focus when the message goes from under it. */
  constructor(refuge) {
    this.#refuge = refuge;
  }

  /** Whether a message is shown whose cause is tried again by itself. */
  get isWaiting() {
    return !this.#place.hidden && this.#timer !== 0;
  }

  hide() {
    if (this.#place.contains(document.activeElement)) this.#refuge.focus();
    this.#place.hidden = true;
    this.#say("", "");
  }

  /** `again` offers to repeat, and `seconds` says when that happens by itself. */
  show(heading, text, { again = null, seconds = null } = {}) {
    this.#place.hidden = false;
    this.#say(heading, text);
    byId("notice-again").hidden = !again;
    byId("notice-button").onclick = again;
    byId("notice-wait").textContent = seconds === null ? "" : `Trying again in ${count(seconds, "second")}.`;
  }

  /** Shows a problem; `again` is repeated on its own, ever more slowly, when the problem may pass. */
  showProblem(problem, again) {
    if (!problem.passes) {
      this.show(headingFor(problem), problem.message, { again: problem.status >= 500 ? again : null });
      return;
    }
    const step = RETRY_SECONDS[Math.min(this.#attempt, RETRY_SECONDS.length - 1)];
    const seconds = problem.retryAfterSeconds ?? step;
    this.show(headingFor(problem), problem.message, { again, seconds });
    this.#attempt += 1;
    this.#timer = setTimeout(again, seconds * 1000);
  }

  /** The repetition that waits is off: something else begins. */
  stopWaiting() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  /** As `stopWaiting`, and the next problem is the first of its kind. */
  stopRetrying() {
    this.stopWaiting();
    this.#attempt = 0;
  }

  /** Replaces the words only where they change: what stays is not read out again. */
  #say(heading, text) {
    if (this.#heading.textContent !== heading) this.#heading.textContent = heading;
    if (this.#place.dataset.text === text) return;
    this.#place.dataset.text = text;
    this.#text.replaceChildren(...withCode(text));
  }
}
