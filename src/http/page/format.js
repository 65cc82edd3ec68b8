// Numbers, times and durations as people read them.

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const day = new Intl.DateTimeFormat(undefined, { month: 'short', day: 'numeric' });
const year = new Intl.DateTimeFormat(undefined, { year: 'numeric', month: 'short', day: 'numeric' });
const grouped = new Intl.NumberFormat('en');

// In the zone of whoever looks; UTC is what logs elsewhere say.
export function localTime(text, now = new Date()) {
  const at = new Date(text);
  if (text === null || text === undefined || Number.isNaN(at.getTime())) return '–';
  if (at.toDateString() === now.toDateString()) return clock.format(at);
  const date = at.getFullYear() === now.getFullYear() ? day : year;
  return `${date.format(at)}, ${clock.format(at)}`;
}

export function clockTime(text) {
  const at = new Date(text);
  const millis = String(at.getMilliseconds()).padStart(3, '0');
  return Number.isNaN(at.getTime()) ? '–' : `${clock.format(at)}.${millis}`;
}

export function utc(text) {
  const at = new Date(text);
  return text && !Number.isNaN(at.getTime()) ? `${at.toISOString().replace('T', ' ').replace('Z', '')} UTC` : '';
}

export function showTime(element, text, now) {
  const shown = localTime(text, now);
  if (element.textContent === shown) return;
  element.textContent = shown;
  element.title = utc(text);
  if (text) element.dateTime = text;
}

export function duration(millis) {
  if (millis === null || millis === undefined || Number.isNaN(millis)) return '–';
  const whole = Math.max(0, millis);
  if (whole < 1000) return `${Math.round(whole)} ms`;
  if (whole < 60_000) return `${(Math.floor(whole / 100) / 10).toFixed(1)} s`;
  const seconds = Math.floor(whole / 1000);
  const two = (it) => String(it).padStart(2, '0');
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${two(Math.floor((seconds % 3600) / 60))} m`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

// Of something that may still go on: in whole seconds then, since it is shown anew once a second.
export function span(from, to, now = Date.now()) {
  const start = Date.parse(from);
  if (Number.isNaN(start)) return '–';
  if (to) return duration(Date.parse(to) - start);
  const passed = Math.max(0, now - start);
  return passed < 60_000 ? `${Math.floor(passed / 1000)} s` : duration(passed);
}

export function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let left = count;
  while (1024 <= left && unit < units.length - 1) { left /= 1024; unit += 1; }
  return `${unit && left < 10 ? left.toFixed(1) : Math.round(left)} ${units[unit]}`;
}

export const whole = (count) => grouped.format(Math.round(count));

export const rate = (each) => (each < 10 ? `${each.toFixed(1)}/s` : `${whole(each)}/s`);

// The time in a version 7 id is at its front, so its first part tells runs of a day apart.
export const shortId = (id) => `${id.slice(0, 13)}…`;

// A value as one line of text.
export function brief(value, most = 300) {
  const text = typeof value === 'string' ? value : JSON.stringify(value) ?? 'null';
  return most < text.length ? `${text.slice(0, most)}…` : text;
}
