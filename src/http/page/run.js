// A run's page: its head, its steps, its log, and the slider that shows all three as they were.
//
// Lines come live; what they mean is asked for again soon after, from the read models or, for an
// earlier version, from history.

import { get, query } from './api.js';
import { el, failure, say } from './dom.js';
import { follow } from './live.js';
import { logView } from './log.js';
import { replayBar } from './replay.js';
import { runHead } from './run_head.js';
import { stepsView } from './steps.js';
import { MOST, tail } from './tail.js';

const REFRESH = 400;

export function runPage(main, id, parameters) {
  const abort = new AbortController();
  const { signal } = abort;
  const state = { run: null, past: null, version: versionOf(parameters), head: 0, isLoading: false, again: false };
  const head = runHead(id);
  const steps = stepsView(id);
  const log = logView();
  const replay = replayBar(id, { signal, choose });
  const content = el('div', { class: 'run' }, replay.element, steps.element, log.element);
  main.append(el('p', { class: 'back' }, el('a', { href: '#/' }, '← Runs')), head.element, content);

  const lines = tail(encodeURIComponent(id), {
    signal,
    take(more) {
      state.head = more.at(-1).version;
      log.add(more);
      replay.extend(more);
      if (state.version === null) refresh();
    },
    insert(late) {
      log.insert(late);
      if (state.version === null) refresh();
    },
    fail(error) { if (error.status === 404) missing(error); },
  });
  const ticker = setInterval(() => { if (state.version === null) { head.tick(); steps.tick(); } }, 1000);
  follow(null);
  load();

  async function load() {
    try {
      state.run = await get(`runs/${encodeURIComponent(id)}`, signal);
    } catch (error) {
      if (signal.aborted || error.status === 401) return;
      missing(error);
      if (error.status === 404) setTimeout(() => { if (!signal.aborted) load(); }, 2000);
      return;
    }
    if (!content.isConnected) { main.lastChild.remove(); main.append(content); }
    const { version } = state.run;
    document.title = `${state.run.workflow ?? 'Run'} ${state.run.status} · projector`;
    replay.reach(version);
    show();
    lines.start(Math.max(0, version - MOST));
    follow(`run:${id}`, { log: lines.message, open: () => { refresh(); } }, lines.lastId);
    if (state.version !== null) choose(state.version);
  }

  function missing(error) {
    if (main.lastChild === content) content.remove();
    if (main.querySelector('.empty[role=alert]')) return;
    main.append(failure(error, error.status === 404 ? null : () => { main.lastChild.remove(); load(); }));
  }

  // What the lines changed: the run's row and its steps.
  async function refresh() {
    if (state.isLoading) { state.again = true; return; }
    state.isLoading = true;
    try {
      const run = await get(`runs/${encodeURIComponent(id)}`, signal);
      const before = state.run?.status;
      state.run = run;
      replay.reach(run.version);
      if (state.version === null) show();
      if (before && before !== run.status) {
        say(`run ${run.status}`);
        document.title = `${run.workflow ?? 'Run'} ${run.status} · projector`;
      }
    } catch { /* the notice at the top says that nothing comes; the next message tries again */ }
    setTimeout(() => {
      state.isLoading = false;
      if (state.again && !signal.aborted) { state.again = false; refresh(); }
    }, REFRESH);
  }

  function show() {
    if (!state.run) return;
    head.show(state.run);
    steps.show(state.run, state.run.steps, log.lines, null);
  }

  // A version to look at, or null for now.
  async function choose(version) {
    if (signal.aborted) return;
    state.version = version;
    const parametersNow = query({ version });
    history.replaceState(null, '', `#/runs/${encodeURIComponent(id)}${parametersNow}`);
    content.classList.toggle('past', version !== null);
    log.show(version);
    if (version === null) { replay.show(null); show(); refresh(); return; }
    try {
      const then = await get(`runs/${encodeURIComponent(id)}/state${query({ version, limit: 200 })}`, signal);
      if (state.version !== version) return;
      const rows = (name) => then.projections[name]?.rows ?? [];
      const run = rows('run_status')[0] ?? { run_id: id, status: null, version };
      head.show(run, then.recorded_at);
      steps.show(run, rows('step_status'), log.lines, then);
      replay.show(then);
    } catch (error) {
      if (!signal.aborted && state.version === version) replay.fail(error);
    }
  }

  return {
    name: 'runs',
    title: 'Run',
    close() { abort.abort(); clearInterval(ticker); log.close(); },
    reload() { load(); },
    parameters(next) {
      replay.set(versionOf(next));
      return true;
    },
    keys: {
      Escape: () => { location.hash = '#/'; },
      f: () => log.toggle(),
      '[': () => replay.step(-1),
      ']': () => replay.step(1),
    },
  };
}

function versionOf(parameters) {
  const version = Number.parseInt(parameters.get('version'), 10);
  return 0 < version ? version : null;
}
