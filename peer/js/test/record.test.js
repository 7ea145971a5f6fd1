// Signed records, against those that the reference implementation writes.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { toHex } from '../src/bytes.js'
import { Identity } from '../src/identity.js'
import { outranks, rank, signLocation, validateLocation, validateNumber, validateOffer } from '../src/record.js'
import { Siblings } from '../src/siblings.js'
import { Revocations, Trust } from '../src/trust.js'
import { NOW, bent, vector, vectors } from './vectors.js'

const trust = await Trust.fromPem(vectors.root)
const context = { trust, revocations: new Revocations(), unix: NOW }
const identity = await Identity.load({ key: vectors.user_key, certificate: vectors.user_certificate, root: vectors.root }, NOW)
const [location, number, offer, assignment] = ['location', 'number', 'offer', 'assignment'].map(vector)
const later = (seconds) => ({ ...context, unix: NOW + seconds })

test('a location is verified, and the same signed here has the same bytes', async () => {
  const found = await validateLocation('alice', location, context)
  const [device] = found.devices
  assert.equal(device.peer, vectors.user_peer)
  assert.equal(device.addresses[1], `/ip4/192.0.2.1/tcp/4002/ws/p2p/${vectors.gateway_peer}/p2p-circuit/p2p/${vectors.user_peer}`)
  const again = await signLocation(identity, { sequence: NOW * 1000, expires: NOW + 600, devices: found.devices })
  assert.equal(toHex(again), vectors.location)
})

test('a location is refused in another slot, after its end, ahead of the clock, and for others', async () => {
  await assert.rejects(validateLocation('bob', location, context), { reason: 'wrong_slot' })
  await assert.rejects(validateLocation('alice', location, later(600)), { reason: 'record_expired' })
  await assert.rejects(validateLocation('alice', location, later(-61)), { reason: 'too_far_ahead' })
  const sign = (changes) => signLocation(identity, { sequence: NOW * 1000, expires: NOW + 60, devices: [], ...changes })
  await validateLocation('alice', await sign({}), context)
  await assert.rejects(validateLocation('alice', await sign({ sequence: (NOW + 3600) * 1000 }), context), { reason: 'sequence_ahead' })
  await assert.rejects(sign({ devices: [{ peer: vectors.gateway_peer, addresses: [] }] }), { reason: 'unknown_device' })
})

test('a number is verified for its writer and its slot', async () => {
  const found = await validateNumber('+442079460018', number, context)
  assert.deepEqual([found.handle, found.writer.name], ['alice', 'node-3'])
  await assert.rejects(validateNumber('+442079460019', number, context), { reason: 'wrong_slot' })
  await assert.rejects(validateNumber('+442079460018', number, later(3600)), { reason: 'record_expired' })
  await assert.rejects(validateNumber('+442079460018', location, context), { reason: 'malformed' })
})

test('the assignment of a number by an authority is verified, and is good for months', async () => {
  const found = await validateNumber('+442079460018', assignment, context)
  assert.deepEqual([found.handle, found.writer.name], ['alice', 'Numbers'])
  await validateNumber('+442079460018', assignment, later(90 * 86_400))
  await assert.rejects(validateNumber('+442079460019', assignment, context), { reason: 'wrong_slot' })
  await assert.rejects(validateNumber('+442079460018', assignment, later(101 * 86_400)), { reason: 'certificate_expired' })
  await assert.rejects(validateNumber('+442079460018', assignment, later(-61)), { reason: 'sequence_ahead' })
  // Beyond what the root lets that authority assign, and after it has taken it back.
  await assert.rejects(validateNumber('+441632960018', vector('assignment_beyond'), context), { reason: 'outside_issuer_limits' })
  const revocations = await Revocations.fromPem(vectors.assignment_revocations, trust, NOW)
  await assert.rejects(validateNumber('+442079460018', assignment, { ...context, revocations }), { reason: 'revoked' })
})

