// The form that edits what users say of a video: title, tags and note.

import { annotateVideo, fetchVideoToEdit } from "./api.js";
import { byId, element } from "./dom.js";

const tagsIn = (text) => text.split(",").map((tag) => tag.trim()).filter(Boolean);

export class Editing {
  #dialog = byId("editing");
  #form = byId("editing-form");
  #title = byId("editing-title");
  #tags = byId("editing-tags");
  #note = byId("editing-note");
  #problem = byId("editing-problem");
  #save = byId("editing-save");
  #videoId = "";
  #etag = "";
  #fileTitle = null;
  #saved;

  /** `saved(video)` is called after a change. */
  constructor({ saved }) {
    this.#saved = saved;
    for (const name of ["editing-close", "editing-cancel"]) {
      byId(name).addEventListener("click", () => this.#dialog.close());
    }
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
  }

  get isOpen() {
    return this.#dialog.open;
  }

  async open(videoId) {
    this.#videoId = videoId;
    this.#problem.replaceChildren();
    this.#save.disabled = true;
    if (!this.#dialog.open) this.#dialog.showModal();
    try {
      this.#fill(await fetchVideoToEdit(videoId));
    } catch (problem) {
      this.#say(problem.message);
    }
  }

  close() {
    if (this.#dialog.open) this.#dialog.close();
  }

  #fill({ video, etag }) {
    if (video.video_id !== this.#videoId) return;
    this.#etag = etag;
    this.#fileTitle = video.file_title;
    byId("editing-name").textContent = video.path;
    this.#title.value = video.title ?? "";
    this.#tags.value = video.tags.join(", ");
    this.#note.value = video.note ?? "";
    this.#save.disabled = false;
    this.#title.focus();
  }

  async #send() {
    const title = this.#title.value.trim();
    // The title of the file is not given by users; without one, it is shown again.
    const change = {
      title: title && title !== this.#fileTitle ? title : null,
      tags: tagsIn(this.#tags.value),
      note: this.#note.value.trim() || null,
    };
    this.#save.disabled = true;
    this.#problem.replaceChildren();
    try {
      const video = await annotateVideo(this.#videoId, change, this.#etag);
      this.#dialog.close();
      this.#saved(video);
    } catch (problem) {
      if (problem.status === 412) await this.#showConflict();
      else this.#say(problem.message);
    } finally {
      this.#save.disabled = false;
    }
  }

  /** Somebody else has changed the video: shows how, and lets the user take that or save over it. */
  async #showConflict() {
    try {
      const now = await fetchVideoToEdit(this.#videoId);
      this.#etag = now.etag;
      const { title, tags, note } = now.video;
      const take = () => {
        this.#problem.replaceChildren();
        this.#fill(now);
      };
      this.#problem.replaceChildren(
        element("p", { text: "Somebody else has changed this video meanwhile. It now has:" }),
        element(
          "ul",
          { dir: "auto" },
          element("li", { text: `Title: ${title ?? "none"}` }),
          element("li", { text: `Tags: ${tags.join(", ") || "none"}` }),
          element("li", { text: `Note: ${note ?? "none"}` }),
        ),
        element("p", { text: "Save again to replace that by yours, or" }),
        element("button", { class: "quiet small", type: "button", text: "Take theirs", onclick: take }),
      );
    } catch (problem) {
      this.#say(problem.message);
    }
  }

  #say(text) {
    this.#problem.replaceChildren(element("p", { text }));
  }
}
