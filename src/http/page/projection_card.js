// One projection: how it stands, a build of it, what is set aside, what can be done.

import { get, post } from './api.js';
import { attribute, el, mark, put, setMark } from './dom.js';
import { brief, bytes, duration, localTime, rate, utc, whole } from './format.js';

// `act(name, verb)` resolves with what went wrong, or null.
export function projectionCard(name, act) {
  const status = mark(null);
  const facts = {};
  let wasBuilt = false;
  const fact = (title, kind = 'span') => {
    facts[title] = el(kind);
    return el('div', {}, el('dt', {}, title), el('dd', {}, facts[title]));
  };
  const error = el('p', { class: 'error', hidden: true });
  const said = el('p', { class: 'said', role: 'status' });
  const bar = el('progress', { max: 1, value: 0, 'aria-label': `Rebuild of ${name}` });
  const phase = el('span', { class: 'phase' });
  const build = el('div', { class: 'build' }, bar, phase);
  const letters = el('div', { class: 'letters', hidden: true });
  const button = (text, verb) => el('button', { type: 'button', 'aria-label': `${text} ${name}`, on: { click: () => run(verb) } }, text);
  const buttons = {
    rebuild: button('Rebuild', 'rebuild'), cancel: button('Cancel', 'cancel'),
    pause: button('Pause', 'pause'), resume: button('Resume', 'resume'),
    aside: el('button', { type: 'button', 'aria-expanded': 'false', on: { click: showLetters } }, 'Set aside'),
  };
  const element = el('li', { class: 'card' },
    el('article', { 'aria-labelledby': `p-${name}` },
      el('div', { class: 'cardhead' }, el('h2', { id: `p-${name}` }, name), status,
        el('div', { class: 'buttons' }, Object.values(buttons))),
      el('dl', { class: 'facts' }, fact('Lag'), fact('Rate'), fact('Events'), fact('Checkpoint', 'code'), fact('Lane')),
      build, error, said, letters));

  async function run(verb) {
    put(said, '');
    for (const it of Object.values(buttons)) it.disabled = true;
    const wrong = await act(name, verb);
    for (const it of Object.values(buttons)) it.disabled = false;
    put(said, wrong ?? `${verb} asked for`);
    said.classList.toggle('bad', wrong !== null);
  }

  async function showLetters() {
    const isOpen = letters.hidden;
    attribute(buttons.aside, 'aria-expanded', String(isOpen));
    letters.hidden = !isOpen;
    if (!isOpen) return;
    letters.replaceChildren(el('p', { class: 'quiet' }, 'Loading…'));
    try {
      const { dead_letters: rows } = await get(`projections/${encodeURIComponent(name)}/dead-letters`);
      const retry = el('button', { type: 'button', on: { click: again } }, 'Try all again');
      async function again() {
        try {
          await post(`projections/${encodeURIComponent(name)}/dead-letters/retry`);
          put(said, 'trying again');
        } catch (wrong) { put(said, wrong.message); }
      }
      letters.replaceChildren(rows.length ? retry : el('p', {}, 'Nothing is set aside.'), el('ul', {}, rows.map(letter)));
    } catch (wrong) {
      letters.replaceChildren(el('p', { class: 'error' }, wrong.message, wrong.hint ? ` – ${wrong.hint}` : ''));
    }
  }

  return {
    element,
    show(it) {
      setMark(status, it.state);
      put(facts.Lag, `${duration(it.lag_seconds * 1000)} · ${bytes(it.lag_bytes)}`);
      put(facts.Rate, rate(it.events_per_second));
      put(facts.Events, whole(it.events_total));
      put(facts.Checkpoint, it.checkpoint ?? '–');
      put(facts.Lane, it.lane);
      showBuild(it.rebuild);
      error.hidden = !it.error;
      put(error, it.error ?? '');
      buttons.rebuild.hidden = it.rebuild !== null || it.state === 'detached';
      buttons.cancel.hidden = it.rebuild === null;
      buttons.resume.hidden = it.state !== 'paused';
      buttons.pause.hidden = it.state === 'paused' || it.state === 'detached' || it.state === 'failed';
      buttons.aside.hidden = !it.dead_letters;
      put(buttons.aside, `${whole(it.dead_letters)} set aside`);
    },
  };

  function showBuild(it) {
    build.classList.toggle('unseen', it === null);
    if (wasBuilt && it === null) put(said, '');
    wasBuilt = it !== null;
    if (it === null) return;
    const done = it.total ? Math.min(it.done / it.total, 1) : 0;
    attribute(bar, 'value', done.toFixed(4));
    put(phase, [
      it.phase.replaceAll('_', ' '),
      it.total ? `${Math.floor(done * 100)} % of ${whole(it.total)} events` : null,
      it.events_per_second ? rate(it.events_per_second) : null,
      it.seconds_left === null ? null : `${duration(Math.ceil(it.seconds_left) * 1000)} left`,
      it.waiting_for ? `waits for ${it.waiting_for}` : null,
    ].filter(Boolean).join(' · '));
  }
}

function letter(it) {
  return el('li', {},
    el('code', {}, brief(it.row_key, 120)), ` ${it.events} events, since `,
    el('time', { datetime: it.since, title: utc(it.since) }, localTime(it.since)),
    el('br'), el('span', { class: 'quiet' }, it.rule ?? ''), ' ', brief(it.error, 400));
}
