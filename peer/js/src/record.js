// Signed records: where users are, whose a number is, what gateways offer. A record carries the
// credential of its writer, so whoever reads it needs only the trusted root.
import { multiaddr } from '@multiformats/multiaddr'
import { compare } from './bytes.js'
import * as cbor from './cbor.js'
import * as addresses from './address.js'
import { Abilities, HandleCertificate, NodeChain, checkLength } from './credential.js'
import { check } from './errors.js'
import { Domain } from './key.js'
import { Certificate, checkTime, readPrefixes, readPrice } from './x509.js'

/** The longest record, in bytes. */
export const MAX_RECORD = 2048
/** How much a publisher's clock may be ahead, in seconds. */
const CLOCK_SKEW = 60
/** The longest a location, a number and an offer may last, in seconds. */
export const LOCATION_LIFE = 600
const NUMBER_LIFE = 86_400
const OFFER_LIFE = 600
const MAX_DEVICES = 8
const MAX_ADDRESSES = 8
const MAX_ADDRESS = 256

const LOCATION = 4
const NUMBER = 5
const OFFER = 6
const ASSIGNMENT = 10
const MAX_ASSIGNMENT_DAYS = 398

/**
 * What a record is verified with.
 *
 * @typedef {object} Context
 * @property {import('./trust.js').Trust} trust
 * @property {import('./trust.js').Revocations} revocations
 * @property {number} unix seconds
 */

function open (kind, value) {
  const what = 'the record'
  const wire = cbor.field(cbor.decodeExact(what, value, MAX_RECORD, 'malformed'), 'list', what)
  check(wire.length === 4 && wire[0] === kind, 'malformed', what)
  const [credential, bytes, signature] = wire.slice(1).map((part) => cbor.field(part, 'bytes', what))
  return { credential, bytes, signature, body: cbor.field(cbor.decode(what, bytes, MAX_RECORD), 'map', what) }
}

function checkExpiry (expires, life, unix) {
  check(expires > unix, 'record_expired', 'the record has expired')
  check(expires <= unix + life + CLOCK_SKEW, 'too_far_ahead', 'the record ends too far ahead')
}

/** A sequence counts Unix milliseconds: one far ahead could never be replaced. */
function checkSequence (sequence, unix) {
  check(sequence <= (unix + CLOCK_SKEW) * 1000, 'sequence_ahead', 'the record is ahead of the clock')
}

const seconds = (value) => Number(cbor.field(value, 'u64', 'a time'))

/**
 * Verifies a location record for the slot of a handle.
 *
 * @param {string} slot
 * @param {Uint8Array} value
 * @param {Context} context
 */
export async function validateLocation (slot, value, { trust, revocations, unix }) {
  const { credential, bytes, signature, body } = open(LOCATION, value)
  check(body.get(0) === slot, 'wrong_slot', 'the record is of another user')
  const sequence = seconds(body.get(1))
  const expires = seconds(body.get(2))
  checkExpiry(expires, LOCATION_LIFE, unix)
  checkSequence(sequence, unix)
  const holder = new HandleCertificate(credential)
  check(holder.handle === slot, 'wrong_slot', 'the certificate is of another user')
  await holder.verify(trust, revocations, unix)
  check(holder.abilities & Abilities.beCalled, 'not_callable', `${slot} may not be called`)
  const keyAt = (place) => {
    const key = holder.keys[cbor.field(place, 'u8', 'a device')]
    check(key, 'unknown_device', 'a device that the certificate does not name')
    return key
  }
  check(await keyAt(body.get(3)).verify(Domain.location, bytes, signature), 'record_bad_signature', 'the record is not signed')
  const list = cbor.field(body.get(4), 'list', 'the devices')
  check(list.length <= MAX_DEVICES, 'malformed', 'too many devices')
  const devices = list.map((device) => {
    const [place, abilities, priority, where] = cbor.field(device, 'list', 'a device')
    const peer = keyAt(place).peerId.toString()
    check(cbor.field(where, 'list', 'addresses').length <= MAX_ADDRESSES, 'malformed', 'too many addresses')
    return {
      peer,
      abilities: cbor.field(abilities, 'u32', 'abilities'),
      priority: cbor.field(priority, 'u8', 'a priority'),
      addresses: where.map((address) => readAddress(cbor.field(address, 'bytes', 'an address'), peer))
    }
  })
  const writer = keyAt(body.get(3)).peerId.toString()
  return { handle: slot, sequence, expires, devices, writer, holder, end: Math.min(expires, holder.end), signature }
}

