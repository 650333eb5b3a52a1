// The ranking of an answer: its hits, the best frame of a hit, the scales of the meters, and why it was not re-ranked.

/** The hits of an answer, with what they share. */
export function hitsOf(answer) {
  const shared = { snapshot: answer.snapshot, reranked: answer.reranked, skipped: answer.rerank_skipped };
  return answer.hits.map((hit) => ({ ...hit, ...shared }));
}

function isBetter(frame, other) {
  const lead = (frame.match_score ?? -Infinity) - (other.match_score ?? -Infinity);
  return lead > 0 || (!(lead < 0) && frame.relevance > other.relevance);
}

/** The frame that fits best, by match score, else by relevance; the earliest of equals. */
export function bestFrame(frames) {
  const salient = frames.filter((frame) => frame.salient);
  const candidates = salient.length > 0 ? salient : frames;
  return candidates.reduce((best, frame) => (isBetter(frame, best) ? frame : best), candidates[0]);
}

/** The best of the other salient frames, at most `most`, in time order. */
export function furtherFrames(frames, most) {
  const best = bestFrame(frames);
  const others = frames.filter((frame) => frame.salient && frame !== best);
  const chosen = others.toSorted((one, other) => (isBetter(one, other) ? -1 : isBetter(other, one) ? 1 : 0));
  return others.filter((frame) => chosen.indexOf(frame) < most);
}

export const isMatched = (hit) => hit.match_score !== null && hit.match_score !== undefined;

// In log-odds: a lead of this size is clear, and smaller ones must look smaller.
const CLEAR_LEAD = 4;

/** Maps scores to 0…1 for the meters, with the best hit's at 1. */
export function scoreScale(hits) {
  const best = hits[0]?.score ?? 0;
  if (!hits[0]?.reranked) return (value) => (best > 0 ? Math.min(1, Math.max(0, value / best)) : 0);
  const low = Math.min(best - CLEAR_LEAD, ...hits.map((hit) => hit.score));
  // The lowest keeps a short bar, so that it does not look like zero.
  return (value) => 0.04 + 0.96 * Math.min(1, Math.max(0, (value - low) / (best - low)));
}

/** The deadline in milliseconds after "Give it more time". */
export const MORE_TIME_MS = 20_000;

const BY_SIMILARITY = "Ranked by overall similarity only.";

/**
 * Why an answer was not re-ranked, and what to do: `{lead, text, action}`; null if it was. `action` is "time",
 * "rerank" or null. Parts of the text in backticks are code.
 */
export function skippedNote(reason, deadlineMs = null) {
  switch (reason) {
    case null:
    case undefined:
      return null;
    case "not_requested":
      return { lead: BY_SIMILARITY, text: "Re-ranking is switched off.", action: "rerank" };
    case "deadline":
      return deadlineMs === null
        ? { lead: BY_SIMILARITY, text: "Re-ranking would have taken too long this time.", action: "time" }
        : {
            lead: BY_SIMILARITY,
            text: "Re-ranking took too long again. Choose fewer candidates in Options, or try later.",
            action: "time",
          };
    case "no_matcher":
      return {
        lead: BY_SIMILARITY,
        text:
          "This library's model cannot re-rank. " +
          "To change that, index with a bundle that has the capability `match` or `salience_match`.",
        action: null,
      };
    case "no_tokens":
      return {
        lead: BY_SIMILARITY,
        text:
          "This library was indexed without frame tokens, which re-ranking needs. " +
          "Index again into a new folder, without `--tokens none`.",
        action: null,
      };
    case "unreadable_tokens":
      return { lead: BY_SIMILARITY, text: "What re-ranking reads of the library is damaged.", action: null };
    default:
      return { lead: BY_SIMILARITY, text: "Re-ranking was skipped.", action: null };
  }
}

/** The fewest decimals, at least two, with which the rounded terms add up to the rounded total. */
export function decimalsThatAddUp(terms, total) {
  for (let decimals = 2; decimals < 6; decimals += 1) {
    const sum = terms.reduce((before, term) => before + Number(term.toFixed(decimals)), 0);
    if (Math.abs(sum - Number(total.toFixed(decimals))) < 0.5 / 10 ** decimals) return decimals;
  }
  return 6;
}
