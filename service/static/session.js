// Who uses the page: the form to log in with a key, and the button that logs out.

import { NOT_LOGGED_IN, fetchSession, logIn, logOut } from "./api.js";
import { byId, withCode } from "./dom.js";

const dialog = byId("log-in");
const form = byId("log-in-form");
const key = byId("log-in-key");
const problem = byId("log-in-problem");
const send = byId("log-in-send");
const leave = byId("log-out");

/** Shows the form, unless a proxy is asked who uses the page: then there is nothing to log in to. */
async function askForKey() {
  if (dialog.open) return;
  const session = await fetchSession().catch(() => null);
  if (session?.auth !== "keys" || session.via === "session" || dialog.open) return;
  problem.replaceChildren();
  dialog.showModal();
  key.focus();
}

async function enter(event) {
  event.preventDefault();
  if (!key.value.trim()) {
    refuse("Paste your key, then press Enter.");
    return;
  }
  send.disabled = true;
  try {
    await logIn(key.value.trim());
    // All of the page is asked for again, with the session: the address holds what was looked for.
    location.reload();
  } catch (error) {
    refuse(error.message);
    send.disabled = false;
  }
}

function refuse(text) {
  problem.replaceChildren(...withCode(text));
  key.setAttribute("aria-invalid", "true");
  key.select();
  key.focus();
}

async function exit() {
  leave.disabled = true;
  try {
    await logOut();
  } finally {
    location.assign(location.pathname);
  }
}

form.addEventListener("submit", enter);
key.addEventListener("input", () => {
  key.removeAttribute("aria-invalid");
  problem.replaceChildren();
});
// There is nothing behind the form to go back to.
dialog.addEventListener("keydown", (event) => {
  if (event.key === "Escape") event.preventDefault();
});
leave.addEventListener("click", exit);
document.addEventListener(NOT_LOGGED_IN, askForKey);
// Back, after logging out, must not show what the browser has kept of the page.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted || leave.hidden) return;
  document.body.hidden = true;
  location.reload();
});

/** Shows the button that logs out, where somebody is logged in. */
export async function showSession() {
  const session = await fetchSession().catch(() => null);
  leave.hidden = session?.via !== "session";
  if (!leave.hidden) {
    const label = `Log out (${session.name})`;
    leave.setAttribute("aria-label", label);
    leave.title = label;
  }
}
