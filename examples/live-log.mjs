// A live log without holes, over supabase-js or anything that speaks its protocol.
//
//   const stop = liveLog({
//     supabase,                                        // createClient(url, key, …)
//     topic: `run:${id}`,
//     fetchAfter: async (last, limit) => { … },        // rows after `last`, in order, at most `limit`
//     onRows: (rows) => { … },                         // every row once, in order
//   })
//
// The table is the truth, and a broadcast is a hint that usually carries the rows:
// `{ prev, head, lines }`, where `prev` says which row came before the first of `lines`. If that is
// not the last one we have, or nobody knows, the table is asked. A message without lines is a beacon:
// it comes some time after the last line, in case that one was lost, and says where the topic ends
// (`prev` and `head` are the same). The table is also asked whenever the channel has (re)joined, since
// nobody keeps what is sent meanwhile, and now and then.

export function liveLog({
  supabase,
  topic,
  fetchAfter,
  onRows,
  onState = () => {},
  position = 'version', // a project's topic counts in `position`
  event = 'log',
  after = 0,
  limit = 500,
  pollEvery = 20_000,
  retryAfter = [500, 1_000, 2_000, 5_000, 10_000],
}) {
  let last = after
  let channel
  let failures = 0
  let stopped = false
  let fetching = false
  let again = false

  const apply = (rows) => {
    const fresh = rows.filter((row) => row[position] > last)
    if (fresh.length === 0) return
    last = fresh[fresh.length - 1][position]
    onRows(fresh)
  }

  const later = (what) => {
    const wait = retryAfter[Math.min(failures++, retryAfter.length - 1)]
    setTimeout(() => !stopped && what(), wait * (0.5 + Math.random()))
  }

  // One fetch at a time. What is broadcast meanwhile is not applied, but looked for again.
  async function fetchRows() {
    if (fetching) return void (again = true)
    fetching = true
    try {
      do {
        again = false
        let rows
        do {
          rows = await fetchAfter(last, limit)
          if (stopped) return
          apply(rows)
        } while (rows.length === limit)
      } while (again)
      failures = 0
    } catch (error) {
      onState('error', error)
      later(fetchRows)
    } finally {
      fetching = false
    }
  }

  function onMessage({ payload: { prev, head, lines } }) {
    if (fetching) return void (again = true)
    if (head <= last) return // a beacon, mostly, and nothing is missing
    if (prev !== null && prev <= last) apply(lines)
    else fetchRows()
  }

  async function join() {
    try {
      await supabase.realtime.setAuth() // or the first join goes out without the user's token
    } catch (error) {
      onState('error', error)
      return later(join)
    }
    if (stopped) return
    const mine = supabase.channel(topic, { config: { private: true } })
    channel = mine
    mine.on('broadcast', { event }, onMessage).subscribe((status, error) => {
      if (stopped || mine !== channel) return
      onState(status, error)
      if (status === 'SUBSCRIBED') fetchRows()
      // After anything else supabase-js joins again by itself. A channel that the server has closed
      // (the token had expired, say) stays closed: a new one, with a new token.
      if (status === 'CLOSED') later(join)
    })
  }

  const onVisible = () => globalThis.document?.visibilityState === 'visible' && fetchRows()
  globalThis.document?.addEventListener('visibilitychange', onVisible)
  const timer = setInterval(fetchRows, pollEvery)
  fetchRows()
  join()

  return function stop() {
    stopped = true
    clearInterval(timer)
    globalThis.document?.removeEventListener('visibilitychange', onVisible)
    if (channel) supabase.removeChannel(channel)
  }
}
