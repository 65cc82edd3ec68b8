// The head of a run's page: what it is, how it stands, why it failed.

import { attribute, el, mark, put, setMark } from './dom.js';
import { brief, showTime, span, utc } from './format.js';
import { whyButton } from './why.js';

export function runHead(id) {
  const title = el('h1', { tabindex: -1 }, 'Run');
  const status = mark(null);
  const moment = el('p', { class: 'moment', hidden: true });
  const copied = el('button', { type: 'button', class: 'link', on: { click: copy } }, 'Copy id');
  const facts = {};
  const fact = (name, value) => {
    facts[name] = value;
    return el('div', {}, el('dt', {}, name), el('dd', {}, value));
  };
  const text = el('span', { class: 'text' });
  const error = el('div', { class: 'error', hidden: true }, el('strong', {}, 'Error '), text);
  const element = el('div', { class: 'runhead' },
    el('div', { class: 'title' }, title, status, moment),
    el('p', { class: 'ids' }, el('code', {}, id), ' ', copied, ' ', whyButton('run_status', { run_id: id }, 'this run')),
    el('dl', { class: 'facts' },
      fact('Started', el('time')), fact('Finished', el('time')), fact('Duration', el('span')),
      fact('Trigger', el('span')), fact('Steps', el('span')), fact('Version', el('span')),
      fact('Project', el('a'))),
    error);
  let shown = null;

  async function copy() {
    try {
      await navigator.clipboard.writeText(id);
      put(copied, 'Copied');
    } catch {
      put(copied, 'Select it to copy');
    }
    setTimeout(() => put(copied, 'Copy id'), 2000);
  }

  function tick() {
    if (!shown) return;
    const to = shown.run.finished_at ?? shown.at;
    put(facts.Duration, span(shown.run.started_at, to));
  }

  return {
    element,
    tick,
    // The run's row, now or `at` an earlier moment.
    show(run, at = null) {
      shown = { run, at };
      put(title, run.workflow ?? 'unnamed workflow');
      attribute(title, 'title', run.workflow);
      setMark(status, run.status);
      moment.hidden = at === null;
      put(moment, at === null ? '' : `as of version ${run.version}`);
      attribute(moment, 'title', utc(at));
      showTime(facts.Started, run.started_at);
      showTime(facts.Finished, run.finished_at);
      tick();
      const version = run.workflow_version ? `version ${run.workflow_version}` : null;
      put(facts.Trigger, [run.trigger, version].filter(Boolean).join(', ') || '–');
      const failed = run.steps_failed ? `, ${run.steps_failed} failed` : '';
      put(facts.Steps, `${run.steps_succeeded ?? 0} of ${run.steps_started ?? 0} ok${failed}`);
      put(facts.Version, run.version);
      const project = run.project_id ?? '';
      put(facts.Project, project ? project.slice(0, 8) : '–');
      attribute(facts.Project, 'href', project ? `#/?project=${encodeURIComponent(project)}` : null);
      attribute(facts.Project, 'title', project);
      error.hidden = !run.error;
      put(text, run.error ? `${run.failed_step ? `in ${run.failed_step}: ` : ''}${brief(run.error, 4000)}` : '');
    },
  };
}
