// What an answer says about its order: the evidence of a hit, the reasons for a missing closer look, the meters.

/** The frame that speaks most for a hit: by its match score, else by its relevance; the earliest of equals. */
export function bestFrame(frames) {
  const salient = frames.filter((frame) => frame.salient);
  const rivals = salient.length > 0 ? salient : frames;
  const isBetter = (frame, best) => {
    const matches = (frame.match_score ?? -Infinity) - (best.match_score ?? -Infinity);
    return matches > 0 || (!(matches < 0) && frame.relevance > best.relevance);
  };
  return rivals.reduce((best, frame) => (isBetter(frame, best) ? frame : best), rivals[0]);
}

export const isMatched = (hit) => hit.match_score !== null && hit.match_score !== undefined;

/** What a score is called: it is more than a similarity once anything of the answer was re-ranked. */
export const scoreName = (hit) => (hit.reranked ? "Score" : "Similarity");

// Log-odds: a lead of this much is clear, and smaller ones must not look like it.
const CLEAR_LEAD = 4;

/** Maps scores to 0…1 for the meters, with the best hit's at 1. */
export function scoreScale(hits) {
  const best = hits[0]?.score ?? 0;
  if (!hits[0]?.reranked) return (value) => (best > 0 ? Math.min(1, Math.max(0, value / best)) : 0);
  const low = Math.min(best - CLEAR_LEAD, ...hits.map((hit) => hit.score));
  // The lowest keeps a stub, so that it does not read as nothing at all.
  return (value) => 0.04 + 0.96 * Math.min(1, Math.max(0, (value - low) / (best - low)));
}

/** Milliseconds that "more time" grants to a search. */
export const MORE_TIME_MS = 20_000;

const BY_LIKENESS = "Ranked by overall similarity only.";

/**
 * Why an answer was not re-ranked, and what to do: `{lead, text, action}`; null when it was. `action` is "time",
 * "rerank" or null. `…` in the text marks what is typed in a terminal.
 */
export function skippedNote(reason, deadlineMs = null) {
  switch (reason) {
    case null:
    case undefined:
      return null;
    case "not_requested":
      return { lead: BY_LIKENESS, text: "The closer look is switched off.", action: "rerank" };
    case "deadline":
      return deadlineMs === null
        ? { lead: BY_LIKENESS, text: "The closer look would have taken too long this time.", action: "time" }
        : {
            lead: BY_LIKENESS,
            text: "The closer look took too long again. Ask for fewer candidates in Options, or try later.",
            action: "time",
          };
    case "no_matcher":
      return {
        lead: BY_LIKENESS,
        text:
          "This library's model has no part that takes a closer look. " +
          "To get one, index with a bundle that holds `matcher.onnx`.",
        action: null,
      };
    case "no_tokens":
      return {
        lead: BY_LIKENESS,
        text:
          "This library was indexed without what a closer look needs. " +
          "Index again into a new folder, without `--tokens none`.",
        action: null,
      };
    default:
      return { lead: BY_LIKENESS, text: "The closer look was left out.", action: null };
  }
}

/** The fewest decimals, from two on, with which the printed terms add up to the printed total. */
export function decimalsThatAddUp(terms, total) {
  for (let decimals = 2; decimals < 6; decimals += 1) {
    const sum = terms.reduce((before, term) => before + Number(term.toFixed(decimals)), 0);
    if (Math.abs(sum - Number(total.toFixed(decimals))) < 0.5 / 10 ** decimals) return decimals;
  }
  return 6;
}
