// Builds elements. Text only ever becomes text nodes: names, messages and payloads come from elsewhere.

// el('a', { class: 'x', href: '#/', on: { click } }, 'text', child)
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (name === 'data') {
      Object.assign(element.dataset, value);
    } else {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  element.append(...children.flat().filter((it) => it !== null && it !== undefined && it !== false));
  return element;
}

// Changes text only where it differs: what does not change is neither painted nor read out again.
export function put(element, text) {
  const wanted = text === null || text === undefined ? '' : String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// A word with a shape of its own, so that colour is not needed to tell one state from another.
const SHAPES = {
  running: '▸', live: '▸', succeeded: '✓', failed: '✕', error: '✕', paused: '‖', canceled: '⊘',
  detached: '⊘', scheduled: '○', retrying: '↻', rebuilding: '↻', catching_up: '↻', skipped: '–', degraded: '!',
};
const TONES = {
  running: 'accent', live: 'good', succeeded: 'good', failed: 'bad', degraded: 'bad', retrying: 'warn', paused: 'warn',
  rebuilding: 'accent', catching_up: 'accent',
};

export const tone = (status) => (Object.hasOwn(TONES, status) ? TONES[status] : 'quiet');

export function mark(status) {
  const element = el('span', { class: 'status' }, el('span', { class: 'shape', 'aria-hidden': 'true' }), el('span'));
  setMark(element, status);
  return element;
}

export function setMark(element, status) {
  const text = status ?? 'unknown';
  attribute(element, 'data-tone', tone(text));
  put(element.firstChild, Object.hasOwn(SHAPES, text) ? SHAPES[text] : '·');
  put(element.lastChild, text.replaceAll('_', ' '));
}

// Read out by screen readers, when they have time. Never for what changes all the time.
export function say(text) {
  put(document.getElementById('said'), text);
}

// What went wrong, and what to do about it.
export function failure(error, again) {
  return el('div', { class: 'empty', role: 'alert' },
    el('p', { class: 'strong' }, error.message),
    error.hint ? el('p', {}, error.hint) : null,
    again ? el('button', { type: 'button', on: { click: again } }, 'Try again') : null);
}
