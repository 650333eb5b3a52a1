// Words for how likely a moment shows what was described, where the bundle is calibrated.

import { element } from "./dom.js";

const WORDS = { high: "Strong match", medium: "Likely", low: "Less likely" };

/** The word for a hit's level; null if the server gives no level. */
export const levelWord = (hit) => WORDS[hit.level] ?? null;

export const isUnlikely = (hit) => hit.level === "low";

/** The word, beside a mark that shows the same as one to three steps; null without a level. */
export function buildLevel(hit) {
  const word = levelWord(hit);
  return word && element("span", { class: "level", "data-level": hit.level, text: word });
}

/** How a hit compares with the best one, as a bar; the grid sets `--share` and `aria-valuenow`. */
export const buildMeter = () =>
  element(
    "span",
    {
      class: "meter",
      role: "meter",
      "aria-label": "Compared with the best result",
      "aria-valuemin": 0,
      "aria-valuemax": 100,
      "aria-valuenow": 0,
      title: "How this moment fits the description, compared with the best result",
    },
    element("span"),
  );
