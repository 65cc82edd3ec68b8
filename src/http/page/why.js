// Why a row says what it says: the events that touched it, and the rules that wrote each column.

import { get, query } from './api.js';
import { el, failure } from './dom.js';
import { brief, localTime, utc } from './format.js';

const VERDICTS = {
  agrees: 'The table says the same as history.', behind: 'The table is some events behind history: it may be on its way.',
  missing: 'History has this row, the table does not yet.', differs: 'The table has other values than history: `projector verify` compares them all.',
  extra: 'The table has a row where history has none.', unknown: 'Not compared with the table.',
};

export function whyButton(table, key, what) {
  return el('button', { type: 'button', class: 'link', 'aria-label': `Why: ${what}`, on: { click: () => why(table, key, what) } }, 'Why?');
}

async function why(table, key, what) {
  const before = document.activeElement;
  const content = el('div', { class: 'why', tabindex: 0, 'aria-busy': 'true' }, el('p', { class: 'quiet' }, 'Reading history…'));
  const close = () => { abort.abort(); dialog.close(); dialog.remove(); if (before?.isConnected) before.focus(); };
  const abort = new AbortController();
  const dialog = el('dialog', { class: 'wide', 'aria-labelledby': 'why-title', on: { cancel: close } },
    el('div', { class: 'head' },
      el('h2', { id: 'why-title' }, `Why ${what} says what it says`),
      el('button', { type: 'button', on: { click: close } }, 'Close')),
    content);
  document.body.append(dialog);
  dialog.showModal();
  try {
    const found = await get(`tables/${encodeURIComponent(table)}/explain${query({ key: JSON.stringify(key), limit: 200 })}`, abort.signal);
    content.replaceChildren(
      el('p', {}, `${found.touched} events made this row of `, el('code', {}, table), '. ', VERDICTS[found.live.state] ?? ''),
      ...(found.fault ? [el('p', { class: 'error' }, found.fault)] : []),
      ...found.events.map(touch));
  } catch (error) {
    if (error.name !== 'AbortError') content.replaceChildren(failure(error));
  }
  content.removeAttribute('aria-busy');
}

function touch(event) {
  return el('section', { class: 'touch' },
    el('h3', {}, `${event.version} ${event.type} `, el('time', { class: 'quiet', datetime: event.recorded_at, title: utc(event.recorded_at) }, localTime(event.recorded_at))),
    event.columns.length
      ? columnsTable(event.columns, `What event ${event.version} changed`)
      : el('p', { class: 'quiet' }, event.change === 'set_aside' ? `set aside: ${event.error?.error ?? 'it waits for an earlier event'}` : 'changed nothing'));
}

// Columns before and after an event, and the rules that wrote them.
export function columnsTable(columns, caption) {
  return el('table', { class: 'columns' },
    el('caption', { class: 'unseen' }, caption),
    el('colgroup', {}, ['name', 'value', 'arrow', 'value', 'by'].map((it) => el('col', { class: `col-${it}` }))),
    el('tbody', {}, columns.map((it) => el('tr', {},
      el('th', { scope: 'row' }, it.column), el('td', {}, brief(it.before, 80)), el('td', { class: 'arrow' }, '→'),
      el('td', {}, brief(it.after, 80)), el('td', { class: 'by', title: it.by.join('\n') }, it.by.map((by) => by.split('/').at(-1)).join(' '))))));
}
