// The player: a dialog that plays a video from a moment, with the moment's frames and the video's other moments.

import { fetchVideo, frameAddress, mediaAddress, mediaProblem, streamAddress } from "./api.js";
import { nameOf } from "./card.js";
import { byId, element, hasModifier } from "./dom.js";
import { clockSpan, fileName } from "./format.js";
import { levelWord } from "./level.js";
import { Preview } from "./preview.js";
import { bestFrame } from "./ranking.js";
import { FrameStepper } from "./stepping.js";
import { buildStrip, drawBars } from "./strip.js";
import { Timeline } from "./timeline.js";

// Jumps go this far past the start of a frame, so that rounding cannot show the frame before it.
const INTO_FRAME_SECONDS = 0.001;
// What Safari, and some graphics cards, play and others do not.
const HEVC = 'video/mp4; codecs="hvc1.1.6.L120.B0"';

/** Where playing a moment starts: at its best frame, which the card shows. */
export const startOf = (hit) => bestFrame(hit.frames)?.pts_seconds ?? hit.start_seconds;

export class Player {
  #dialog = byId("player");
  #video = byId("player-video");
  #problem = byId("player-problem");
  #timeline = new Timeline({ choose: (moment) => this.#chooseMoment(moment) });
  #strip = null;
  // The hit that the player was opened for, and the moment of its video that is shown.
  #opened = null;
  #hit = null;
  #scale = null;
  #start = 0;
  // The player's time at second 0 of the video; null until the first picture tells.
  #origin = 0;
  // Where the player was sent and has not arrived, in its time, and how far it could go at the last try.
  #target = null;
  #reach = 0;
  #request = null;
  // Plays a stream in place of the file; null if the browser plays the file itself.
  #preview = null;
  #stepper = new FrameStepper(this.#video, async (seconds) => (await this.#preview?.makeWhole(seconds)) ?? false);
  // Frames a second of the video; 0: not known.
  #fps = 0;
  #isClosedByPage = false;
  #closed;
  #moved;
  #findMoments;
  #tools;

