// Rows of runs. A row that is shown already is changed in place, cell by cell.

import { attribute, el, mark, put, setMark } from './dom.js';
import { query } from './api.js';
import { shortId, showTime, span, utc } from './format.js';

const COLUMNS = [
  ['Status', 'c-status'], ['Workflow', 'c-workflow'], ['Started', 'c-started'], ['Duration', 'c-duration number'],
  ['Last event', 'c-last'], ['Project', 'c-project'],
];

export function runsTable(onVisit) {
  const rows = new Map();
  const body = el('tbody');
  const element = el('table', { class: 'runs' },
    el('caption', { class: 'unseen' }, 'Runs, the latest start first'),
    el('thead', {}, el('tr', {}, COLUMNS.map(([name, kind]) => el('th', { scope: 'col', class: kind }, name)))),
    body);
  let isPointed = false;
  body.addEventListener('pointerenter', (event) => { isPointed = event.pointerType === 'mouse'; });
  body.addEventListener('pointerleave', () => { isPointed = false; });
  const timer = setInterval(() => rows.forEach(tick), 1000);

  function make(id) {
    const link = el('a', { class: 'row', href: `#/runs/${encodeURIComponent(id)}`, on: { click: () => onVisit(id) } });
    const row = {
      link,
      status: mark(null),
      id: el('code', { class: 'id', title: id }, shortId(id)),
      started: el('time'),
      duration: el('span'),
      last: el('span', { class: 'event' }),
      error: el('span', { class: 'error' }),
      project: el('a', { class: 'project' }),
    };
    row.element = el('tr', {},
      el('td', { class: 'c-status' }, row.status),
      el('th', { scope: 'row', class: 'c-workflow' }, link, row.id),
      el('td', { class: 'c-started' }, row.started),
      el('td', { class: 'c-duration number' }, row.duration),
      el('td', { class: 'c-last' }, row.last, row.error),
      el('td', { class: 'c-project' }, row.project));
    return row;
  }

  function update(row, run, now) {
    row.run = run;
    setMark(row.status, run.status);
    put(row.link, run.workflow ?? 'unnamed workflow');
    showTime(row.started, run.started_at, now);
    put(row.last, run.last_event);
    attribute(row.last, 'title', utc(run.last_event_at));
    put(row.error, run.error ?? '');
    attribute(row.error, 'title', run.error);
    const project = run.project_id ?? '';
    put(row.project, project.slice(0, 8));
    attribute(row.project, 'href', `#/${query({ project })}`);
    attribute(row.project, 'title', `Only project ${project}`);
    row.element.classList.toggle('gone', run.is_gone === true);
    tick(row);
  }

  function tick(row) {
    put(row.duration, span(row.run.started_at, row.run.finished_at));
  }

  return {
    element,
    show(runs) {
      const now = new Date();
      const wanted = new Set(runs.map((it) => it.run_id));
      for (const [id, row] of rows) {
        if (!wanted.has(id)) { row.element.remove(); rows.delete(id); }
      }
      let at = body.firstChild;
      for (const run of runs) {
        let row = rows.get(run.run_id);
        if (!row) { row = make(run.run_id); rows.set(run.run_id, row); }
        update(row, run, now);
        if (row.element === at) at = at.nextSibling;
        else body.insertBefore(row.element, at);
      }
    },
    // Whether somebody points at a row or walks through them.
    isBusy: () => isPointed || body.contains(document.activeElement),
    focus(id) {
      const row = rows.get(id);
      row?.link.focus();
      return row !== undefined;
    },
    move(by) {
      const links = [...body.querySelectorAll('a.row')];
      const now = links.indexOf(document.activeElement?.closest?.('tr')?.querySelector('a.row'));
      const next = links[Math.min(Math.max(now + by, 0), links.length - 1)];
      next?.focus();
      next?.closest('tr').scrollIntoView({ block: 'nearest' });
    },
    close() { clearInterval(timer); },
  };
}
