// Formats numbers, times and paths for people.

/** Seconds as m:ss, or h:mm:ss from an hour on. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds + 1e-6));
  const pad = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

/** Seconds as m:ss.t, for times that are less than a second apart. */
export function fineClock(seconds) {
  const tenths = Math.max(0, Math.floor(seconds * 10 + 1e-6));
  return `${clock(Math.floor(tenths / 10))}.${tenths % 10}`;
}

/** A span of seconds. The end is rounded up, so that a short span does not look empty. */
export const clockSpan = (start, end) => `${clock(start)}–${clock(Math.ceil(end - 1e-6))}`;

function inDecimals(value, decimals, plus) {
  const figures = Math.abs(value).toFixed(decimals);
  const sign = Number(figures) === 0 ? "" : value < 0 ? "−" : plus;
  return `${sign}${figures}`;
}

export const score = (value, decimals = 2) => inDecimals(value, decimals, "");

/** A number with its sign, plus included. */
export const signed = (value, decimals = 2) => inDecimals(value, decimals, "+");

/** 1st, 2nd, 3rd, 4th, … */
export function ordinal(number) {
  const kind = new Intl.PluralRules("en", { type: "ordinal" }).select(number);
  return `${number.toLocaleString("en")}${{ one: "st", two: "nd", few: "rd" }[kind] ?? "th"}`;
}

export const count = (number, one, many = `${one}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

/** A duration in seconds, minutes or hours, whichever suits it. */
export function footage(seconds) {
  if (seconds < 60) return count(Math.round(seconds), "second");
  if (seconds < 5400) return count(Math.round(seconds / 60), "minute");
  const hours = seconds / 3600;
  return `${hours.toLocaleString("en", { maximumFractionDigits: hours < 100 ? 1 : 0 })} hours`;
}

export const milliseconds = (value) => (value < 1 ? "under 1 ms" : `${Math.round(value).toLocaleString("en")} ms`);

/** The day of a time as the service writes it, in the zone that it names. */
export const day = (time) => time.slice(0, 10);

/** The last part of a path with slashes or backslashes. */
export const fileName = (path) => path.split(/[\\/]/).pop() || path;