function readAddress (bytes, peer) {
  check(bytes.length <= MAX_ADDRESS, 'malformed', 'an address is too long')
  try {
    const text = multiaddr(bytes).toString()
    return text.endsWith(`/p2p/${peer}`) ? text : `${text}/p2p/${peer}`
  } catch (error) {
    return check(false, 'malformed', error.message)
  }
}

/**
 * Signs a location record with the key of a device.
 *
 * @param {import('./identity.js').Identity} identity
 * @param {object} location
 * @param {number} location.sequence Unix milliseconds
 * @param {number} location.expires Unix seconds, at most 10 minutes ahead
 * @param {Array<{ peer: string, addresses: string[], abilities?: number, priority?: number }>} location.devices
 * @returns {Promise<Uint8Array>} the value to publish
 */
export async function signLocation ({ key, certificate }, { sequence, expires, devices }) {
  const place = (peer) => {
    const at = certificate.keys.findIndex((key) => key.peerId.toString() === peer)
    check(at >= 0, 'unknown_device', 'a device that the certificate does not name')
    return at
  }
  const write = ({ peer, addresses, abilities = 0, priority = 0 }) => {
    check(addresses.length <= MAX_ADDRESSES, 'oversize', 'a device has at most 8 addresses')
    const own = `/p2p/${peer}`
    const plain = addresses.map((text) => (text.endsWith(own) ? text.slice(0, -own.length) : text))
    return [place(peer), abilities, priority, plain.map((text) => Uint8Array.from(multiaddr(text).bytes))]
  }
  check(devices.length <= MAX_DEVICES, 'oversize', 'a user has at most 8 devices')
  const writer = place(key.peerId.toString())
  const body = cbor.encodeMap([[0, certificate.handle], [1, sequence], [2, expires], [3, writer], [4, devices.map(write)]])
  const value = cbor.encode([LOCATION, certificate.bytes, body, await key.sign(Domain.location, body)])
  check(value.length <= MAX_RECORD, 'oversize', 'the record is too long')
  return value
}

/**
 * Verifies a number record for the slot of a number.
 *
 * @param {string} slot
 * @param {Uint8Array} value
 * @param {Context} context
 */
export async function validateNumber (slot, value, { trust, revocations, unix }) {
  if (value[0] === 0x84 && value[1] === ASSIGNMENT) return await validateAssignment(slot, value, { trust, revocations, unix })
  const { credential, bytes, signature, body } = open(NUMBER, value)
  check(`+${body.get(0)}` === slot, 'wrong_slot', 'the record is of another number')
  const handle = cbor.field(body.get(1), 'text', 'a handle')
  check(addresses.handle(handle) === handle, 'malformed', 'a handle')
  const sequence = seconds(body.get(2))
  const expires = seconds(body.get(3))
  checkExpiry(expires, NUMBER_LIFE, unix)
  checkSequence(sequence, unix)
  const writer = await new NodeChain(credential).verify(trust, revocations, unix)
  check(writer.claims.numberPrefixes.some((digits) => slot.startsWith(`+${digits}`)), 'not_permitted',
    `${writer.name} may not assign this number`)
  check(await writer.key.verify(Domain.number, bytes, signature), 'record_bad_signature', 'the record is not signed')
  return { number: slot, handle, sequence, expires, writer, end: Math.min(expires, writer.end), signature }
}

