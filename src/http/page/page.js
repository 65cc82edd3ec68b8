// Shows /api/projections and /api/runs, once a second while the page is looked at.

const tones = {
  live: 'good', succeeded: 'good', running: 'busy', catching_up: 'busy', rebuilding: 'busy',
  paused: 'quiet', canceled: 'quiet', detached: 'quiet', failed: 'bad',
};
const element = (id) => document.getElementById(id);

async function get(path) {
  const token = sessionStorage.getItem('token');
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.error.message), { status: response.status, ...body.error });
  return body;
}

function bytes(count) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (1024 <= count && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${unit && count < 10 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

// Text only ever becomes text nodes: payloads and errors come from elsewhere.
function cell(text, tone = '') {
  const td = document.createElement('td');
  td.textContent = text ?? '-';
  td.className = tone;
  return td;
}

function fill(id, rows) {
  element(id).replaceChildren(...rows.map((cells) => {
    const tr = document.createElement('tr');
    tr.append(...cells);
    return tr;
  }));
}

function say(text, tone) {
  element('state').textContent = text;
  element('state').className = tone;
}

function showStatus(status) {
  say(status.ready ? `ready, ${status.phase}` : status.reasons.join(' · '), status.ready ? 'good' : 'bad');
  fill('projections', status.projections.map((it) => [
    cell(it.name),
    cell(it.state.replace('_', ' '), tones[it.state]),
    cell(it.checkpoint),
    cell(`${bytes(it.lag_bytes)}  ${it.lag_seconds.toFixed(1)} s`, 'number'),
    cell(it.events_per_second.toFixed(0), 'number'),
    cell(note(it)),
  ]));
  const { slot, retained_bytes: kept, limit_bytes: limit, server_version: version } = status.source;
  element('slot').textContent = `slot ${slot} keeps ${bytes(kept)} of WAL`
    + (limit === null ? '' : ` (limit ${bytes(limit)})`)
    + (version === null ? '' : ` on PostgreSQL ${version}`);
}

function note(projection) {
  if (projection.error) return projection.error;
  if (projection.progress !== null) return `${Math.round(projection.progress * 100)} %`;
  return projection.dead_letters ? `${projection.dead_letters} dead letters` : '';
}

function showRuns({ runs }) {
  fill('runs', runs.map((it) => {
    const link = document.createElement('a');
    link.href = `/api/runs/${encodeURIComponent(it.run_id)}`;
    link.textContent = it.run_id;
    const run = document.createElement('td');
    run.append(link);
    return [run, cell(it.workflow), cell(it.status, tones[it.status]), cell(it.version, 'number'),
      cell(it.last_event), cell(it.last_event_at ? new Date(it.last_event_at).toLocaleTimeString() : '-', 'quiet')];
  }));
}

async function refresh() {
  if (document.hidden) return;
  try {
    showStatus(await get('/api/projections'));
    element('access').hidden = true;
    showRuns(await get('/api/runs?limit=20'));
  } catch (error) {
    element('access').hidden = error.status !== 401;
    say(error.status ? [error.message, error.hint].filter(Boolean).join('; ') : 'projector does not answer', 'bad');
  }
}

async function forever() {
  await refresh();
  setTimeout(forever, 1000);
}

element('access').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem('token', element('token').value);
  refresh();
});
forever();