test('an offer is verified for a number that it covers', async () => {
  const found = await validateOffer('+442079460600', offer, context)
  assert.deepEqual([found.peer, found.prefix, found.capacity, found.load], [vectors.gateway_peer, 2, 100, 7])
  assert.deepEqual(found.price, { microsPerMinute: 12_500n, currency: 'EUR' })
  assert.deepEqual(found.codecs, ['opus', 'PCMA'])
  await assert.rejects(validateOffer('+4912345', offer, context), { reason: 'wrong_slot' })
  await assert.rejects(validateOffer('+442079460600', offer, later(300)), { reason: 'record_expired' })
})

test('every byte of a record counts', async () => {
  const all = [[location, (value) => validateLocation('alice', value, context)],
    [number, (value) => validateNumber('+442079460018', value, context)],
    [assignment, (value) => validateNumber('+442079460018', value, context)],
    [offer, (value) => validateOffer('+442079460600', value, context)]]
  for (const [original, validate] of all) {
    for (let at = 0; at < original.length; at++) {
      await assert.rejects(validate(bent(original, at)), (error) => error.name === 'CausewayError', `byte ${at}`)
    }
    for (const length of [0, 1, 10, original.length - 1]) {
      await assert.rejects(validate(original.subarray(0, length)), { name: 'CausewayError' })
    }
    await assert.rejects(validate(new Uint8Array(2049)), { reason: 'malformed' })
  }
})

test('the highest sequence wins, then the latest end, then the greatest signature', () => {
  const record = (sequence, end, ...signature) => ({ sequence, end, signature: Uint8Array.from(signature) })
  assert.ok(outranks(record(2, 1, 1), record(1, 9, 9)))
  assert.ok(outranks(record(2, 2, 1), record(2, 1, 9)))
  assert.ok(outranks(record(2, 2, 2), record(2, 2, 1)))
  assert.ok(!outranks(record(2, 2, 2), record(2, 2, 2)))
})

test('the longest prefix wins, then the price within one currency, then the load', () => {
  let next = 0
  const made = (prefix, micros, currency, load, peer = `peer${next++}`) =>
    ({ prefix, price: { microsPerMinute: BigInt(micros), currency }, load, capacity: 10, peer })
  const prices = (list) => rank(list).map(({ price }) => Number(price.microsPerMinute))
  const byLoad = [made(0, 1, 'EUR', 0), made(2, 50, 'EUR', 0), made(4, 200, 'EUR', 9), made(4, 200, 'EUR', 1), made(4, 300, 'EUR', 0)]
  assert.deepEqual(rank(byLoad).map(({ prefix, load }) => [prefix, load]), [[4, 1], [4, 9], [4, 0], [2, 0], [0, 0]])
  // Fewer units, and dearer: nobody here knows what another currency is worth.
  assert.deepEqual(prices([made(2, 300, 'EUR', 0), made(2, 290, 'KWD', 0), made(2, 100, 'EUR', 0)]), [100, 300, 290])
  // One gateway with many offers is one voice, and is called once.
  const many = Array.from({ length: 5 }, () => made(2, 5, 'KWD', 0, 'loud'))
  assert.deepEqual(prices([...many, made(2, 100, 'EUR', 0), made(2, 200, 'EUR', 0)]), [100, 200, 5])
  assert.deepEqual(prices([made(2, 100, 'EUR', 10)]), [], 'one that is full takes none')
})

test('a device that is silent is dropped although others still name it', () => {
  const life = 600
  const holder = { keyOf: (peer) => ['me', 'alive', 'dead'].includes(peer) }
  const written = (writer, naming, at) => ({ writer, expires: at + life, holder, devices: naming.map((peer) => ({ peer })) })
  const others = new Siblings()
  others.learn(written('dead', ['me', 'alive', 'dead'], NOW), 'me', life)
  assert.deepEqual(others.alive(NOW, life).map(({ peer }) => peer), ['alive', 'dead'])
  for (let at = NOW + life; at < NOW + 4 * life; at += life / 2) {
    others.learn(written('alive', ['me', 'alive', 'dead'], at), 'me', life)
    assert.deepEqual(others.alive(at, life).map(({ peer }) => peer), ['alive'], `${at - NOW} s later`)
  }
  others.learn(written('dead', ['dead'], NOW + 5 * life), 'me', life)
  assert.deepEqual(others.alive(NOW + 5 * life, life).map(({ peer }) => peer), ['dead'])
})