/** Verifies what an authority has said of a number, which whoever holds it may publish. */
async function validateAssignment (slot, value, { trust, revocations, unix }) {
  const { credential, bytes, signature, body } = open(ASSIGNMENT, value)
  check(`+${body.get(0)}` === slot, 'wrong_slot', 'the record is of another number')
  const handle = cbor.field(body.get(1), 'text', 'a handle')
  check(addresses.handle(handle) === handle, 'malformed', 'a handle')
  const sequence = seconds(body.get(2))
  const expires = seconds(body.get(3))
  checkSequence(sequence, unix)
  const authority = new Certificate(credential)
  await trust.verifyEnrolment(authority, revocations, unix)
  check(await authority.key.verify(Domain.assignment, bytes, signature), 'bad_signature', 'the assignment is not signed')
  authority.checkPermitsAssignment(slot)
  checkLength(slot, Math.floor(sequence / 1000), expires, MAX_ASSIGNMENT_DAYS)
  checkTime(slot, 0, expires, unix)
  revocations.check(authority.key, cbor.field(body.get(4), 'u64', 'a serial number'), slot)
  return { number: slot, handle, sequence, expires, writer: authority, end: Math.min(expires, authority.notAfter), signature }
}

/**
 * Verifies a gateway's offer for a number.
 *
 * @param {string} slot the number
 * @param {Uint8Array} value
 * @param {Context} context
 */
export async function validateOffer (slot, value, { trust, revocations, unix }) {
  const { credential, bytes, signature, body } = open(OFFER, value)
  const prefixes = readPrefixes(body.get(0))
  const covering = prefixes.filter((digits) => slot.startsWith(`+${digits}`))
  check(covering.length > 0, 'wrong_slot', 'the offer is for other numbers')
  const sequence = seconds(body.get(5))
  const expires = seconds(body.get(6))
  checkExpiry(expires, OFFER_LIFE, unix)
  const gateway = await new NodeChain(credential).verify(trust, revocations, unix)
  const { role, rate, prefixes: certified } = gateway.claims
  const permitted = (digits) => certified.some((prefix) => digits.startsWith(prefix))
  check(role === 'gateway' && prefixes.every(permitted), 'not_permitted', `${gateway.name} may not offer this`)
  check(await gateway.key.verify(Domain.offer, bytes, signature), 'record_bad_signature', 'the offer is not signed')
  const price = readPrice(body.get(1))
  check(!rate || (rate.currency === price.currency && price.microsPerMinute <= rate.microsPerMinute),
    'price_above_ceiling', `${gateway.name} asks more than it may`)
  return {
    peer: gateway.key.peerId.toString(),
    gateway,
    prefixes,
    /** Digits of the longest of its prefixes that covers the number. */
    prefix: Math.max(...covering.map((digits) => digits.length)),
    price,
    codecs: cbor.field(body.get(2), 'list', 'the codecs'),
    capacity: cbor.field(body.get(3), 'u32', 'a capacity'),
    load: cbor.field(body.get(4), 'u32', 'a load'),
    sequence,
    expires,
    end: Math.min(expires, gateway.end),
    signature
  }
}

/**
 * Says whether one valid record wins over another of its key: the highest sequence, then the latest
 * end, then the greatest signature, so that all readers of the same answers agree.
 */
export function outranks (record, other) {
  if (record.sequence !== other.sequence) return record.sequence > other.sequence
  if (record.end !== other.end) return record.end > other.end
  return compare(record.signature, other.signature) > 0
}

/**
 * Puts offers in the order in which gateways are called: the longest prefix, then the lowest price,
 * then the lowest load. Prices are compared within the currency of most gateways only; those in any
 * other come after. Each gateway is named once; one that is full is left out.
 *
 * @param {Array<Awaited<ReturnType<typeof validateOffer>>>} offers
 */
export function rank (offers) {
  const open = offers.filter((offer) => offer.load < offer.capacity)
  const voices = new Map()
  for (const { price, peer } of open) {
    voices.set(price.currency, (voices.get(price.currency) ?? new Set()).add(peer))
  }
  const common = [...voices].sort(([a, m], [b, n]) => n.size - m.size || (a < b ? -1 : 1))[0]?.[0]
  const foreign = ({ price: { currency } }) => (currency === common ? '' : currency)
  const order = (a, b) =>
    b.prefix - a.prefix ||
    (foreign(a) === foreign(b) ? 0 : foreign(a) < foreign(b) ? -1 : 1) ||
    Number(a.price.microsPerMinute - b.price.microsPerMinute) ||
    a.load / a.capacity - b.load / b.capacity ||
    (a.peer < b.peer ? -1 : 1)
  const seen = new Set()
  return open.sort(order).filter(({ peer }) => !seen.has(peer) && seen.add(peer))
}
