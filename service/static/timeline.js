// The timeline below the video: the moments of this query in this video, marked on a bar as long as the video.

import { byId, element } from "./dom.js";
import { clockSpan } from "./format.js";
import { isUnlikely, levelWord } from "./level.js";

const sameSpan = (one, other) => one.start_seconds === other.start_seconds && one.end_seconds === other.end_seconds;
const overlap = (one, other) => one.start_seconds < other.end_seconds && other.start_seconds < one.end_seconds;

export class Timeline {
  #place = byId("timeline");
  #track = byId("timeline-track");
  #text = byId("timeline-text");
  #previous = byId("moment-previous");
  #next = byId("moment-next");
  #moments = [];
  #current = null;
  #seconds = 0;
  #choose;

  /** `choose(moment)` is called with the moment to play. */
  constructor({ choose }) {
    this.#choose = choose;
    this.#previous.addEventListener("click", () => this.step(-1));
    this.#next.addEventListener("click", () => this.step(1));
  }

  /** Shows a hit's own moment alone, until `add` brings the others of its video. */
  show(hit) {
    this.#place.hidden = false;
    this.#seconds = 0;
    this.#moments = [hit];
    this.#current = hit;
    this.#draw();
    this.goTo(hit.start_seconds);
  }

  hide() {
    this.#place.hidden = true;
  }

  /** Adds other moments, in any order. What overlaps a moment that is marked, or is unlikely, is left out. */
  add(moments) {
    for (const moment of moments) {
      const isKnown = this.#moments.some((known) => sameSpan(known, moment) || overlap(known, moment));
      if (!isKnown && !isUnlikely(moment)) this.#moments.push(moment);
    }
    this.#moments.sort((one, other) => one.start_seconds - other.start_seconds);
    this.#draw();
  }

  get moments() {
    return this.#moments;
  }

  /** The length of the video; until it is known, the bar ends with the last moment. */
  setLength(seconds) {
    if (!Number.isFinite(seconds) || seconds <= this.#seconds) return;
    this.#seconds = seconds;
    this.#draw();
  }

  setCurrent(moment) {
    this.#current = moment;
    this.#draw();
  }

  /** The marked moment that holds a time; undefined if none does. */
  momentAt(seconds) {
    return this.#moments.find((moment) => moment.start_seconds <= seconds && seconds < moment.end_seconds);
  }

  /** Chooses the moment before (−1) or after (1) the current one, if there is one. */
  step(by) {
    const moment = this.#moments[this.#moments.indexOf(this.#current) + by];
    if (moment) this.#choose(moment);
  }

  /** Moves the hand to a time. */
  goTo(seconds) {
    this.#track.style.setProperty("--now", this.#share(seconds));
  }

  #length() {
    return Math.max(this.#seconds, ...this.#moments.map((moment) => moment.end_seconds), 0.001);
  }

  #share(seconds) {
    return Math.min(1, Math.max(0, seconds / this.#length())).toFixed(4);
  }

  #draw() {
    // Marks are reused and stay where they are, so that the one that has the focus keeps it.
    const marks = new Map([...this.#track.querySelectorAll(".mark")].map((mark) => [mark.dataset.start, mark]));
    const shown = this.#moments.map((moment, index) => {
      const start = String(moment.start_seconds);
      const fresh = { class: "mark", type: "button", "data-start": start };
      const mark = marks.get(start) ?? element("button", fresh, element("span"));
      const span = clockSpan(moment.start_seconds, moment.end_seconds);
      const words = [span, levelWord(moment)].filter(Boolean).join(", ");
      mark.title = words;
      mark.setAttribute("aria-label", `Play moment ${index + 1}, ${words}`);
      mark.onclick = () => this.#choose(moment);
      if (moment === this.#current) mark.setAttribute("aria-current", "true");
      else mark.removeAttribute("aria-current");
      mark.style.setProperty("--from", this.#share(moment.start_seconds));
      mark.style.setProperty("--to", this.#share(moment.end_seconds));
      return mark;
    });
    for (const mark of marks.values()) if (!shown.includes(mark)) mark.remove();
    shown.forEach((mark, index) => {
      const there = this.#track.children[index] ?? null;
      if (there !== mark) this.#track.insertBefore(mark, there);
    });
    const place = this.#moments.indexOf(this.#current);
    const number = this.#moments.length;
    this.#text.textContent = number > 1 ? `Moment ${place + 1} of ${number}` : "1 moment";
    // A disabled button would lose the focus.
    this.#previous.setAttribute("aria-disabled", String(place <= 0));
    this.#next.setAttribute("aria-disabled", String(place >= number - 1));
  }
}
