// The place in the address: the video and the time that the player was opened at (`?q=…&video=…&t=…`).

/** The place in the query part of an address: `{video, seconds}`; null if the player is closed. */
export function placeIn(search) {
  const given = new URLSearchParams(search);
  const video = given.get("video");
  if (!video) return null;
  const seconds = Number(given.get("t"));
  return { video, seconds: Number.isFinite(seconds) && seconds > 0 ? seconds : 0 };
}

/** The query part of an address with another place; null: without one. */
export function withPlace(search, place) {
  const parameters = new URLSearchParams(search);
  parameters.delete("video");
  parameters.delete("t");
  if (place) {
    parameters.set("video", place.video);
    parameters.set("t", Number(place.seconds.toFixed(3)));
  }
  const text = parameters.toString();
  return text && `?${text}`;
}

/** Keeps the history in step with the player: Back closes it, and Forward opens it again. */
export class PlaceHistory {
  #isLeaving = false;
  #next = null;

  /** Adds an entry for the player, which has been opened, unless the entry is that of a player already. */
  enter(place) {
    // Going back takes a moment; an entry that is added meanwhile would be lost.
    if (this.#isLeaving || placeIn(location.search)) this.move(place);
    else history.pushState({ ...history.state, isPlayer: true }, "", this.#address(place));
  }

  /** The open player has gone to another time. */
  move(place) {
    if (this.#isLeaving) this.#next = place;
    else if (placeIn(location.search)) history.replaceState(history.state, "", this.#address(place));
  }

  /** The player has been closed: goes back to the entry before it, or takes the place out of a link. */
  leave() {
    this.#next = null;
    if (this.#isLeaving || !placeIn(location.search)) return;
    if (history.state?.isPlayer) {
      this.#isLeaving = true;
      history.back();
    } else {
      this.forget();
    }
  }

  /** Takes the place out of the address. */
  forget() {
    history.replaceState(history.state, "", this.#address(null));
  }

  /** Whether a move in the history is the end of `leave`, so that there is nothing to show. */
  settle() {
    if (!this.#isLeaving) return false;
    this.#isLeaving = false;
    if (this.#next) this.enter(this.#next);
    this.#next = null;
    return true;
  }

  #address = (place) => withPlace(location.search, place) || location.pathname;
}
