// The slider over a run's versions, and what the event of the chosen one changed.

import { get, query } from './api.js';
import { attribute, el, put } from './dom.js';
import { brief, localTime, utc } from './format.js';
import { columnsTable } from './why.js';

const SETTLE = 120;
const SHOWN = ['run_status', 'step_status', 'run_log'];

export function replayBar(id, { signal, choose }) {
  let head = 1;
  let chosen = null;
  let timer = 0;
  const types = new Map();
  const slider = el('input', { type: 'range', id: 'version', min: 1, max: 1, value: 1, step: 1, on: { input: () => set(Number(slider.value)) } });
  const shown = el('output', { for: 'version' });
  const back = el('button', { type: 'button', class: 'icon', 'aria-label': 'A version back', on: { click: () => step(-1) } }, '‹');
  const on = el('button', { type: 'button', class: 'icon', 'aria-label': 'A version on', on: { click: () => step(1) } }, '›');
  const now = el('button', { type: 'button', on: { click: () => set(head) } }, 'Now');
  const changes = el('div', { class: 'changes', hidden: true });
  const element = el('section', { class: 'replay', 'aria-labelledby': 'replay-title' },
    el('div', { class: 'head' }, el('h2', { id: 'replay-title' }, 'History'), shown),
    el('div', { class: 'slide' }, back,
      el('label', { class: 'unseen', for: 'version' }, 'Version'), slider, on, now),
    changes);

  function step(by) { set((chosen ?? head) + by); }

  // The newest version is now: the page is live there.
  function set(version) {
    const wanted = version === null || head <= version ? null : Math.max(1, version);
    if (wanted === chosen) { place(); return; }
    chosen = wanted;
    place();
    clearTimeout(timer);
    timer = setTimeout(() => choose(chosen), SETTLE);
  }

  function place() {
    attribute(slider, 'max', head);
    slider.value = String(chosen ?? head);
    const type = types.get(chosen ?? head);
    put(shown, `${chosen ?? head} of ${head}${type ? ` · ${type}` : ''}${chosen === null ? ' · now' : ''}`);
    attribute(slider, 'aria-valuetext', shown.textContent);
    back.disabled = (chosen ?? head) <= 1;
    on.disabled = chosen === null;
    now.disabled = chosen === null;
  }

  async function showChanges(then) {
    const { steps } = await get(`runs/${encodeURIComponent(id)}/state${query({ diff: 1, version: then.version, after: then.version - 1, limit: 1 })}`, signal);
    if (chosen !== then.version || !steps.length) return;
    const [event] = steps;
    const rows = event.changes.filter((it) => it.projection !== 'run_log').map((it) => [
      el('h3', {}, it.projection, el('span', { class: 'quiet' }, ` ${Object.values(it.key).slice(1).join(' ')} ${it.change}`)),
      columnsTable(it.columns, `What changed in ${it.projection}`)]);
    changes.replaceChildren(
      el('p', {}, el('strong', {}, `${event.version} ${event.type}`), ' at ',
        el('time', { datetime: event.recorded_at, title: utc(event.recorded_at) }, localTime(event.recorded_at)),
        rows.length ? ' changed:' : ' changed nothing but the log.'),
      ...rows.flat(), ...others(then));
    changes.hidden = false;
  }

  // What further read models said; the page itself shows the first three.
  function others(then) {
    const rest = Object.entries(then.projections).filter(([name, { rows }]) => !SHOWN.includes(name) && rows.length);
    return rest.flatMap(([name, { rows }]) => [
      el('h3', {}, name, el('span', { class: 'quiet' }, ' as of then')),
      ...rows.slice(0, 20).map((row) => el('p', { class: 'row' }, Object.entries(row)
        .filter(([, value]) => value !== null).map(([column, value]) => `${column}=${brief(value, 80)}`).join('  '))),
    ]);
  }

  place();
  return {
    element,
    step,
    set,
    reach(version) { if (head < version) { head = version; place(); } },
    extend(lines) {
      for (const { version, type } of lines) types.set(version, type);
      this.reach(lines.at(-1).version);
      place();
    },
    // What history said, once it is there; null for now.
    show(then) {
      changes.hidden = true;
      if (then === null) { chosen = null; place(); return; }
      chosen = then.version;
      place();
      showChanges(then).catch(() => { /* the page shows the state; what changed is beside it */ });
    },
    fail(error) {
      changes.hidden = false;
      changes.replaceChildren(el('p', { class: 'strong', role: 'alert' }, error.message), el('p', {}, error.hint ?? ''));
    },
  };
}
