// A message in place of results, and automatic retries.

import { byId, showWords } from "./dom.js";
import { count } from "./format.js";

const RETRY_SECONDS = [2, 4, 8, 15, 30];

function headingFor(problem) {
  if (problem.kind === "unreachable") return navigator.onLine ? "The server cannot be reached" : "You are offline";
  if (problem.kind === "late") return "No answer yet";
  if (problem.kind === "overloaded") return "The server is busy";
  if (problem.kind === "query-not-understood") return "The query is not understood";
  if (problem.kind === "not-logged-in") return "You are not logged in";
  if (problem.kind === "too-many-requests") return "Too many requests";
  if (problem.status === 503) return "The library is not ready";
  return problem.status >= 500 ? "The server failed" : "That search did not work";
}

export class Notice {
  #place = byId("notice");
  #heading = byId("notice-heading");
  #text = byId("notice-text");
  #fallback;
  #timer = 0;
  #attempt = 0;

  /** `fallback` gets the focus when the message that has it disappears. */
  constructor(fallback) {
    this.#fallback = fallback;
  }

  /** Whether a message is shown and a retry is waiting. */
  get isWaiting() {
    return !this.#place.hidden && this.#timer !== 0;
  }

  hide() {
    if (this.#place.contains(document.activeElement)) this.#fallback.focus();
    this.#place.hidden = true;
    this.#say("", "");
  }

  /** Shows a message. The button calls `again`; `seconds` says when that happens automatically. */
  show(heading, text, { again = null, seconds = null } = {}) {
    this.#place.hidden = false;
    this.#say(heading, text);
    byId("notice-again").hidden = !again;
    byId("notice-button").onclick = again;
    byId("notice-wait").textContent = seconds === null ? "" : `Trying again in ${count(seconds, "second")}.`;
  }

  /** Shows a problem. If it is temporary, `again` is called automatically, at growing intervals. */
  showProblem(problem, again) {
    if (!problem.isTemporary) {
      this.show(headingFor(problem), problem.message, { again: problem.status >= 500 ? again : null });
      return;
    }
    const step = RETRY_SECONDS[Math.min(this.#attempt, RETRY_SECONDS.length - 1)];
    const seconds = problem.retryAfterSeconds ?? step;
    this.show(headingFor(problem), problem.message, { again, seconds });
    this.#attempt += 1;
    this.#timer = setTimeout(again, seconds * 1000);
  }

  /** Cancels the waiting retry. */
  stopWaiting() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  /** Cancels the waiting retry, and starts again with the shortest interval at the next problem. */
  stopRetrying() {
    this.stopWaiting();
    this.#attempt = 0;
  }

  /** Replaces texts only if they change: screen readers would read them out again. */
  #say(heading, text) {
    if (this.#heading.textContent !== heading) this.#heading.textContent = heading;
    showWords(this.#text, text);
  }
}
