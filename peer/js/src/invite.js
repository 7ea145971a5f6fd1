// Who calls: the caller's assertion, made and verified.
import * as addresses from './address.js'
import { concat, random, sha256, toHex, utf8 } from './bytes.js'
import * as cbor from './cbor.js'
import { Abilities, HandleCertificate, decodeCredential } from './credential.js'
import { CausewayError, check } from './errors.js'
import { unixNow } from './identity.js'
import { Domain } from './key.js'

/** How long an assertion is valid that this side makes, and the longest that it accepts, in seconds. */
const LIFE = 60
const MAX_LIFE = 120
/** Nonces that are remembered; when there are as many, calls are refused. */
const MAX_NONCES = 4096

/** A call id: the clock in milliseconds, then 80 random bits. @param {number} [now] */
export function newCallId (now = Date.now()) {
  const clock = new Uint8Array(8)
  new DataView(clock.buffer).setBigUint64(0, BigInt(now))
  return concat(clock.subarray(2), random(10))
}

/** What the caller signs: that it places this call, to this address, with this media offer, now. */
async function assertion ({ call, from, displayName, private: hidden, to, nonce, expires, media }) {
  const digest = await sha256(utf8(media))
  return cbor.encode([call, from ?? null, displayName ?? null, hidden ?? false, to, nonce, expires, digest])
}

/**
 * Makes the invite of a call to one device: its fields, signed.
 *
 * @param {import('./identity.js').Identity} identity
 * @param {object} call
 * @param {Uint8Array} call.call
 * @param {string} call.to
 * @param {string} call.media SDP offer
 * @param {string} [call.from] the own handle or one of the own numbers
 * @param {string} [call.displayName]
 * @param {boolean} [call.private]
 */
export async function makeInvite (identity, { call, to, media, from = identity.handle, displayName, private: hidden = false }) {
  check(identity.certificate.mayCallAs(from), 'address_not_certified', `${from} is not certified for ${identity.handle}`)
  const name = displayName === undefined ? undefined : addresses.cleanName(displayName)
  const fields = { call, from, displayName: name, private: hidden, to, media, nonce: random(16), expires: unixNow() + LIFE }
  const signature = await identity.key.sign(Domain.invite, await assertion(fields))
  return { ...fields, certificate: identity.certificate.bytes, signature, token: random(16) }
}

/** Verifies invites. Remembers nonces, so that none is used twice. */
export class InviteVerifier {
  #nonces = new Map()

  /**
   * Verifies the invite of the peer at the far end of a connection: its credential, that the
   * connection's key is certified, that this key signed the assertion, that the caller's address is
   * its own, and that the assertion is fresh.
   *
   * @param {import('./frame.js').Frame} invite
   * @param {string} peer
   * @param {import('./record.js').Context} context
   * @returns {Promise<{ address?: string, displayName?: string, private: boolean, role: 'user' | 'gateway', peer: string }>}
   */
  async verify (invite, peer, { trust, revocations, unix }) {
    const party = await decodeCredential(invite.certificate).verify(trust, revocations, unix)
    const key = party.keyOf(peer)
    check(key, 'call_key_mismatch', 'the caller uses another key than the certified one')
    check(invite.from === undefined || party.mayCallAs(invite.from), 'call_caller_mismatch', 'the address is not the caller\'s')
    check(invite.expires > unix && invite.expires <= unix + MAX_LIFE, 'call_expired', 'the assertion is not of now')
    check(await key.verify(Domain.invite, await assertion(invite), invite.signature), 'call_signature', 'the invite is not signed')
    const isUser = party instanceof HandleCertificate
    check(isUser || party.claims.role === 'gateway', 'call_certificate', 'a supernode does not call')
    if (isUser) {
      const needed = addresses.isNumber(invite.to) ? Abilities.callNumbers : Abilities.callHandles
      check(party.abilities & needed, 'call_certificate', 'the caller\'s certificate does not permit this call')
    }
    this.#remember(`${key.hex} ${toHex(invite.nonce)}`, invite.expires, unix)
    const { from = isUser ? party.handle : undefined, displayName } = invite
    return { address: from, displayName, private: invite.private, role: isUser ? 'user' : 'gateway', peer }
  }

  #remember (nonce, end, unix) {
    for (const [old, until] of this.#nonces) {
      if (until <= unix) this.#nonces.delete(old)
    }
    check(!this.#nonces.has(nonce), 'call_replayed', 'the assertion was used before')
    // Forgetting would let a replay through.
    if (this.#nonces.size >= MAX_NONCES) throw new CausewayError('call_limit', 'too many calls in two minutes')
    this.#nonces.set(nonce, end)
  }
}
