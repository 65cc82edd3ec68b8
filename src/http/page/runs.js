// The list of runs: what is shown, searched and filtered, and how it keeps up with what happens.
//
// The table is asked for again after each hint, from its top to the last run that is shown. What
// somebody is reading stays where it is: new runs wait behind a button while the list is scrolled,
// pointed at or walked through.

import { get, query } from './api.js';
import { attribute, el, failure, put, say } from './dom.js';
import { whole } from './format.js';
import { follow } from './live.js';
import { runsTable } from './runs_table.js';

const STATUSES = ['running', 'paused', 'succeeded', 'failed', 'canceled'];
const PAGE = 50;
// a refresh asks for no more than this; older runs are as they were when they were loaded
const REFRESHED = 200;
const COUNTS = 5000;
const TYPING = 250;
let lastVisited = null;

export function runsPage(main, parameters) {
  const state = {
    filter: read(parameters), rows: [], held: [], next: null, isClosed: false, isLoading: false, again: false,
    countedAt: 0,
  };
  let abort = new AbortController();

  const search = el('input', {
    type: 'search', id: 'search', placeholder: 'Run id, workflow or error', autocomplete: 'off', spellcheck: 'false',
    maxlength: 200,
  });
  const workflow = el('input', { type: 'text', id: 'workflow', list: 'workflows', placeholder: 'Any', autocomplete: 'off', maxlength: 200 });
  const known = el('datalist', { id: 'workflows' });
  const project = el('button', { type: 'button', class: 'chip', hidden: true, on: { click: () => change({ project: '' }) } });
  const chips = ['', ...STATUSES].map((status) => el('button', {
    type: 'button', class: 'chip', data: { status }, on: { click: () => change({ status }) },
  }, status || 'all', el('span', { class: 'count' })));
  const fresh = el('button', { type: 'button', class: 'fresh', on: { click: release } });
  const body = el('div', { class: 'list', 'aria-busy': 'true' });
  const older = el('button', { type: 'button', class: 'older', hidden: true, on: { click: more } }, 'Older runs');
  const table = runsTable((id) => { lastVisited = id; });

  main.append(
    el('div', { class: 'title' }, el('h1', { tabindex: -1 }, 'Runs'), fresh),
    el('form', { class: 'filters', role: 'search', 'aria-label': 'Runs', on: { submit: (event) => event.preventDefault() } },
      el('div', { class: 'inputs' },
        el('div', { class: 'field wide' }, el('label', { for: 'search' }, 'Search'), search),
        el('div', { class: 'field' }, el('label', { for: 'workflow' }, 'Workflow'), workflow, known)),
      el('div', { class: 'chips', role: 'group', 'aria-label': 'Status' }, chips, project)),
    body, older);

  search.addEventListener('input', later(() => change({ q: search.value })));
  workflow.addEventListener('input', later(() => change({ workflow: workflow.value })));
  showFilter();
  setHeld([]);
  load();
  follow('runs', { runs: refresh, open: refresh });

  function read(from) {
    const value = (name) => from.get(name) ?? '';
    return { status: value('status'), workflow: value('workflow'), project: value('project'), q: value('q') };
  }

  function change(more) {
    const filter = { ...state.filter, ...more };
    if (JSON.stringify(filter) === JSON.stringify(state.filter)) return;
    location.hash = `#/${query(filter)}`;
  }

  function showFilter() {
    const { status, project: id, q, workflow: name } = state.filter;
    for (const chip of chips) attribute(chip, 'aria-pressed', String(chip.dataset.status === status));
    project.hidden = !id;
    put(project, `project ${id.slice(0, 8)} ✕`);
    attribute(project, 'aria-label', `Not only project ${id}`);
    if (search.value !== q) search.value = q;
    if (workflow.value !== name) workflow.value = name;
  }

  async function load() {
    abort.abort();
    abort = new AbortController();
    const { signal } = abort;
    attribute(body, 'aria-busy', 'true');
    try {
      const page = await get(`runs${query({ ...state.filter, limit: PAGE })}`, signal);
      state.rows = page.runs;
      state.next = page.next;
      setHeld([]);
      show();
      say(page.runs.length ? `${page.runs.length}${page.next ? ' or more' : ''} runs` : 'no runs');
    } catch (error) {
      if (error.name !== 'AbortError' && error.status !== 401) body.replaceChildren(failure(error, load));
    } finally {
      if (!signal.aborted) attribute(body, 'aria-busy', null);
    }
    count();
  }

  async function more() {
    older.disabled = true;
    const before = state.next;
    try {
      const page = await get(`runs${query({ ...state.filter, limit: PAGE, before })}`, abort.signal);
      const last = page.runs.at(0)?.run_id;
      state.rows = [...state.rows, ...page.runs];
      state.next = page.next;
      show();
      table.focus(last);
    } catch (error) {
      if (error.name !== 'AbortError') say(error.message);
    } finally {
      older.disabled = false;
    }
  }

  // One at a time: a hint that comes meanwhile leads to one more.
  async function refresh() {
    if (state.isClosed) return;
    if (state.isLoading) { state.again = true; return; }
    state.isLoading = true;
    const { signal } = abort;
    try {
      const limit = Math.min(Math.max(PAGE, state.rows.length), REFRESHED);
      const page = await get(`runs${query({ ...state.filter, limit })}`, signal);
      await merge(page, signal);
    } catch { /* the notice at the top says that nothing comes; the next hint tries again */ }
    count();
    // the more is shown or looked through, the longer until the next time
    const pause = 400 * (1 + state.rows.length / 100) * (state.filter.q ? 5 : 1);
    setTimeout(() => {
      state.isLoading = false;
      if (state.again) { state.again = false; refresh(); }
    }, pause);
  }

  async function merge(page, signal) {
    const news = new Map(page.runs.map((it) => [it.run_id, it]));
    const shown = new Set(state.rows.map((it) => it.run_id));
    const isEnd = page.next === null;
    const last = page.runs.at(-1)?.run_id;
    const reach = isEnd ? state.rows.length : state.rows.findIndex((it) => it.run_id === last) + 1;
    const rest = state.rows.slice(reach);
    if (!isHeld()) {
      const restIds = new Set(rest.map((it) => it.run_id));
      state.rows = [...page.runs.filter((it) => !restIds.has(it.run_id)), ...rest];
      if (isEnd || !rest.length) state.next = page.next;
      setHeld([]);
    } else {
      // a run that the filter does not fit any more stays, as it is now, until the list may move
      const gone = state.rows.slice(0, reach).filter((it) => !news.has(it.run_id) && !it.is_gone);
      const now = await Promise.all(gone.slice(0, 10).map((it) => get(`runs/${it.run_id}`, signal).catch(() => it)));
      for (const it of now) news.set(it.run_id, { ...it, is_gone: true });
      state.rows = state.rows.map((it) => news.get(it.run_id) ?? it);
      const first = state.rows.findIndex((it) => news.has(it.run_id));
      const top = page.runs.findIndex((it) => shown.has(it.run_id));
      setHeld(first < 0 ? page.runs : page.runs.slice(0, top < 0 ? undefined : top));
    }
    if (!signal.aborted && !state.isClosed) show();
  }

  function isHeld() {
    return state.rows.length !== 0 && (200 < scrollY || table.isBusy());
  }

  function setHeld(runs) {
    state.held = runs;
    put(fresh, runs.length ? `${runs.length} new ${runs.length === 1 ? 'run' : 'runs'} ↑` : '');
    fresh.classList.toggle('none', runs.length === 0);
    fresh.disabled = runs.length === 0;
  }

  function release() {
    state.rows = [...state.held, ...state.rows.filter((it) => !it.is_gone)];
    setHeld([]);
    show();
    scrollTo({ top: 0 });
    table.focus(state.rows[0]?.run_id);
  }

  function show() {
    older.hidden = state.next === null;
    known.replaceChildren(...[...new Set(state.rows.map((it) => it.workflow))].filter(Boolean).sort()
      .map((it) => el('option', { value: it })));
    if (state.rows.length) {
      table.show(state.rows);
      if (body.firstChild !== table.element) body.replaceChildren(table.element);
      return;
    }
    const isFiltered = Object.values(state.filter).some(Boolean);
    body.replaceChildren(el('div', { class: 'empty' },
      el('p', { class: 'strong' }, isFiltered ? 'No run is like this.' : 'No runs yet.'),
      isFiltered
        ? el('p', {}, 'A search looks for the beginning of an id, and for words in workflows and errors. ', el('a', { href: '#/' }, 'Show all runs'))
        : el('p', {}, 'A run appears with its first event: ', el('code', {}, 'select append_events(project_id, run_id, 0, events)'))));
  }

  async function count() {
    const at = performance.now();
    if (at - state.countedAt < COUNTS && state.countedAt) return;
    state.countedAt = at;
    const hasCounts = !state.filter.q && !state.filter.workflow;
    const { counts = {}, up_to: most = 0 } = hasCounts
      ? await get(`runs/counts${query({ project: state.filter.project })}`, abort.signal).catch(() => ({})) : {};
    for (const chip of chips) {
      const found = counts[chip.dataset.status];
      put(chip.lastChild, found === undefined ? '' : most < found ? `${whole(most)}+` : whole(found));
    }
  }

  function later(action) {
    let timer = 0;
    return () => { clearTimeout(timer); timer = setTimeout(action, TYPING); };
  }

  return {
    name: 'runs',
    title: 'Runs',
    close() { state.isClosed = true; abort.abort(); table.close(); },
    reload() { load(); },
    refocus() { return lastVisited !== null && table.focus(lastVisited); },
    parameters(next) {
      state.filter = read(next);
      state.countedAt = 0;
      showFilter();
      load();
      return true;
    },
    keys: {
      '/': () => { search.focus(); search.select(); },
      j: () => table.move(1),
      k: () => table.move(-1),
      Escape: () => change({ status: '', workflow: '', project: '', q: '' }),
    },
  };
}
