// Asks for the admin token, once a tab.

import { el } from './dom.js';
import { hasToken, setToken } from './api.js';

let waiting = null;

// Resolves with whether a token was given. Whoever asks while it is being asked for waits for the same.
export function askForToken(reason) {
  waiting ??= new Promise((resolve) => {
    const input = el('input', { id: 'token', type: 'password', autocomplete: 'off', required: true });
    const said = hasToken() ? 'That token was not accepted.' : reason;
    const dialog = el('dialog', { 'aria-labelledby': 'token-title' },
      el('form', { on: { submit: (event) => { event.preventDefault(); setToken(input.value.trim()); done(true); } } },
        el('h2', { id: 'token-title' }, 'Admin token'),
        el('p', {}, said),
        el('p', { class: 'quiet' }, 'It is the value of PROJECTOR_HTTP_ADMIN_TOKEN, and is forgotten with this tab.'),
        el('label', { for: 'token' }, 'Token'),
        input,
        el('div', { class: 'buttons' },
          el('button', { type: 'submit', class: 'main' }, 'Continue'),
          el('button', { type: 'button', on: { click: () => done(false) } }, 'Cancel'))));
    const before = document.activeElement;
    function done(given) {
      dialog.close();
      dialog.remove();
      waiting = null;
      if (before?.isConnected) before.focus();
      resolve(given);
    }
    dialog.addEventListener('cancel', (event) => { event.preventDefault(); done(false); });
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
  return waiting;
}