  /**
   * `closed(hit, isByPage)` is called after the player has closed, by `close` or by the reader; `moved(hit, seconds)`
   * after it was sent to another time; `explain(hit)` opens the explanation. `findMoments(hit, signal)` finds
   * `{moments, video}`: the moments of the hit's video and what is known of it, or null for what cannot be found.
   * `tools` are told which moment and frame are shown.
   */
  constructor({ closed, moved, explain, findMoments, tools }) {
    this.#closed = closed;
    this.#moved = moved;
    this.#findMoments = findMoments;
    this.#tools = tools;
    byId("player-why").addEventListener("click", () => explain(this.#hit));
    byId("player-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    this.#dialog.addEventListener("keydown", (event) => {
      const key = event.key.toLowerCase();
      const moment = { n: 1, p: -1 }[key];
      const frame = { ".": 1, ",": -1 }[key];
      if (moment && !hasModifier(event)) this.#timeline.step(moment);
      if (frame && !hasModifier(event)) this.#stepper.step(frame, this.#fps);
    });
    this.#dialog.addEventListener("close", () => this.#onClose());
    this.#video.addEventListener("loadedmetadata", () => this.#onMetadata());
    this.#video.addEventListener("loadeddata", () => this.#completeTimeline());
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

  /** Shows the new title and tags of a video, if it is the one that is played. */
  rename({ video_id: videoId, title, tags }) {
    if (this.videoId !== videoId) return;
    for (const hit of [this.#hit, this.#opened, ...this.#timeline.moments]) Object.assign(hit, { title, tags });
    this.#showName(this.#hit);
    this.#tools.showTags(tags);
  }

  #showName(hit) {
    byId("player-title").textContent = nameOf(hit);
    byId("player-title").title = nameOf(hit);
  }

  /** Plays from a time, by default from the best frame; `scale` is that of the bars in the grid. */
  open(hit, scale, seconds = startOf(hit)) {
    this.#isClosedByPage = false;
    this.#opened = hit;
    this.#scale = scale;
    this.#start = seconds + INTO_FRAME_SECONDS;
    this.#fps = 0;
    this.#endPreview();
    this.#request?.abort();
    this.#request = null;
    this.#showName(hit);
    byId("player-path").textContent = hit.path;
    const download = byId("player-download");
    download.href = mediaAddress(hit.video_id);
    download.download = fileName(hit.path);
    this.#timeline.show(hit);
    this.#showMoment(hit);
    this.#setOrigin(hit.container_start_seconds > 0 ? null : 0);

    // Until the video has loaded, the picture that was clicked stands there.
    const shown = hit.frames.find((frame) => Math.abs(frame.pts_seconds - seconds) < INTO_FRAME_SECONDS);
    this.#video.poster = shown ? frameAddress(shown.frame_id, hit.snapshot) : "";
    this.#problem.hidden = true;
    this.#video.hidden = false;
    byId("player-links").hidden = false;
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#dialog.scrollTop = 0;
    this.#load();
    this.#video.focus();
    this.#showBestCell();
  }

  /** Goes to a time of the open player's video; `hit` is the moment that holds it. */
  go(hit, seconds = startOf(hit)) {
    if (hit !== this.#hit) this.#showMoment(hit);
    this.#jump(seconds);
  }

  close() {
    if (!this.#dialog.open) return;
    this.#isClosedByPage = true;
    this.#dialog.close();
  }

  get isOpen() {
    return this.#dialog.open;
  }

  /** The id of the video that is shown; undefined if the player is closed. */
  get videoId() {
    return this.#hit?.video_id;
  }

  /** Shows the frames and the facts of a moment of the video; the video plays on. */
  #showMoment(hit) {
    this.#hit = hit;
    const span = clockSpan(hit.start_seconds, hit.end_seconds);
    byId("player-facts").textContent = [span, levelWord(hit)].filter(Boolean).join(" · ");
    this.#strip = buildStrip(hit, { choose: (frame) => this.#jump(frame.pts_seconds) });
    drawBars(this.#strip, hit, this.#scale);
    byId("player-strip").replaceChildren(this.#strip);
    this.#timeline.setCurrent(hit);
    this.#tools.show(hit);
  }

  #showBestCell() {
    this.#strip.querySelector("[data-best]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }

  #chooseMoment(moment) {
    this.go(moment);
    this.#showBestCell();
  }

  /** Marks the other moments of the video, once it plays: they are not waited for, and may fail. */
  async #completeTimeline() {
    const hit = this.#opened;
    if (this.#request || !hit) return;
    this.#request = new AbortController();
    const { moments, video } = await this.#findMoments(hit, this.#request.signal);
    if (hit !== this.#opened) return;
    if (moments) this.#timeline.add(moments);
    this.#timeline.setLength(video?.duration_seconds ?? this.#video.duration - (this.#origin ?? 0));
    this.#fps = video?.fps ?? 0;
    if (video?.playable === false && !this.#playsItself(video)) this.#startPreview(video);
  }

  /** Whether this browser plays a file that others do not, whose picture it shows. */
  #playsItself(video) {
    return video.codec === "hevc" && video.container.startsWith("mov") && this.#video.canPlayType(HEVC) !== "";
  }

  /** Plays a stream that the server makes, in place of the file. */
  #startPreview(video) {
    if (this.#preview || !("MediaSource" in window)) return;
    // What was chosen, or where the file has played to meanwhile.
    const isPlaying = this.#video.readyState > HTMLMediaElement.HAVE_METADATA && this.#target === null;
    if (isPlaying && this.#origin !== null) this.#start = this.#video.currentTime - this.#origin;
    this.#target = null;
    this.#fps = video.fps;
    byId("player-note").hidden = false;
    this.#preview = new Preview(this.#video, video.video_id, video.duration_seconds, this.#start, (problem) =>
      this.#explain(problem.message, "Download the file, or try again later."),
    );
    this.#setOrigin(0);
    this.#video.play().catch(() => {});
  }

  #endPreview() {
    this.#preview?.close();
    this.#preview = null;
    byId("player-note").hidden = true;
  }

  #load() {
    const address = mediaAddress(this.#opened.video_id);
    this.#video.src = this.#origin === null ? address : `${address}#t=${this.#start}`;
    if (this.#origin === null) this.#findOrigin(this.#opened);
    // If the browser refuses (no gesture, no codec), the controls or the error event tell the user.
    this.#video.play().catch(() => {});
  }

  #jump(seconds) {
    this.#start = seconds + INTO_FRAME_SECONDS;
    this.#linkToStart();
    this.#moved(this.#hit, seconds);
    if (this.#video.readyState === HTMLMediaElement.HAVE_NOTHING && !this.#preview) return;
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
    if (this.#video.currentTime >= this.#target - INTO_FRAME_SECONDS) {
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
      if (this.#opened !== hit || this.#origin !== null) return;
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
    byId("player-open").href = this.#preview
      ? streamAddress(this.#hit.video_id, start)
      : `${mediaAddress(this.#hit.video_id)}#t=${Number(start.toFixed(3))}`;
  }

  #onMetadata() {
    if (this.#origin === 0) this.#timeline.setLength(this.#video.duration);
    const distance = this.#video.currentTime - this.#start - this.#origin;
    if (Math.abs(distance) > 0.05) this.#seek();
    if (this.#video.videoWidth === 0) {
      if (this.#origin === null) this.#setOrigin(this.#hit.container_start_seconds); // no picture will tell
      this.#seek();
      this.#playOtherwise("This browser can play the sound of this file, but not its video.");
    }
  }

  async #onError() {
    const hit = this.#opened;
    if (!hit || !this.#video.hasAttribute("src")) return;
    const problem = await mediaProblem(hit.video_id);
    if (hit !== this.#opened) return;
    if (problem) this.#explain(problem.message, "");
    else this.#playOtherwise("This browser cannot play this kind of video.");
  }

  /** Plays a stream of what the browser cannot play; where that fails too, gives the reason. */
  async #playOtherwise(reason) {
    const hit = this.#opened;
    const isPreview = this.#preview !== null;
    const video = isPreview ? null : await fetchVideo(hit.video_id).catch(() => null);
    if (hit !== this.#opened) return;
    if (video) this.#startPreview(video);
    if (!this.#preview || isPreview) this.#explain(reason, "Download the file, or open it in another player.");
  }

  /** Shows, in place of the video, why it cannot be played, and what to do; empty: the file is not there. */
  #explain(reason, advice) {
    const available = advice !== "";
    byId("player-note").hidden = true;
    this.#problem.replaceChildren(element("p", { text: reason }), element("p", { text: advice }));
    this.#problem.hidden = false;
    byId("player-links").hidden = !available;
    if (this.#video.readyState !== HTMLMediaElement.HAVE_NOTHING) return;
    // The focus must not disappear with the video.
    this.#video.hidden = true;
    this.#timeline.hide();
    byId(available ? "player-download" : "player-close").focus();
  }

  /** Marks the current frame: the last one that has started. */
  #markCurrent() {
    if (!this.#strip || this.#origin === null || this.#video.readyState === HTMLMediaElement.HAVE_NOTHING) return;
    const now = this.#video.currentTime - this.#origin;
    this.#timeline.goTo(now);
    this.#follow(now);
    const frames = this.#hit.frames;
    const inside = now < this.#hit.end_seconds;
    const current = inside ? frames.findLastIndex((frame) => frame.pts_seconds <= now + INTO_FRAME_SECONDS) : -1;
    if (current >= 0) this.#tools.follow(frames[current]);
    this.#strip.querySelectorAll(".cell").forEach((cell, index) => {
      if (index === current) cell.setAttribute("aria-current", "true");
      else cell.removeAttribute("aria-current");
    });
  }

  /** Shows the moment that is played, if the video has come to another one and nobody is using the strip. */
  #follow(now) {
    if (this.#target !== null || this.#video.seeking || this.#strip.contains(document.activeElement)) return;
    const moment = this.#timeline.momentAt(now);
    if (moment && moment !== this.#hit) this.#showMoment(moment);
  }

  #onClose() {
    if (this.#dialog.open) return; // opened again before the event came
    const hit = this.#opened;
    const isByPage = this.#isClosedByPage;
    this.#isClosedByPage = false;
    this.#request?.abort();
    this.#opened = null;
    this.#hit = null;
    this.#strip = null;
    this.#target = null;
    this.#endPreview();
    // Without a source, the browser stops loading the file.
    this.#video.pause();
    this.#video.removeAttribute("src");
    this.#video.removeAttribute("poster");
    this.#video.load();
    this.#closed(hit, isByPage);
  }
}
