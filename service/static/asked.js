// What is asked for, as it stands in the address: a text or an example, filters, and the order.

/** What the parts of an address are called that may be there once, by their names here. */
const PARAMETERS = {
  text: "q",
  frame: "frame",
  like: "like",
  picture: "picture",
  folder: "folder",
  from: "from",
  to: "to",
  shortest: "min",
  longest: "max",
  verdict: "verdict",
  sort: "sort",
  list: "list",
};
const EXAMPLES = ["frame", "like", "picture"];
const FILTERS = ["folder", "from", "to", "shortest", "longest", "verdict"];
const DAY = /^\d{4}-\d{2}-\d{2}$/;

const isValid = {
  from: (text) => DAY.test(text),
  to: (text) => DAY.test(text),
  shortest: (text) => Number(text) > 0,
  longest: (text) => Number(text) > 0,
};

/** What an address asks for; invalid values count as absent. Times are in seconds, as text. */
export function askedIn(search) {
  const given = new URLSearchParams(search);
  const asked = { tags: [...new Set(given.getAll("tag").map((tag) => tag.trim()).filter(Boolean))] };
  for (const [name, parameter] of Object.entries(PARAMETERS)) {
    const text = (given.get(parameter) ?? "").trim();
    asked[name] = isValid[name] && !isValid[name](text) ? "" : text;
  }
  return asked;
}

/** Adds what is asked for to the parameters of an address. */
export function writeAsked(asked, parameters) {
  for (const [name, parameter] of Object.entries(PARAMETERS)) {
    if (asked[name]) parameters.set(parameter, asked[name]);
  }
  for (const tag of asked.tags ?? []) parameters.append("tag", tag);
}

/** A link to what is asked for. */
export function addressOf(asked) {
  const parameters = new URLSearchParams();
  writeAsked(asked, parameters);
  return `?${parameters}`;
}

export const hasExample = (asked) => EXAMPLES.some((name) => asked[name]);
export const hasFilters = (asked) => asked.tags.length > 0 || FILTERS.some((name) => asked[name]);
export const isSearch = (asked) => asked.text !== "" || hasExample(asked);
/** Whether videos are listed: there are filters or an order, and nothing to search for. */
export const isList = (asked) => !isSearch(asked) && (hasFilters(asked) || asked.sort !== "" || asked.list !== "");

/** What is asked for without one of its parts; of the tags, without this one. */
export function without(asked, name, tag = null) {
  if (name === "tags") return { ...asked, tags: asked.tags.filter((each) => each !== tag) };
  return { ...asked, [name]: "" };
}

export const withoutExample = (asked) => EXAMPLES.reduce((rest, name) => without(rest, name), asked);

/** The query of a request. */
export function queryOf(asked) {
  const example = asked.picture
    ? { image: "upload" }
    : asked.frame
      ? { frame_id: asked.frame }
      : asked.like
        ? { video_id: asked.like }
        : null;
  if (example && asked.text) return { text: asked.text, example };
  return example ?? { text: asked.text };
}

/** The filter of a request; null: all videos count. */
export function filterOf(asked) {
  const filters = [];
  if (asked.folder) filters.push({ op: "under", field: "path", folder: asked.folder });
  const days = { gte: asked.from || undefined, lte: asked.to || undefined };
  if (asked.from || asked.to) filters.push({ op: "range", field: "captured_at", ...days });
  const seconds = { gte: Number(asked.shortest) || undefined, lte: Number(asked.longest) || undefined };
  if (asked.shortest || asked.longest) filters.push({ op: "range", field: "duration_seconds", ...seconds });
  if (asked.verdict) filters.push({ op: "equals", field: "verdict", value: asked.verdict });
  for (const tag of asked.tags) filters.push({ op: "equals", field: "tags", value: tag });
  if (filters.length === 0) return null;
  return filters.length === 1 ? filters[0] : { op: "and", filters };
}
