// What can be done with the moment that the player shows: find more like it, download it, edit its video.

import { clipAddress } from "./api.js";
import { addressOf } from "./asked.js";
import { byId } from "./dom.js";
import { bestFrame } from "./ranking.js";
import { buildTags } from "./tile.js";

export class MomentTools {
  #similar = byId("player-similar");
  #clip = byId("player-clip");
  #edit = byId("player-edit");
  #tags = byId("player-tags");
  #hit = null;

  /** `edit(videoId)` opens the form that edits a video. */
  constructor({ edit }) {
    this.#edit.addEventListener("click", () => edit(this.#hit.video_id));
  }

  /** Whether clients may change the library. */
  allowWrites(isAllowed) {
    this.#edit.hidden = !isAllowed;
  }

  /** The player shows another moment. */
  show(hit) {
    this.#hit = hit;
    this.#clip.href = clipAddress(hit.video_id, hit.start_seconds, hit.end_seconds);
    this.showTags(hit.tags);
    this.#similar.href = addressOf({ like: hit.video_id });
    this.follow(bestFrame(hit.frames));
  }

  showTags(tags) {
    this.#tags.replaceChildren(...(tags.length ? [buildTags(tags)] : []));
  }

  /** The player has come to another of the stored frames. */
  follow(frame) {
    if (frame) this.#similar.href = addressOf({ frame: frame.frame_id });
  }
}
