// The frame: which page the address names, the state of the engine, the token, the keys.

import { onRefusal } from './api.js';
import { askForToken } from './access.js';
import { attribute, put } from './dom.js';
import { listenToKeys, showHelp } from './keys.js';
import { onState, onStatus, reconnect } from './live.js';
import { projectionsPage } from './projections.js';
import { runPage } from './run.js';
import { runsPage } from './runs.js';

const main = document.getElementById('main');
const notice = document.getElementById('notice');
const scrolled = new Map();
let page = null;
let shown = null;
let byLink = false;

// `#/runs/{id}?version=3`: a page, its argument, its parameters.
function address() {
  const [path, search = ''] = location.hash.slice(1).split(/\?(.*)/s);
  const [, name = '', argument = ''] = path.split('/');
  return { name, argument: decodeURIComponent(argument), parameters: new URLSearchParams(search) };
}

function open({ name, argument, parameters }) {
  if (name === 'runs' && argument) return runPage(main, argument, parameters);
  if (name === 'projections') return projectionsPage(main);
  return runsPage(main, parameters);
}

function show(isFirst = false) {
  const next = address();
  const key = `${next.name}/${next.argument}`;
  // a change of parameters is the page's own business
  if (page && shown?.key === key && page.parameters?.(next.parameters)) return;
  if (shown) scrolled.set(shown.hash, scrollY);
  page?.close?.();
  main.replaceChildren();
  page = open(next);
  shown = { key, hash: location.hash };
  document.title = `${page.title} · projector`;
  for (const link of document.querySelectorAll('nav [data-page]')) {
    attribute(link, 'aria-current', link.dataset.page === page.name ? 'page' : null);
  }
  const isBack = !byLink && !isFirst;
  byLink = false;
  scrollTo(0, isBack ? scrolled.get(location.hash) ?? 0 : 0);
  // the new page's heading is what a screen reader reads next
  if (!isFirst && !(isBack && page.refocus?.())) main.querySelector('h1')?.focus({ preventScroll: true });
}

function showHealth(status) {
  const health = document.getElementById('health');
  const [dot, text] = health.children;
  attribute(dot, 'data-tone', status.ready ? 'good' : 'bad');
  put(text, status.ready ? 'ready' : status.phase === 'streaming' ? 'not ready' : status.phase);
  attribute(health, 'title', status.ready ? `projector ${status.version}` : status.reasons.join('\n'));
}

function showNotice(text) {
  put(notice, text ?? '');
  notice.hidden = !text;
}

onStatus(showHealth);
onState((isOpen, error) => {
  if (isOpen) { showNotice(null); return; }
  const [dot, text] = document.getElementById('health').children;
  attribute(dot, 'data-tone', 'bad');
  put(text, 'offline');
  // the dialog says it already
  if (error?.status === 401) return;
  showNotice(error ? `${error.message}${error.hint ? ` (${error.hint})` : ''}`
    : 'Not connected: what you see may be old. Trying again…');
});
onRefusal(async () => {
  if (await askForToken('This projector answers only to operators.')) { reconnect(); page?.reload?.(); }
});

document.addEventListener('click', (event) => { if (event.target.closest?.('a[href^="#"]')) byLink = true; });
addEventListener('hashchange', () => show());
document.getElementById('skip').addEventListener('click', () => main.focus());
document.getElementById('help').addEventListener('click', showHelp);

const go = (hash) => () => { byLink = true; location.hash = hash; };
listenToKeys(() => ({ g: go('#/'), p: go('#/projections'), '/': go('#/'), ...page?.keys }));

const themes = ['system', 'light', 'dark'];
const theme = document.getElementById('theme');
function showTheme() {
  const now = document.documentElement.dataset.theme ?? 'system';
  attribute(theme, 'aria-label', `Colours: ${now === 'system' ? 'as the system' : now}`);
  attribute(theme, 'title', theme.getAttribute('aria-label'));
  put(theme, { system: '◐', light: '☼', dark: '☾' }[now]);
}
theme.addEventListener('click', () => {
  const now = document.documentElement.dataset.theme ?? 'system';
  const next = themes[(themes.indexOf(now) + 1) % themes.length];
  if (next === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  localStorage.setItem('projector.theme', next);
  showTheme();
});

showTheme();
show(true);
