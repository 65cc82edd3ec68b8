// A client of the embedded Realtime. There is no PostgREST: what would be asked of it is asked of
// projector's API at `base`.

import { createClient } from '@supabase/supabase-js'
import { env } from '$env/dynamic/public'

export function connect(fetch, base, transport) {
  const rest = async (input) => {
    const { pathname, searchParams } = new URL(input)
    if (!pathname.endsWith('/rest/v1/run_log') || searchParams.get('order') !== 'version.asc') {
      throw new Error(`not expected: ${input}`)
    }
    const value = (name) => searchParams.get(name)?.replace(/^(eq|gt)\./, '')
    const after = value('version') ?? 0
    const path = `api/runs/${value('run_id')}/log?after=${after}&limit=${value('limit')}`
    const answer = await fetch(`${base}/${path}`, { headers: { authorization: `Bearer ${env.PUBLIC_USER}` } })
    return answer.ok ? Response.json((await answer.json()).lines) : answer
  }
  return createClient(env.PUBLIC_PROJECTOR, env.PUBLIC_ANON, {
    accessToken: async () => env.PUBLIC_USER,
    global: { fetch: rest },
    ...(transport && { realtime: { transport } }),
  })
}
