// The API: answers, or an error with what to do. The admin token is kept in this tab and no longer.

const KEY = 'projector.token';
const listeners = new Set();

export class ApiError extends Error {
  constructor(status, { code = 'unknown', message = 'projector gave an answer that is none', hint = null } = {}) {
    super(message);
    Object.assign(this, { status, code, hint });
  }
}

export const hasToken = () => sessionStorage.getItem(KEY) !== null;

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token === null ? more : { ...more, authorization: `Bearer ${token}` };
}

// Called with each error that says that the token is missing or wrong.
export function onRefusal(listener) {
  listeners.add(listener);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers() });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, {
      code: 'offline', message: 'Projector does not answer.', hint: 'It may be restarting. This page goes on by itself.',
    });
  }
  return read(response);
}

async function read(response) {
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  const error = new ApiError(response.status, body?.error);
  if (error.status === 401) listeners.forEach((it) => it(error));
  throw error;
}

// The error of a response that was to be a stream.
export const refusal = (response) => read(response).catch((error) => error);

export const get = (path, signal) => ask(`api/${path}`, { signal });
export const post = (path) => ask(`api/${path}`, { method: 'POST' });

export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== '');
  return given.length ? `?${new URLSearchParams(given)}` : '';
}
