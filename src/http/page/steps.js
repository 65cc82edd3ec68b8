// The steps of a run as a timeline: a row a step, a bar an attempt.
//
// How a step stands is in its row of the read model, which tells of the newest attempt; the attempts
// before are in the log.

import { attribute, el, mark, put, setMark, tone } from './dom.js';
import { duration, localTime, utc } from './format.js';
import { whyButton } from './why.js';

export function stepsView(runId) {
  const rows = new Map();
  const body = el('tbody');
  const table = el('table', { class: 'steps' },
    el('caption', { class: 'unseen' }, 'Steps in the order of their start'),
    el('thead', {}, el('tr', {},
      el('th', { scope: 'col', class: 'c-step' }, 'Step'), el('th', { scope: 'col', class: 'c-status' }, 'Status'),
      el('th', { scope: 'col', class: 'c-track' }, 'Time'), el('th', { scope: 'col', class: 'c-duration number' }, 'Duration'),
      el('th', { scope: 'col', class: 'c-why' }, el('span', { class: 'unseen' }, 'Why')))),
    body);
  const empty = el('p', { class: 'empty' }, 'No step has begun.');
  const element = el('section', { 'aria-labelledby': 'steps-title' },
    el('div', { class: 'head' }, el('h2', { id: 'steps-title' }, 'Steps')), table, empty);
  let shown = null;

  function make(step) {
    const row = {
      name: el('span', { class: 'name' }), kind: el('span', { class: 'quiet' }), status: mark(null),
      track: el('div', { class: 'track', 'aria-hidden': 'true' }), told: el('span', { class: 'unseen' }),
      duration: el('span'), error: el('span', { class: 'error' }), bars: [],
    };
    row.element = el('tr', {},
      el('th', { scope: 'row', class: 'c-step' }, row.name, row.kind, row.error),
      el('td', { class: 'c-status' }, row.status),
      el('td', { class: 'c-track' }, row.track, row.told),
      el('td', { class: 'c-duration number' }, row.duration),
      el('td', { class: 'c-why' }, whyButton('step_status', { run_id: runId, step_id: step.step_id }, `step ${step.step_id}`)));
    return row;
  }

  function draw() {
    const { run, steps, attempts, until } = shown;
    const now = until ?? Date.now();
    const begin = Math.min(Date.parse(run.started_at) || Infinity, ...steps.map(startOf));
    const end = Math.max(run.finished_at ? Date.parse(run.finished_at) : now, begin + 1);
    const part = (at) => Math.min(Math.max((at - begin) / (end - begin), 0), 1) * 100;
    const wanted = new Set();
    for (const step of steps) {
      wanted.add(step.step_id);
      let row = rows.get(step.step_id);
      if (!row) { row = make(step); rows.set(step.step_id, row); }
      body.append(row.element);
      put(row.name, step.name ?? step.step_id);
      attribute(row.name, 'title', step.step_id);
      setMark(row.status, step.status);
      put(row.error, step.error && step.status !== 'succeeded' ? step.error : '');
      const tries = attempts.get(step.step_id) ?? own(step);
      while (row.bars.length < tries.length) { const bar = el('span', { class: 'barline' }); row.bars.push(bar); row.track.append(bar); }
      while (tries.length < row.bars.length) row.bars.pop().remove();
      tries.forEach((it, at) => {
        const bar = row.bars[at];
        const [from, to] = [part(it.from), part(it.to ?? end)];
        bar.style.left = `${from.toFixed(2)}%`;
        bar.style.width = `max(3px, ${(to - from).toFixed(2)}%)`;
        attribute(bar, 'data-tone', tone(it.status));
        attribute(bar, 'data-status', it.status);
        attribute(bar, 'title', told(it, at, now));
      });
      put(row.told, tries.map((it, at) => told(it, at, now)).join('; '));
      const last = tries.at(-1);
      put(row.kind, [step.kind, 1 < tries.length ? `${tries.length} attempts` : null].filter(Boolean).join(' · '));
      put(row.duration, last ? duration(whole({ from: tries[0].from, to: last.to }, now)) : step.status === 'scheduled' && step.due_at ? `due ${localTime(step.due_at)}` : '–');
      attribute(row.duration, 'title', last ? utc(new Date(last.from).toISOString()) : null);
    }
    for (const [id, row] of rows) if (!wanted.has(id)) { row.element.remove(); rows.delete(id); }
    table.hidden = steps.length === 0;
    empty.hidden = steps.length !== 0;
  }

  // What goes on is told in whole seconds.
  const whole = (it, now) => (it.to === null ? Math.floor((now - it.from) / 1000) * 1000 : it.to - it.from);
  const told = (it, at, now) => `attempt ${it.attempt ?? at + 1} ${it.status}, ${duration(whole(it, now))}`;

  return {
    element,
    tick() { if (shown && !shown.until) draw(); },
    // The run and its steps, now or as `then` has them.
    show(run, steps, lines, then) {
      const until = then ? Date.parse(then.recorded_at) : null;
      const sorted = [...steps].sort((a, b) => startOf(a) - startOf(b) || a.last_version - b.last_version);
      shown = { run, steps: sorted, attempts: attemptsOf(lines, then?.version ?? Infinity, sorted), until };
      draw();
    },
  };
}

const startOf = (step) => Date.parse(step.started_at ?? step.due_at ?? step.finished_at) || Infinity;

// A step that began, from its row alone.
function own(step) {
  if (!step.started_at) return [];
  const to = step.finished_at ? Date.parse(step.finished_at) : null;
  return [{ from: Date.parse(step.started_at), to, status: step.status, attempt: step.attempt }];
}

// Each step's attempts, as the log has them up to a version.
function attemptsOf(lines, upTo, steps) {
  const found = new Map();
  for (const { version, type, step_id: step, at } of lines) {
    if (upTo < version) break;
    if (!step) continue;
    const tries = found.get(step);
    if (type === 'step_started') {
      const it = { from: Date.parse(at), to: null, status: 'running' };
      if (tries) tries.push(it); else found.set(step, [it]);
    } else if (tries && (type === 'step_succeeded' || type === 'step_failed' || type === 'step_skipped')) {
      const last = tries.at(-1);
      if (last.to === null) Object.assign(last, { to: Date.parse(at), status: type.slice('step_'.length) });
    }
  }
  // the log is only a part of a long run's; the row knows the number of the newest attempt
  for (const step of steps) {
    const tries = found.get(step.step_id);
    if (!tries) continue;
    tries.forEach((it, at) => { it.attempt = step.attempt ? step.attempt - (tries.length - 1 - at) : at + 1; });
  }
  return found;
}
