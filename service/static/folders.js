// Folders to walk into, as links.

import { addressOf } from "./asked.js";
import { element } from "./dom.js";
import { count, fileName, footage } from "./format.js";

/** A folder, with what is in it. */
export function buildFolder(folder) {
  const hours = folder.hours > 0 ? `, ${footage(folder.hours * 3600)}` : "";
  return element(
    "li",
    {},
    element(
      "a",
      { class: "folder", "data-page": true, href: addressOf({ folder: folder.path }), title: folder.path },
      element("span", { class: "folder-name", dir: "auto", text: fileName(folder.path) }),
      element("span", { class: "folder-facts", text: `${count(folder.num_videos, "video")}${hours}` }),
    ),
  );
}

/** The way from the folder that all videos are in down to one of its folders. */
export function buildWay(top, path) {
  const inside = path.startsWith(`${top.replace(/\/$/, "")}/`) ? path.slice(top.replace(/\/$/, "").length + 1) : "";
  const links = [element("a", { "data-page": true, href: addressOf({ list: "videos" }), text: "All videos" })];
  let way = top.replace(/\/$/, "");
  for (const name of inside.split("/").filter(Boolean)) {
    way = `${way}/${name}`;
    links.push(element("a", { "data-page": true, dir: "auto", href: addressOf({ folder: way }), text: name }));
  }
  links.at(-1).setAttribute("aria-current", "page");
  return links;
}
