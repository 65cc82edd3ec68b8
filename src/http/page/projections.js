// The projections and the slot they are fed from, as the engine reports them.

import { post } from './api.js';
import { attribute, el, mark, put, say, setMark } from './dom.js';
import { bytes, duration, whole } from './format.js';
import { follow, onStatus } from './live.js';
import { projectionCard } from './projection_card.js';

let latest = null;
const listeners = new Set();
onStatus((status) => { latest = status; listeners.forEach((it) => it(status)); });

export function projectionsPage(main) {
  const cards = new Map();
  const problems = el('ul', { class: 'problems', hidden: true });
  const list = el('ul', { class: 'cards' });
  const empty = el('p', { class: 'empty' }, 'Waiting for the engine…');
  const slot = slotView();
  const broadcasts = broadcastsView();
  main.append(
    el('div', { class: 'title' }, el('h1', { tabindex: -1 }, 'Projections')), problems, slot.element, empty, list,
    broadcasts.element);

  function show(status) {
    const told = [...new Set([...status.reasons, ...(status.definitions_error ? [`definitions are not reloaded: ${status.definitions_error}`] : [])])];
    problems.hidden = told.length === 0;
    if (problems.dataset.told !== told.join('\n')) {
      problems.dataset.told = told.join('\n');
      problems.replaceChildren(...told.map((it) => el('li', {}, it)));
    }
    slot.show(status.source);
    broadcasts.show(status.broadcasts ?? null);
    empty.hidden = status.projections.length !== 0;
    if (status.phase === 'standby') put(empty, 'This process stands by: another one projects, and tells of it.');
    else put(empty, status.phase === 'streaming' ? 'There is no definition. `projector check` shows where they are looked for.' : 'Waiting for the engine…');
    const wanted = new Set(status.projections.map((it) => it.name));
    for (const [name, card] of cards) if (!wanted.has(name)) { card.element.remove(); cards.delete(name); }
    for (const projection of status.projections) {
      let card = cards.get(projection.name);
      if (!card) {
        card = projectionCard(projection.name, act);
        cards.set(projection.name, card);
        list.append(card.element);
      }
      card.show(projection);
    }
  }

  // A verb of a projection; the engine does it, and its status shows it.
  async function act(name, verb) {
    try {
      await post(`projections/${encodeURIComponent(name)}/${verb}`);
      say(`${name}: ${verb} asked for`);
      return null;
    } catch (error) {
      return [error.message, error.hint].filter(Boolean).join(' – ');
    }
  }

  follow(null);
  listeners.add(show);
  if (latest) show(latest);
  return {
    name: 'projections',
    title: 'Projections',
    close() { listeners.delete(show); },
    keys: { Escape: () => { location.hash = '#/'; } },
  };
}

const fact = (title, ...value) => el('div', {}, el('dt', {}, title), el('dd', {}, value));

function slotView() {
  const name = el('code');
  const state = el('span');
  const kept = el('span');
  const meter = el('meter', { min: 0, max: 1, low: 0.5, high: 0.8, optimum: 0, 'aria-label': 'Log that the server keeps, of what it may' });
  const received = el('code');
  const acknowledged = el('code');
  const server = el('span');
  const element = el('section', { class: 'slot', 'aria-labelledby': 'slot-title' },
    el('h2', { id: 'slot-title', class: 'unseen' }, 'Slot'),
    el('dl', { class: 'facts' },
      fact('Slot', name, ' ', state), fact('Keeps', kept, meter), fact('Received', received), fact('Acknowledged', acknowledged),
      fact('Server', server)));
  return {
    element,
    show(source) {
      put(name, source.slot);
      put(state, source.wal_status === null ? 'none yet' : source.wal_status === 'reserved' ? '' : source.wal_status);
      const limit = source.limit_bytes;
      put(kept, limit === null ? bytes(source.retained_bytes) : `${bytes(source.retained_bytes)} of ${bytes(limit)}`);
      meter.hidden = limit === null;
      if (limit !== null) attribute(meter, 'value', Math.min(source.retained_bytes / limit, 1).toFixed(4));
      put(received, source.received);
      put(acknowledged, source.acknowledged);
      put(server, source.server_version === null ? '–' : `PostgreSQL ${source.server_version.split(' ')[0]}`);
    },
  };
}

// What is told to viewers elsewhere, where that is switched on.
function broadcastsView() {
  const names = ['Target', 'Waiting', 'Lag', 'Sent', 'Skipped', 'Refused', 'Checkpoint'];
  const facts = Object.fromEntries(names.map((it) => [it, el('span')]));
  const state = mark(null);
  const error = el('p', { class: 'error' });
  const element = el('section', { class: 'slot', 'aria-labelledby': 'broadcasts-title', hidden: true },
    el('div', { class: 'cardhead' }, el('h2', { id: 'broadcasts-title' }, 'Broadcasts'), state),
    el('dl', { class: 'facts' }, names.map((it) => fact(it, facts[it]))), error);
  return {
    element,
    show(it) {
      element.hidden = it === null;
      if (it === null) return;
      setMark(state, it.failing ? 'failed' : 'live');
      put(facts.Target, it.target);
      put(facts.Waiting, `${whole(it.backlog_lines)} lines · ${bytes(it.backlog_bytes)}`);
      put(facts.Lag, duration(it.lag_seconds * 1000));
      put(facts.Sent, whole(it.sent_total));
      put(facts.Skipped, whole(it.skipped_total));
      put(facts.Refused, whole(it.refused_total));
      put(facts.Checkpoint, it.checkpoint ?? '–');
      put(error, it.last_error ?? '');
    },
  };
}
