// Issuers of tokens, by another implementation than the one that checks them: the claims as one JSON on
// stdin; on stdout, for each algorithm, `{ alg, jwk, pem, token, forged, swapped }`.
//
// `forged` is signed by a stranger's key under the issuer's name, `swapped` by the issuer's own key with
// the other way to sign that such keys have, where there is one.

import { constants, generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'

const pss = {
  padding: constants.RSA_PKCS1_PSS_PADDING,
  saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
}
const rsa = () => generateKeyPairSync('rsa', { modulusLength: 2048 })
const curve = (namedCurve) => () => generateKeyPairSync('ec', { namedCurve })
const fixed = { dsaEncoding: 'ieee-p1363' }

const WAYS = {
  RS256: { make: rsa, hash: 'sha256', swap: 'PS256' },
  RS384: { make: rsa, hash: 'sha384', swap: 'RS256' },
  RS512: { make: rsa, hash: 'sha512', swap: 'PS512' },
  PS256: { make: rsa, hash: 'sha256', options: pss, swap: 'RS256' },
  PS384: { make: rsa, hash: 'sha384', options: pss, swap: 'RS384' },
  PS512: { make: rsa, hash: 'sha512', options: pss, swap: 'PS256' },
  ES256: { make: curve('P-256'), hash: 'sha256', options: fixed },
  ES384: { make: curve('P-384'), hash: 'sha384', options: fixed },
  EdDSA: { make: () => generateKeyPairSync('ed25519'), hash: null },
}

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')

function token(alg, kid, key, claims) {
  const { hash, options } = WAYS[alg]
  const text = `${encode({ alg, kid, typ: 'JWT' })}.${encode(claims)}`
  return `${text}.${sign(hash, Buffer.from(text), { key, ...options }).toString('base64url')}`
}

const claims = JSON.parse(readFileSync(0, 'utf8'))
const issuers = Object.entries(WAYS).map(([alg, { make, swap }]) => {
  const [{ publicKey, privateKey }, stranger] = [make(), make()]
  const kid = `of ${alg}`
  return {
    alg,
    jwk: { ...publicKey.export({ format: 'jwk' }), alg, kid, use: 'sig' },
    pem: publicKey.export({ format: 'pem', type: 'spki' }),
    token: token(alg, kid, privateKey, claims),
    forged: token(alg, kid, stranger.privateKey, claims),
    swapped: swap && token(swap, kid, privateKey, claims),
  }
})
process.stdout.write(JSON.stringify(issuers))
