// Where the page was scrolled to, kept in the history: what is shown comes after the browser would go there itself.

const PAUSE_MS = 150;

let wanted = 0;
let isWaiting = false;
let timer = 0;

history.scrollRestoration = "manual";
addEventListener("scroll", () => {
  clearTimeout(timer);
  if (isWaiting) return;
  timer = setTimeout(() => history.replaceState({ ...history.state, scroll: Math.round(scrollY) }, ""), PAUSE_MS);
});

/** Another entry of the history is going to be shown: goes to its top, or waits for what was scrolled to. */
export function beginScroll() {
  clearTimeout(timer);
  wanted = history.state?.scroll ?? 0;
  isWaiting = wanted > 0;
  if (!isWaiting) scrollTo(0, 0);
}

/** It is shown: goes to where it was scrolled to, if the reader has not come here anew. */
export function endScroll() {
  if (!isWaiting) return;
  isWaiting = false;
  scrollTo(0, wanted);
}
