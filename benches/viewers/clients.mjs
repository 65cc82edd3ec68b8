// Viewers as users have them: supabase-js as it is, each client with a socket of its own.
//
// TEST_PACKAGES=… node clients.mjs '{"url", "key", "topic", "clients"}'
//
// It says `{"joined"}` once all have joined. For each line on stdin, the last version of the run, it
// waits until all have heard that, and says what each has heard, in milliseconds since 1970:
// `{"cpu", "heard": [[[version, at], …], …]}`.

import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const require = createRequire(`${process.env.TEST_PACKAGES}/`)
const { createClient } = require('@supabase/supabase-js')
const transport = globalThis.WebSocket ?? require('ws')
const { url, key, topic, clients } = JSON.parse(process.argv[2])

const now = () => performance.timeOrigin + performance.now()
const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`)
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function view() {
  const heard = new Map()
  const supabase = createClient(url, key, { realtime: { transport } })
  await supabase.realtime.setAuth(key)
  const channel = supabase.channel(topic, { config: { private: true } })
  channel.on('broadcast', { event: 'log' }, ({ payload: { lines } }) => {
    const at = now()
    for (const { version } of lines) if (!heard.has(version)) heard.set(version, at)
  })
  await new Promise((resolve, reject) => {
    channel.subscribe((status, error) => {
      if (status === 'SUBSCRIBED') resolve()
      else reject(error ?? new Error(status))
    })
  })
  return heard
}

const viewers = []
while (viewers.length < clients) {
  const more = Math.min(10, clients - viewers.length)
  viewers.push(...(await Promise.all(Array.from({ length: more }, view))))
}
let before = process.cpuUsage()
say({ joined: viewers.length })

for await (const line of createInterface({ input: process.stdin })) {
  const last = Number(line)
  const until = Date.now() + 30_000
  while (!viewers.every((it) => it.has(last)) && Date.now() < until) await sleep(20)
  const { user, system } = process.cpuUsage(before)
  const off = Math.abs(Date.now() - now())
  if (2 < off) throw new Error(`the clock was set meanwhile: ${off} ms`)
  say({ cpu: (user + system) / 1e6, heard: viewers.map((it) => [...it]) })
}
process.exit(0)
