// The keyboard: single keys, which can be switched off, and the page that tells of them.

import { el } from './dom.js';

const OFF = 'projector.keys';
const LIST = [
  ['/', 'search'], ['j', 'next run'], ['k', 'run before'], ['Enter', 'open it'], ['Esc', 'back, or leave the field'],
  ['f', 'follow the log, or stop following'], ['[', 'a version back'], [']', 'a version on'],
  ['g', 'to the runs'], ['p', 'to the projections'], ['?', 'this help'],
];

const isOn = () => localStorage.getItem(OFF) !== 'off';

// `keys` gives the present page's functions, by key.
export function listenToKeys(keys) {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector('dialog[open]')) return;
    const isTyping = event.target.matches('input:not([type=range]), select, textarea');
    if (isTyping && event.key !== 'Escape') return;
    if (isTyping) { event.target.blur(); return; }
    if (event.key !== 'Escape' && !isOn()) return;
    const action = { '?': showHelp, ...keys() }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

export function showHelp() {
  const before = document.activeElement;
  const close = () => { dialog.close(); dialog.remove(); if (before?.isConnected) before.focus(); };
  const rows = LIST.map(([key, what]) => el('tr', {}, el('th', { scope: 'row' }, el('kbd', {}, key)), el('td', {}, what)));
  const check = el('input', {
    type: 'checkbox', id: 'keys-on',
    on: { change: () => localStorage.setItem(OFF, check.checked ? 'on' : 'off') },
  });
  check.checked = isOn();
  const dialog = el('dialog', { 'aria-labelledby': 'help-title', on: { cancel: close } },
    el('h2', { id: 'help-title' }, 'Keys'),
    el('table', { class: 'keys' }, el('tbody', {}, rows)),
    el('p', {}, check, el('label', { for: 'keys-on' }, ' Single keys work')),
    el('div', { class: 'buttons' }, el('button', { type: 'button', class: 'main', on: { click: close } }, 'Close')));
  document.body.append(dialog);
  dialog.showModal();
}
