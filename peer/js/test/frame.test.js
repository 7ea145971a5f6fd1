// Frames of the call protocol, against those that the reference implementation writes.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { concat, toHex } from '../src/bytes.js'
import * as cbor from '../src/cbor.js'
import { FrameDecoder, MAX_FRAME, decodeFrame, encodeFrame } from '../src/frame.js'
import { InviteVerifier, makeInvite } from '../src/invite.js'
import { Identity, unixNow } from '../src/identity.js'
import { Revocations, Trust } from '../src/trust.js'
import { NOW, vector, vectors } from './vectors.js'

const names = Object.keys(vectors).filter((name) => name.startsWith('frame_'))
const read = (bytes) => {
  const frames = []
  const decoder = new FrameDecoder()
  decoder.feed(bytes, (frame) => { frames.push(frame) })
  return frames
}

test('every frame of the reference is read, and written with the same bytes', () => {
  assert.equal(names.length, 17)
  for (const name of names) {
    const [frame] = read(vector(name))
    assert.equal(`frame_${frame.type}`, name)
    assert.equal(toHex(encodeFrame(frame)), vectors[name], name)
  }
})

test('the fields are what they say', () => {
  const field = (name, key) => read(vector(`frame_${name}`))[0][key]
  assert.equal(field('invite', 'displayName'), 'Alice Ó')
  assert.equal(field('invite', 'private'), true)
  assert.equal(field('dtmf', 'digit'), '#')
  assert.equal(field('reject', 'sipStatus'), 486)
  assert.equal(field('bye', 'cause'), 16)
  assert.equal(field('cancel', 'answeredElsewhere'), true)
  assert.equal(field('connected', 'from'), '+15550100')
  assert.equal(field('ack', 'received'), 300)
  assert.equal(field('resume', 'received'), 70_000)
})

test('a stream may be split in any way', () => {
  const all = concat(...names.map(vector))
  for (const size of [1, 2, 3, 7, 100, all.length]) {
    const decoder = new FrameDecoder()
    const types = []
    for (let at = 0; at < all.length; at += size) {
      decoder.feed(all.subarray(at, at + size), (frame) => { types.push(`frame_${frame.type}`) })
    }
    assert.deepEqual(types, names, `in pieces of ${size}`)
  }
})

test('whoever stops reading is told how many bytes were taken', () => {
  const [ping, trying] = [vector('frame_ping'), vector('frame_trying')]
  const taken = new FrameDecoder().feed(concat(ping, trying), () => false)
  assert.equal(taken, ping.length)
})

test('malformed input is refused with its reason', () => {
  const framed = (map) => {
    const body = cbor.encode(map)
    return concat(Uint8Array.of(body.length), body)
  }
  const refused = (bytes, reason) => assert.throws(() => read(bytes), { name: 'CausewayError', reason }, reason)
  refused(Uint8Array.of(0x80, 0x80, 0x80), 'bad_varint')
  refused(Uint8Array.of(0x81, 0x00), 'bad_varint')
  refused(Uint8Array.of(0x81, 0x80, 0x01), 'too_long')
  refused(Uint8Array.of(0), 'bad_cbor')
  refused(Uint8Array.of(1, 0x80), 'bad_cbor')
  refused(Uint8Array.of(3, 0xa1, 0, 0xff), 'bad_cbor')
  refused(framed(new Map([[0, 2]])), 'missing_field')
  refused(framed(new Map([[0, 4], [1, 1]])), 'missing_field')
  refused(framed(new Map([[0, 4], [1, 1], [8, 5]])), 'bad_cbor')
  refused(framed(new Map([[0, 8], [1, 1], [17, 16], [18, 100]])), 'bad_field')
  refused(framed(new Map([[0, 8], [1, 1], [17, 1], [18, 6001]])), 'bad_field')
  refused(framed(new Map([[0, 13], [1, 1], [13, 0]])), 'bad_field')
  refused(framed(new Map([[0, 13], [1, 1], [13, 17], [14, 200]])), 'bad_field')
  assert.throws(() => decodeFrame(cbor.encode(new Map([[0, 10], [1, 1], [15, 'x'.repeat(513)]]))), { reason: 'field_too_long' })
  assert.throws(() => encodeFrame({ type: 'answer', sequence: 1, media: 'x'.repeat(MAX_FRAME) }), { reason: 'too_long' })
  const [unknown] = read(framed(new Map([[0, 99], [1, 5], [77, 'later']])))
  assert.deepEqual(unknown, { type: 'unknown', sequence: 5, kind: 99 })
})

test('no input makes the reader fail in any other way', () => {
  // A linear congruential generator: the same input every time.
  let seed = 1
  const random = (below) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return (seed >>> 8) % below
  }
  const originals = names.map(vector)
  for (let round = 0; round < 20_000; round++) {
    const bytes = Uint8Array.from(originals[random(originals.length)])
    for (let change = random(4); change >= 0; change--) bytes[random(bytes.length)] = random(256)
    try {
      read(bytes)
    } catch (error) {
      assert.equal(error.name, 'CausewayError', `round ${round}: ${error.stack}`)
    }
  }
})

test('the invite of the reference is verified, once', async () => {
  const trust = await Trust.fromPem(vectors.root)
  const context = { trust, revocations: new Revocations(), unix: NOW }
  const [invite] = read(vector('frame_invite'))
  const verifier = new InviteVerifier()
  const from = await verifier.verify(invite, vectors.user_peer, context)
  assert.deepEqual(from, { address: 'alice', displayName: 'Alice Ó', private: true, role: 'user', peer: vectors.user_peer })
  await assert.rejects(verifier.verify(invite, vectors.user_peer, context), { reason: 'call_replayed' })
  const refused = (changes, reason, unix = NOW, peer = vectors.user_peer) =>
    assert.rejects(new InviteVerifier().verify({ ...invite, ...changes }, peer, { ...context, unix }), { reason })
  await refused({}, 'call_expired', NOW + 60)
  await refused({ expires: NOW + 121 }, 'call_expired')
  await refused({}, 'call_key_mismatch', NOW, vectors.gateway_peer)
  await refused({ from: 'bob' }, 'call_caller_mismatch')
  for (const changes of [{ to: 'bob' }, { media: 'v=1' }, { private: false }, { displayName: 'Bob' }, { from: undefined },
    { nonce: new Uint8Array(16) }, { expires: NOW + 61 }, { call: new Uint8Array(16) }]) {
    await refused(changes, 'call_signature')
  }
})

test('an invite made here verifies, under an own address only', async () => {
  const parts = { key: vectors.user_key, certificate: vectors.user_certificate, root: vectors.root }
  const identity = await Identity.load(parts, NOW)
  const call = { call: new Uint8Array(16), to: '+442079460600', media: 'v=0', displayName: ' A\u0007lice ' }
  const invite = await makeInvite(identity, call)
  assert.equal(invite.displayName, 'Alice')
  const [read1] = read(encodeFrame({ type: 'invite', sequence: 1, ...invite }))
  const context = { trust: identity.trust, revocations: identity.revocations, unix: NOW }
  // The certificate is of another time than the clock.
  const moved = { ...read1, expires: NOW + 60 }
  await assert.rejects(new InviteVerifier().verify(moved, vectors.user_peer, context), { reason: 'call_signature' })
  assert.ok(invite.expires > unixNow() && invite.expires <= unixNow() + 60)
  await assert.rejects(makeInvite(identity, { ...call, from: '+442079460019' }), { reason: 'address_not_certified' })
})
