import { browser } from '$app/environment'
import { connect } from '$lib/supabase'

export function load({ data }) {
  return { ...data, supabase: browser ? connect(fetch, '/projector') : null }
}
