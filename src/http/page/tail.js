// A run's lines, each once and in order, however messages come: the table is the truth, and a message
// is a hint that usually carries the data.

import { get, query } from './api.js';

const PAGE = 1000;
// Of a longer run the last lines are loaded.
export const MOST = 20_000;
const WAITS = [500, 8000];
// When to look again for versions that were left out: two plain inserts may commit the other way round.
const LOOKS = [1000, 5000];

// `take` gets lines that go on where the last ones ended; `insert` lines that came late; `fail` an
// error, once nothing comes.
export function tail(runId, { take, insert, fail, signal }) {
  let last = 0;
  let from = 0;
  let gap = null;
  let looks = 0;
  let isLooking = false;
  const known = new Set();
  let isFetching = false;
  let again = false;
  let wait = WAITS[0];

  async function fetchRest() {
    if (isFetching) { again = true; return; }
    isFetching = true;
    try {
      do {
        again = false;
        let next = last;
        while (next !== null) {
          const page = await get(`runs/${runId}/log${query({ after: last, limit: PAGE })}`, signal);
          accept(page.lines);
          next = page.next;
        }
      } while (again);
      wait = WAITS[0];
    } catch (error) {
      if (!signal.aborted && error.status !== 401) {
        fail(error);
        if (error.status !== 404) setTimeout(fetchRest, wait);
        wait = Math.min(wait * 2, WAITS[1]);
      }
    } finally {
      isFetching = false;
    }
  }

  function accept(lines) {
    const fresh = lines.filter((it) => last < it.version);
    if (fresh.length === 0) return;
    let before = last;
    for (const { version } of fresh) {
      if (before + 1 < version && from <= before) leftOut(before);
      known.add(version);
      before = version;
    }
    last = before;
    take(fresh);
  }

  // A read model may leave events out for good: after some looks what is missing is taken to be so.
  function leftOut(after) {
    gap = gap === null ? after : Math.min(gap, after);
    if (!isLooking) setTimeout(lookAgain, LOOKS[looks]);
    isLooking = true;
  }

  async function lookAgain() {
    if (signal.aborted || gap === null) return;
    try {
      const page = await get(`runs/${runId}/log${query({ after: gap, limit: PAGE })}`, signal);
      const late = page.lines.filter((it) => it.version < last && !known.has(it.version));
      late.forEach((it) => known.add(it.version));
      if (late.length) insert(late);
    } catch { /* looked for again, or loaded anew with the page */ }
    looks += 1;
    if (looks < LOOKS.length) { setTimeout(lookAgain, LOOKS[looks]); return; }
    [gap, looks, isLooking] = [null, 0, false];
  }

  return {
    // The version after which the stream is to go on.
    lastId: () => last || null,
    // Begins after a version, rather than at the first.
    start(after) {
      from = Math.max(last, after);
      last = from;
      return fetchRest();
    },
    message({ prev, head, lines }) {
      // while the table is read, it is asked once more rather than mixed with what comes live
      if (isFetching) { again ||= last < head; return; }
      if (prev <= last) accept(lines);
      if (last < head) fetchRest();
    },
  };
}
