// The one live stream of this tab: the engine's status, and what the page is about.
//
// EventSource cannot send a token, so the events are read by fetch. A stream that breaks is opened
// again, with the last version that has arrived; one that is silent for long counts as broken. While
// nobody looks at the tab it is closed: browsers allow few connections to one server.

import { headers, refusal } from './api.js';

const SILENCE = 40_000;
const WAITS = [500, 10_000];

let subject = { topic: null, on: {}, lastId: () => null };
let stream = null;
let wait = WAITS[0];
let timer = 0;
const statusListeners = new Set();
const stateListeners = new Set();
export let isOpen = false;

// Follows `runs` or `run:{id}` instead of what was followed before. `on` has a function an event, and
// `open`, called whenever a stream has begun: what happened before must be asked for then.
export function follow(topic, on = {}, lastId = () => null) {
  subject = { topic, on, lastId };
  reconnect();
}

export function onStatus(listener) {
  statusListeners.add(listener);
}

export function onState(listener) {
  stateListeners.add(listener);
}

export function reconnect() {
  stream?.abort();
  stream = null;
  clearTimeout(timer);
  wait = WAITS[0];
  if (!document.hidden) open();
}

function tell(open, error = null) {
  isOpen = open;
  stateListeners.forEach((it) => it(open, error));
}

async function open() {
  const controller = new AbortController();
  const current = subject;
  stream = controller;
  let silence = setTimeout(() => controller.abort(), SILENCE);
  let error = null;
  try {
    const id = current.lastId();
    const topics = [current.topic, 'status'].filter(Boolean).join(',');
    const response = await fetch(`api/live?topic=${encodeURIComponent(topics)}`, {
      headers: headers(id === null ? {} : { 'last-event-id': String(id) }), signal: controller.signal,
    });
    if (!response.ok) throw await refusal(response);
    wait = WAITS[0];
    tell(true);
    current.on.open?.();
    for await (const { event, data } of events(response.body)) {
      clearTimeout(silence);
      silence = setTimeout(() => controller.abort(), SILENCE);
      if (stream !== controller) return;
      if (event === 'status') statusListeners.forEach((it) => it(JSON.parse(data)));
      else if (event) current.on[event]?.(JSON.parse(data));
    }
  } catch (caught) {
    error = caught;
  } finally {
    clearTimeout(silence);
  }
  if (stream !== controller) return;
  stream = null;
  tell(false, error?.status ? error : null);
  // whoever comes back must not come back all at once
  const pause = wait * (0.5 + Math.random() / 2);
  wait = Math.min(wait * 2, WAITS[1]);
  timer = setTimeout(() => { if (!document.hidden) open(); }, pause);
}

// Server-sent events, one after the other. A comment comes as an event without a name.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    let end;
    while (0 <= (end = text.indexOf('\n\n'))) {
      const fields = text.slice(0, end).split('\n').map((line) => line.split(/: ?(.*)/s));
      text = text.slice(end + 2);
      const field = (name) => fields.filter(([it]) => it === name).map(([, it]) => it).join('\n');
      yield { event: field('event'), data: field('data') };
    }
  }
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    stream?.abort();
    stream = null;
    clearTimeout(timer);
  } else {
    reconnect();
  }
});
// without a network this machine's own addresses may still answer: it is tried
addEventListener('offline', reconnect);
addEventListener('online', reconnect);
