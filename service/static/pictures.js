// Pictures to search by: chosen, dropped or pasted, made smaller, and kept in this browser, so that Back, Forward and
// reloading find them again.

import { byId } from "./dom.js";

const DATABASE = "reelfind";
const STORE = "pictures";
const MOST = 30;
// The service makes it smaller still.
const LARGEST_SIDE = 1024;
const CHIP_SIDE = 64;

// Where the browser keeps nothing (private windows), pictures last as long as the page.
const held = new Map();

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

// One connection for all of the page.
let database = null;

function connect() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return done(request);
}

async function open(mode) {
  database ??= connect();
  try {
    return (await database).transaction(STORE, mode).objectStore(STORE);
  } catch (error) {
    database = null;
    throw error;
  }
}

async function drawn(picture, side) {
  const bitmap = await createImageBitmap(picture);
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  // Where it is transparent, the service sees what a page would show.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  // A phone's photo takes 50 MB.
  bitmap.close();
  return canvas;
}

async function smaller(file) {
  try {
    const canvas = await drawn(file, LARGEST_SIDE);
    return await new Promise((resolve) => canvas.toBlob((blob) => resolve(blob ?? file), "image/jpeg", 0.92));
  } catch {
    // The browser cannot read it; perhaps the service can.
    return file;
  }
}

/** Keeps a picture; resolves to the name that it has in addresses. */
export async function keepPicture(file) {
  const picture = await smaller(file);
  // Names rise with time, so that the first ones are the oldest.
  const name = `${Date.now().toString(36)}-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
  held.set(name, picture);
  try {
    const store = await open("readwrite");
    await done(store.put(picture, name));
    const names = await done(store.getAllKeys());
    for (const old of names.slice(0, Math.max(0, names.length - MOST))) store.delete(old);
  } catch {
    // It lasts as long as the page.
  }
  return name;
}

/** The picture with a name; null: this browser does not have it. */
export async function pictureNamed(name) {
  if (held.has(name)) return held.get(name);
  try {
    return (await done((await open("readonly")).get(name))) ?? null;
  } catch {
    return null;
  }
}

/** A picture as the address of a small one; null: the browser cannot show it. */
export async function smallAddress(picture) {
  try {
    return (await drawn(picture, CHIP_SIDE)).toDataURL("image/jpeg", 0.8);
  } catch {
    return null;
  }
}

const isPicture = (file) => file.type.startsWith("image/");
const pictureIn = (transfer) => [...(transfer?.files ?? [])].find(isPicture) ?? null;
const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");

/** Takes pictures that are chosen, dropped or pasted. `search(file)` searches by one, `refuse(text)` says why not. */
export class PictureEntry {
  #button = byId("picture-button");
  #input = byId("picture-file");
  #target = byId("drop-target");
  #isAllowed = false;
  #depth = 0;

  constructor({ search, refuse }) {
    const take = (file) => {
      if (!this.#isAllowed) refuse("This library cannot be searched by a picture.");
      else if (file) search(file);
      else refuse("That is not a picture. Choose a JPEG, PNG or WebP file.");
    };
    this.#button.addEventListener("click", () => this.#input.click());
    this.#input.addEventListener("change", () => {
      const [file] = this.#input.files;
      this.#input.value = "";
      if (file) take(isPicture(file) ? file : null);
    });
    document.addEventListener("paste", (event) => {
      const file = pictureIn(event.clipboardData);
      if (!file) return;
      event.preventDefault();
      take(file);
    });
    document.addEventListener("dragenter", (event) => this.#over(event, 1));
    document.addEventListener("dragleave", (event) => this.#over(event, -1));
    document.addEventListener("dragover", (event) => holdsFiles(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      this.#depth = 0;
      this.#target.hidden = true;
      take(pictureIn(event.dataTransfer));
    });
  }

  /** Whether the library can be searched by pictures. */
  allow(isAllowed) {
    this.#isAllowed = isAllowed;
    this.#button.hidden = !isAllowed;
  }

  #over(event, step) {
    if (!holdsFiles(event) || !this.#isAllowed) return;
    event.preventDefault();
    this.#depth = Math.max(0, this.#depth + step);
    this.#target.hidden = this.#depth === 0;
  }
}
