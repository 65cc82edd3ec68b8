import ws from 'ws'
import { env } from '$env/dynamic/public'
import { connect } from '$lib/supabase'

export async function handle({ event, resolve }) {
  event.locals.supabase = connect(fetch, env.PUBLIC_PROJECTOR, ws)
  return resolve(event)
}
