// The player: a dialog that plays a video from the hit, with the hit's strip to jump to its frames.

import { mediaAddress, mediaProblem } from "./api.js";
import { nameOf } from "./card.js";
import { byId, element } from "./dom.js";
import { clockSpan, fileName, score, signed } from "./format.js";
import { bestFrame, isMatched, scoreName } from "./ranking.js";
import { buildStrip, drawBars } from "./strip.js";

// Jumps go this far past the start of a frame, so that rounding cannot show the frame before it.
const INTO_FRAME_SECONDS = 0.001;

export class Player {
  #dialog = byId("player");
  #video = byId("player-video");
  #problem = byId("player-problem");
  #strip = null;
  #hit = null;
  #start = 0;
  // The player's time at second 0 of the video; null until the first picture tells.
  #origin = 0;
  // Where the player was sent and has not arrived, in its time, and how far it could go at the last try.
  #target = null;
  #reach = 0;
  #closed;

  /** `closed(hit)` is called after the player has closed in any way; `explain(hit)` opens the explanation. */
  constructor({ closed, explain }) {
    this.#closed = closed;
    byId("player-why").addEventListener("click", () => explain(this.#hit));
    byId("player-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    this.#dialog.addEventListener("close", () => this.#onClose());
    this.#video.addEventListener("loadedmetadata", () => this.#onMetadata());
    this.#video.addEventListener("error", () => this.#onError());
    this.#video.addEventListener("timeupdate", () => this.#markCurrent());
    this.#video.addEventListener("seeked", () => {
      this.#markCurrent();
      this.#goOn();
    });
    this.#video.addEventListener("durationchange", () => this.#goOn());
    for (const type of ["pointerdown", "keydown"]) {
      this.#video.addEventListener(type, () => (this.#target = null));
    }
  }

  /**
   * Plays from a frame, or from the best one, which the card shows, if `frame` is null; `scale` is that of the bars in
   * the grid.
   */
  open(hit, frame, scale) {
    this.#hit = hit;
    const first = frame ?? bestFrame(hit.frames);
    this.#start = first ? first.pts_seconds + INTO_FRAME_SECONDS : hit.start_seconds;
    byId("player-title").textContent = nameOf(hit);
    byId("player-title").title = nameOf(hit);
    byId("player-path").textContent = hit.path;
    const span = clockSpan(hit.start_seconds, hit.end_seconds);
    const match = isMatched(hit) ? ` · match ${signed(hit.match_score)}` : "";
    byId("player-facts").textContent = `${span} · ${scoreName(hit).toLowerCase()} ${score(hit.score)}${match}`;
    this.#setOrigin(hit.container_start_seconds > 0 ? null : 0);
    const download = byId("player-download");
    download.href = mediaAddress(hit.video_id);
    download.download = fileName(hit.path);
    this.#strip = buildStrip(hit, { choose: (chosen) => this.#jump(chosen), times: true, tabStops: true });
    drawBars(this.#strip, hit, scale);
    byId("player-strip").replaceChildren(this.#strip);

    this.#problem.hidden = true;
    this.#video.hidden = false;
    byId("player-links").hidden = false;
    this.#dialog.showModal();
    this.#load();
    this.#video.focus();
    this.#strip.querySelector("[data-best]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }

  /** Like `open`, but if the player already shows the hit, it only jumps to the frame. */
  play(hit, frame, scale) {
    if (this.isOpen && this.#hit === hit) this.#jump(frame);
    else this.open(hit, frame, scale);
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  get isOpen() {
    return this.#dialog.open;
  }

  #load() {
    const address = mediaAddress(this.#hit.video_id);
    this.#video.src = this.#origin === null ? address : `${address}#t=${this.#start}`;
    if (this.#origin === null) this.#findOrigin(this.#hit);
    // If the browser refuses (no gesture, no codec), the controls or the error event tell the user.
    this.#video.play().catch(() => {});
  }

  #jump(frame) {
    this.#start = frame.pts_seconds + INTO_FRAME_SECONDS;
    this.#linkToStart();
    if (this.#video.readyState === HTMLMediaElement.HAVE_NOTHING) return;
    this.#seek();
    this.#video.play().catch(() => {});
  }

  /** Goes to the chosen time, once it is known where the player's time starts. */
  #seek() {
    if (this.#origin === null) return;
    this.#target = this.#start + this.#origin;
    this.#reach = this.#video.duration;
    this.#video.currentTime = this.#target;
  }

  /**
   * Goes on to where the player was sent. In an MP4 file that does not start at 0, Chromium takes the length for the
   * end, goes no further, and moves the end only as it reads.
   */
  #goOn() {
    if (this.#target === null || this.#video.seeking) return;
    if (this.#video.currentTime >= this.#target - 0.05) {
      this.#target = null;
    } else if (this.#video.duration > this.#reach) {
      this.#reach = this.#video.duration;
      this.#video.currentTime = this.#target;
    }
  }

  /**
   * Learns how this browser counts in a file that does not start at 0: the first picture tells. Chromium keeps the
   * file's own time, Firefox counts from the first picture or sound.
   */
  #findOrigin(hit) {
    const own = hit.container_start_seconds;
    const learn = (time) => {
      if (this.#hit !== hit || this.#origin !== null) return;
      this.#setOrigin(time > own / 2 ? own : 0);
      this.#seek();
    };
    if ("requestVideoFrameCallback" in HTMLVideoElement.prototype) {
      this.#video.requestVideoFrameCallback((now, picture) => learn(picture.mediaTime));
    } else {
      this.#video.addEventListener("loadeddata", () => learn(this.#video.currentTime), { once: true });
    }
  }

  #setOrigin(origin) {
    this.#origin = origin;
    this.#linkToStart();
  }

  /** With the media fragment, a new tab also starts at the chosen time. */
  #linkToStart() {
    const start = this.#start + (this.#origin ?? this.#hit.container_start_seconds);
    byId("player-open").href = `${mediaAddress(this.#hit.video_id)}#t=${Number(start.toFixed(3))}`;
  }

  #onMetadata() {
    const distance = this.#video.currentTime - this.#start - this.#origin;
    if (Math.abs(distance) > 0.05) this.#seek();
    if (this.#video.videoWidth === 0) {
      if (this.#origin === null) this.#setOrigin(this.#hit.container_start_seconds); // no picture will tell
      this.#seek();
      this.#explain("This browser can play the sound of this file, but not its video.");
    }
  }

  async #onError() {
    const hit = this.#hit;
    if (!hit || !this.#video.hasAttribute("src")) return;
    const problem = await mediaProblem(hit.video_id);
    if (hit !== this.#hit) return;
    this.#explain(problem ? problem.message : "This browser cannot play this kind of video.", !problem);
  }

  /** Shows, in place of the video, why it cannot be played. */
  #explain(reason, available = true) {
    const advice = available ? "Download the file, or open it in another player." : "";
    this.#problem.replaceChildren(element("p", { text: reason }), element("p", { text: advice }));
    this.#problem.hidden = false;
    byId("player-links").hidden = !available;
    if (this.#video.readyState !== HTMLMediaElement.HAVE_NOTHING) return;
    // The focus must not disappear with the video.
    this.#video.hidden = true;
    byId(available ? "player-download" : "player-close").focus();
  }

  /** Marks the current frame: the last one that has started. */
  #markCurrent() {
    if (!this.#strip) return;
    if (this.#origin === null) return;
    const now = this.#video.currentTime - this.#origin;
    const frames = this.#hit.frames;
    const inside = now < this.#hit.end_seconds;
    const current = inside ? frames.findLastIndex((frame) => frame.pts_seconds <= now + INTO_FRAME_SECONDS) : -1;
    this.#strip.querySelectorAll(".cell").forEach((cell, index) => {
      if (index === current) cell.setAttribute("aria-current", "true");
      else cell.removeAttribute("aria-current");
    });
  }

  #onClose() {
    if (this.#dialog.open) return; // opened again before the event came
    const hit = this.#hit;
    this.#hit = null;
    this.#strip = null;
    this.#target = null;
    // Without a source, the browser stops loading the file.
    this.#video.pause();
    this.#video.removeAttribute("src");
    this.#video.load();
    this.#closed(hit);
  }
}
