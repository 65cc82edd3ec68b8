import { env } from '$env/dynamic/public'

export function load() {
  return { runs: env.PUBLIC_RUNS.split(' ') }
}
