// The list of videos that filters leave, with the folders below the one that is shown.

import { fetchFolders, listVideos } from "./api.js";
import { filterOf } from "./asked.js";
import { byId } from "./dom.js";
import { buildFolder, buildWay } from "./folders.js";
import { count, footage } from "./format.js";
import { Paging } from "./paging.js";
import { buildVideo, walkable } from "./tile.js";

const PAGE = 48;

export class VideoList {
  #list = walkable(byId("videos-grid"));
  #folders = byId("videos-folders");
  #way = byId("videos-way");
  #count = byId("videos-count");
  #paging = new Paging(byId("videos-more"), byId("videos-more-problem"), (isByButton) => this.#more(isByButton));
  #play;
  #asked = null;
  #token = null;
  #pages = 1;
  #shown = 0;
  #signal = null;

  /** `play(videoId, seconds)` plays a video. */
  constructor({ play }) {
    this.#play = play;
  }

  clear() {
    this.#list.show([]);
    this.#folders.replaceChildren();
    this.#way.replaceChildren();
    this.#count.textContent = "";
    this.#paging.show({ hasMore: false });
  }

  /** Shows what is asked for, as many pages as were shown before. Throws a problem. */
  async show(asked, pages, signal) {
    this.#asked = asked;
    this.#signal = signal;
    this.#token = null;
    this.#pages = 0;
    this.#shown = 0;
    const [first, folders] = await Promise.all([this.#page(), this.#foldersOf(asked.folder, signal)]);
    this.clear();
    this.#add(first);
    this.#showFolders(folders);
    while (this.#token && this.#pages < pages) this.#add(await this.#page());
    this.#paging.show({ hasMore: this.#token !== null });
    return first.total;
  }

  #page() {
    const { sort } = this.#asked;
    const wanted = { filter: filterOf(this.#asked), sort: sort || null, limit: PAGE, page_token: this.#token };
    return listVideos(wanted, this.#signal);
  }

  #add(page) {
    this.#token = page.next_page_token;
    this.#pages += 1;
    this.#shown += page.videos.length;
    this.#list.add(page.videos.map((video) => buildVideo(video, page.snapshot, this.#play)));
    const length = page.hours > 0 ? `, ${footage(page.hours * 3600)}` : "";
    this.#count.textContent = page.total ? `${count(page.total, "video")}${length}` : "No videos";
  }

  async #more(isByButton) {
    const before = this.#shown;
    const page = await this.#page();
    const movesFocus = isByButton();
    this.#add(page);
    this.#paging.show({ hasMore: this.#token !== null });
    history.replaceState({ ...history.state, pages: this.#pages }, "");
    if (movesFocus) this.#list.focus(before);
  }

  async #foldersOf(folder, signal) {
    const top = await fetchFolders(null, signal);
    if (!folder || folder === top.folder.path) return { top, level: top };
    try {
      return { top, level: await fetchFolders(folder, signal) };
    } catch (problem) {
      // No video is in such a folder: the list says so.
      if (problem.status === 404) return { top, level: null };
      throw problem;
    }
  }

  #showFolders({ top, level }) {
    this.#way.replaceChildren(...buildWay(top.folder.path, this.#asked.folder));
    this.#folders.replaceChildren(...(level?.folders ?? []).map(buildFolder));
  }
}
