// The API is for pages of its own origin.

import { env } from '$env/dynamic/public'

export async function GET({ params, url, request }) {
  const headers = { authorization: request.headers.get('authorization') }
  const answer = await fetch(`${env.PUBLIC_PROJECTOR}/${params.path}${url.search}`, { headers })
  return new Response(await answer.text(), { status: answer.status })
}
