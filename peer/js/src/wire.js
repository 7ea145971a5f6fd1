// The small protocols of one request and one response.
import * as cbor from './cbor.js'
import { check } from './errors.js'
import { utf8 } from './bytes.js'

export const IDENTITY_PROTOCOL = '/causeway/identity/1'
export const LOOKUP_PROTOCOL = '/causeway/lookup/1'
export const PUBLISH_PROTOCOL = '/causeway/publish/1'
export const OFFER_PROTOCOL = '/causeway/offer/1'
export const TURN_PROTOCOL = '/causeway/turn/1'
export const REVOCATION_PROTOCOL = '/causeway/revocations/1'

/** Longest message of these protocols, in bytes. */
export const MAX_MESSAGE = 32 * 1024
/** Most keys in one look-up; most records, providers and addresses that are read of one answer. */
export const MAX_KEYS = 16
const MAX_ANSWERS = 8

const list = (value, what) => (value === undefined ? [] : cbor.field(value, 'list', what))
const map = (what, bytes) => cbor.field(cbor.decode(what, bytes, MAX_MESSAGE), 'map', what)

/** Says who this node is and which revocation lists it holds. @param {Uint8Array} credential @param {Array<{ issuer: Uint8Array, version: bigint }>} lists */
export const encodeHello = (credential, lists) =>
  cbor.encodeMap([[0, credential], [1, lists.map(({ issuer, version }) => new Map([[0, issuer], [1, version]]))]])

/** @param {Uint8Array} bytes */
export function decodeHello (bytes) {
  const hello = map('the hello', bytes)
  return {
    credential: cbor.field(hello.get(0), 'bytes', 'the credential'),
    lists: list(hello.get(1), 'the lists').slice(0, 64).map((entry) => ({
      issuer: cbor.field(entry.get(0), 'bytes', 'an authority'),
      version: cbor.field(entry.get(1), 'u64', 'a version')
    }))
  }
}

/** Asks for what is stored under at most 16 keys. @param {string[]} keys */
export function encodeLookup (keys) {
  check(keys.length <= MAX_KEYS, 'oversize', 'too many keys')
  return cbor.encodeMap([[0, keys.map(utf8)], [1, false]])
}

/**
 * Reads the answer to a look-up: one entry per key.
 *
 * @param {Uint8Array} bytes
 * @param {number} keys how many were asked for
 */
export function decodeAnswers (bytes, keys) {
  const answers = list(map('the answer', bytes).get(0), 'the answers')
  check(answers.length === keys, 'malformed', 'an answer for each key')
  return answers.map((answer) => ({
    records: list(answer.get(0), 'the records').slice(0, MAX_ANSWERS).map((one) => cbor.field(one, 'bytes', 'a record')),
    providers: list(answer.get(1), 'the providers').slice(0, MAX_ANSWERS).map((one) => ({
      peer: cbor.field(one.get(0), 'bytes', 'a provider'),
      addresses: list(one.get(1), 'addresses').slice(0, MAX_ANSWERS).map((text) => cbor.field(text, 'text', 'an address'))
    }))
  }))
}

/** Asks for a record to be put into the DHT. @param {string} key @param {Uint8Array} value */
export const encodePublish = (key, value) => cbor.encodeMap([[0, utf8(key)], [1, value]])

/** @param {Uint8Array} bytes */
export function decodePublished (bytes) {
  const answer = map('the answer', bytes)
  return {
    stored: cbor.field(answer.get(0), 'u32', 'a count'),
    refused: answer.has(1) ? cbor.field(answer.get(1), 'text', 'a reason') : undefined
  }
}

/** Asks a gateway for its offers that cover a number. @param {string} number with its `+` */
export const encodeOfferRequest = (number) => cbor.encodeMap([[0, number.slice(1)]])

/** @param {Uint8Array} bytes */
export const decodeOffers = (bytes) =>
  list(map('the offers', bytes).get(0), 'the offers').slice(0, MAX_ANSWERS).map((one) => cbor.field(one, 'bytes', 'an offer'))

/** Asks for a credential for the relay of a supernode. */
export const encodeTurnRequest = () => cbor.encodeMap([])

/** Most addresses of a relay that are read. */
const MAX_ENDPOINTS = 16
const TRANSPORTS = [['turn', 'udp'], ['turn', 'tcp'], ['turns', 'tcp']]

/**
 * Reads a credential: URIs (RFC 7065), user name, password, and when it ends in Unix seconds. `undefined`
 * where the supernode has none to give.
 *
 * @param {Uint8Array} bytes
 */
export function decodeTurn (bytes) {
  const answer = map('the credential', bytes)
  if (answer.get(4) != null) return undefined
  const [username, credential] = [0, 1].map((key) => cbor.field(answer.get(key), 'text', 'a name and a password'))
  check(username.length > 0 && username.length <= 508 && credential.length <= 256, 'malformed', 'a name or a password')
  const urls = list(answer.get(3), 'the addresses').slice(0, MAX_ENDPOINTS).flatMap((one) => {
    const transport = TRANSPORTS[cbor.field(one.get(0), 'u32', 'a transport')]
    // One of a later version.
    if (!transport) return []
    const address = cbor.field(one.get(1), 'text', 'an address')
    const parts = /^([0-9.]+|\[[0-9a-f:.]+\]):([0-9]{1,5})$/.exec(address)
    check(parts, 'malformed', `${address} is no address`)
    const name = one.get(2) ?? parts[1]
    check(/^[a-z0-9.[\]:-]{1,253}$/i.test(name), 'malformed', 'a name of a host')
    return [`${transport[0]}:${name}:${parts[2]}?transport=${transport[1]}`]
  })
  const expires = Number(cbor.field(answer.get(2), 'u64', 'an end'))
  return urls.length > 0 ? { urls, username, credential, expires } : undefined
}
