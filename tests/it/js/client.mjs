// supabase-js, driven by a test: one JSON command a line on stdin, one JSON event a line on stdout.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { liveLog } from '../../../examples/live-log.mjs'

const require = createRequire(`${process.env.TEST_PACKAGES}/`)
const { createClient } = require('@supabase/supabase-js')
const Base = globalThis.WebSocket ?? require('ws')

let supabase
let token = null
let loss = 0
let losesBeacons = true
let broadcasts = 0
let dropped = 0
const channels = new Map()
const logs = new Map()

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`)

// A network that loses broadcasts and nothing else.
class Lossy extends Base {
  set onmessage(handler) {
    super.onmessage = (event) => {
      const text = typeof event.data === 'string' ? event.data : ''
      if (text.includes('"broadcast",{"event"')) {
        broadcasts += 1
        const isBeacon = text.includes('"lines":[]')
        if ((losesBeacons || !isBeacon) && Math.random() < loss) return void (dropped += 1)
      }
      handler(event)
    }
  }
  get onmessage() {
    return super.onmessage
  }
}

function plain(value) {
  if (value instanceof ArrayBuffer) return { hex: Buffer.from(value).toString('hex') }
  return value
}

const commands = {
  connect({ url, key, vsn, heartbeat }) {
    const realtime = { transport: Lossy, ...(vsn && { vsn }) }
    if (heartbeat) realtime.heartbeatIntervalMs = heartbeat
    supabase = createClient(url, key, {
      realtime,
      ...(token !== null && { accessToken: async () => token }),
    })
  },
  // A token before `connect` makes the client ask for it; one after it is the next it is given.
  async token({ value, tell }) {
    token = value
    if (tell) await supabase.realtime.setAuth()
  },
  async join({ topic, as, config }) {
    await supabase.realtime.setAuth()
    const channel = supabase.channel(topic, { config })
    const name = as ?? topic
    channels.set(name, channel)
    channel
      .on('broadcast', { event: '*' }, ({ event, payload, meta }) =>
        say({ kind: 'message', topic: name, event, payload: plain(payload), meta }),
      )
      .on('system', {}, ({ status, message }) => say({ kind: 'system', topic: name, status, message }))
      .subscribe((status, error) => say({ kind: 'status', topic: name, status, error: error?.message }))
  },
  async leave({ topic }) {
    say({ kind: 'left', topic, result: await supabase.removeChannel(channels.get(topic)) })
  },
  async send({ topic, event, payload }) {
    const result = await channels.get(topic).send({ type: 'broadcast', event, payload })
    say({ kind: 'sent', topic, result })
  },
  lose({ share, beacons = true }) {
    loss = share
    losesBeacons = beacons
  },
  follow({ run, base, pollEvery }) {
    const rows = []
    let fetches = 0
    const stop = liveLog({
      supabase,
      topic: `run:${run}`,
      pollEvery,
      retryAfter: [50, 100, 200],
      onRows: (fresh) => rows.push(...fresh.map((row) => row.version)),
      onState: (status) => say({ kind: 'status', topic: run, status }),
      async fetchAfter(last, limit) {
        fetches += 1
        const response = await fetch(`${base}/api/runs/${run}/log?after=${last}&limit=${limit}`)
        if (!response.ok) throw new Error(`${response.status}`)
        return (await response.json()).lines
      },
    })
    logs.set(run, { rows, stop, fetches: () => fetches })
  },
  report({ run }) {
    const { rows, fetches } = logs.get(run)
    const ordered = rows.every((version, index) => version === index + 1)
    say({ kind: 'report', run, rows: rows.length, ordered, broadcasts, dropped, fetches: fetches() })
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const { do: verb, ...rest } = JSON.parse(line)
  try {
    await commands[verb](rest)
    say({ kind: 'done', verb })
  } catch (error) {
    say({ kind: 'failed', verb, error: String(error?.stack ?? error) })
  }
}
process.exit(0)
