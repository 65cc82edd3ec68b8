// The log of a run. Lines are kept in blocks that the browser need not lay out while they are not
// seen, and come in batches, one a frame; only the last ones are in the page.

import { el, put } from './dom.js';
import { brief, clockTime, utc, whole } from './format.js';

const BLOCK = 200;
const MOST_BLOCKS = 50;
const LONG = 2000;
const LINE = 1.26;
const LEVELS = [['debug', 'everything'], ['info', 'info and above'], ['warn', 'warnings and errors'], ['error', 'errors']];
const LEVEL = 'projector.level';

export function logView() {
  const lines = [];
  let waiting = [];
  let shownFrom = 0;
  let upTo = Infinity;
  let isFollowing = true;
  let unseen = 0;
  let frame = 0;
  let [top, height] = [0, 0];

  const level = el('select', { id: 'level', on: { change: setLevel } },
    LEVELS.map(([name, text]) => el('option', { value: name }, text)));
  const following = el('button', { type: 'button', 'aria-pressed': 'true', on: { click: () => setFollowing(!isFollowing) } });
  const count = el('span', { class: 'quiet count' });
  const left = el('p', { class: 'quiet left', hidden: true });
  const list = el('div', { class: 'lines', role: 'list' });
  const scroll = el('div', { class: 'log', tabindex: 0, role: 'region', 'aria-label': 'Log lines' }, left, list);
  const empty = el('p', { class: 'empty' }, 'No lines yet. They appear as the run goes on.');
  const element = el('section', { 'aria-labelledby': 'log-title' },
    el('div', { class: 'head' },
      el('h2', { id: 'log-title' }, 'Log'), count,
      el('div', { class: 'tools' }, el('label', { for: 'level' }, 'Show'), level, following)),
    scroll);
  scroll.append(empty);

  const kept = localStorage.getItem(LEVEL);
  level.value = LEVELS.some(([name]) => name === kept) ? kept : 'debug';
  setLevel();
  showFollowing();

  // Blocks that come into sight turn out higher or lower than was guessed: only who goes up while the
  // log does not shrink is a reader.
  scroll.addEventListener('scroll', () => {
    const isAtEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
    const wentUp = scroll.scrollTop < top - 1 && height <= scroll.scrollHeight;
    [top, height] = [scroll.scrollTop, scroll.scrollHeight];
    if (isAtEnd) { if (!isFollowing) setFollowing(true); } else if (isFollowing) {
      if (wentUp) setFollowing(false);
      else toEnd();
    }
  }, { passive: true });
  const sizes = new ResizeObserver(() => { if (isFollowing) toEnd(); });
  sizes.observe(list);

  function setLevel() {
    scroll.dataset.level = level.value;
    localStorage.setItem(LEVEL, level.value);
    if (isFollowing) toEnd();
  }

  function setFollowing(is) {
    isFollowing = is;
    if (is) { unseen = 0; toEnd(); }
    showFollowing();
  }

  function showFollowing() {
    following.setAttribute('aria-pressed', String(isFollowing));
    put(following, isFollowing ? 'Following' : unseen ? `Follow (${whole(unseen)} new)` : 'Follow');
  }

  function toEnd() {
    scroll.scrollTop = scroll.scrollHeight;
  }

  function flush() {
    frame = 0;
    const some = waiting.slice(0, 1000);
    waiting = waiting.slice(1000);
    some.forEach(append);
    trim();
    empty.hidden = lines.length !== 0;
    showCount();
    if (isFollowing) toEnd();
    else { unseen += some.length; showFollowing(); }
    if (waiting.length) frame = requestAnimationFrame(flush);
  }

  // A block is only for layout; to screen readers the lines are the list's items.
  function append(line) {
    let block = list.lastElementChild;
    if (!block || BLOCK <= block.childElementCount) {
      block = el('div', { class: 'block' });
      list.append(block);
    }
    const item = lineElement(line);
    item.hidden = upTo < line.version;
    block.append(item);
    // about as high as its lines, until it has been seen
    block.style.containIntrinsicSize = `auto ${(block.childElementCount * LINE).toFixed(1)}rem`;
  }

  function trim() {
    while (MOST_BLOCKS < list.childElementCount) {
      shownFrom += list.firstElementChild.childElementCount;
      list.firstElementChild.remove();
    }
    left.hidden = shownFrom === 0;
    put(left, `${whole(shownFrom)} earlier lines are not shown here; \`projector tail\` shows all.`);
  }

  function showCount() {
    const shown = upTo === Infinity ? lines.length : lines.filter((it) => it.version <= upTo).length;
    put(count, `${whole(shown)} ${shown === 1 ? 'line' : 'lines'}`);
  }

  return {
    element,
    lines,
    add(more) {
      lines.push(...more);
      waiting.push(...more);
      frame ||= requestAnimationFrame(flush);
    },
    // Lines that came late, between others.
    insert(late) {
      lines.push(...late);
      lines.sort((one, other) => one.version - other.version);
      for (const line of late) {
        const items = [...list.querySelectorAll('.line')];
        const after = items.find((it) => line.version < Number(it.dataset.version));
        if (!after) { waiting.push(line); frame ||= requestAnimationFrame(flush); continue; }
        const item = lineElement(line);
        item.hidden = upTo < line.version;
        after.before(item);
      }
      showCount();
    },
    // Shows the log as it was at a version.
    show(version) {
      upTo = version ?? Infinity;
      for (const block of list.children) {
        const items = [...block.children];
        const isWhole = Number(items.at(-1)?.dataset.version) <= upTo;
        for (const item of items) item.hidden = !isWhole && upTo < Number(item.dataset.version);
      }
      showCount();
      if (isFollowing) toEnd();
    },
    toggle() { setFollowing(!isFollowing); },
    fail(node) { empty.replaceChildren(node); },
    close() { cancelAnimationFrame(frame); sizes.disconnect(); },
  };
}

function lineElement(line) {
  const level = ['debug', 'info', 'warn', 'error'].includes(line.level) ? line.level : 'info';
  const fields = line.fields && typeof line.fields === 'object' ? Object.entries(line.fields) : [];
  return el('div', { class: 'line', role: 'listitem', data: { level, version: line.version } },
    el('span', { class: 'version' }, String(line.version)),
    el('time', { datetime: line.at, title: utc(line.at) }, clockTime(line.at)),
    el('span', { class: 'level' }, line.level ?? 'info'),
    el('span', { class: 'step' }, line.step_id ?? ''),
    el('span', { class: 'text' },
      line.type === 'log' ? null : el('span', { class: 'type' }, line.type),
      ...message(line.message),
      fields.length ? el('span', { class: 'fields' }, fields.map(([key, value]) => `${key}=${brief(value)}`).join(' ')) : null));
}

function message(text) {
  if (text === null || text === undefined) return [];
  if (text.length <= LONG) return [el('span', { class: 'message' }, text)];
  const shown = el('span', { class: 'message' }, text.slice(0, LONG));
  const more = el('button', {
    type: 'button', class: 'link',
    on: { click: () => { shown.textContent = text; more.remove(); } },
  }, `… ${whole(text.length - LONG)} more characters`);
  return [shown, more];
}
