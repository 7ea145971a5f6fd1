import { firstPem, fromPem, toPem } from './bytes.js'
import * as cbor from './cbor.js'
import * as addresses from './address.js'
import { check } from './errors.js'
import { Domain, PublicKey } from './key.js'
import { Certificate, checkTime } from './x509.js'

/** The longest handle certificate or chain that is read, in bytes. */
export const MAX_CREDENTIAL = 4096
/** What a user may do: bits. */
export const Abilities = Object.freeze({ callHandles: 1, callNumbers: 2, beCalled: 4, text: 8 })

const HANDLE = 'CAUSEWAY HANDLE CERTIFICATE'
const KIND_HANDLE = 1
const KIND_CHAIN = 2
const DAY = 86_400
const MAX_DEVICES = 8
const MAX_NUMBERS = 8
const MAX_HANDLE_DAYS = 90
const MAX_NODE_DAYS = 398

/** The certificate of an overlay user, signed by an enrolment authority whose own comes with it. */
export class HandleCertificate {
  /** Reads a certificate. Verifies nothing. @param {Uint8Array} bytes */
  constructor (bytes) {
    const what = 'the handle certificate'
    const wire = cbor.field(cbor.decodeExact(what, bytes, MAX_CREDENTIAL), 'list', what)
    check(wire.length === 4 && wire[0] === KIND_HANDLE, 'malformed', what)
    this.bytes = Uint8Array.from(bytes)
    this.enrolment = new Certificate(cbor.field(wire[1], 'bytes', what))
    this.body = cbor.field(wire[2], 'bytes', what)
    this.signature = cbor.field(wire[3], 'bytes', what)
    const body = cbor.field(cbor.decode(what, this.body, MAX_CREDENTIAL), 'map', what)
    this.handle = cbor.field(body.get(0), 'text', what)
    // One handle has one spelling, or one certificate could fill several slots.
    check(addresses.handle(this.handle) === this.handle, 'malformed', what)
    const keys = cbor.field(body.get(1), 'list', what)
    check(keys.length >= 1 && keys.length <= MAX_DEVICES, 'invalid_claim', 'a handle has 1 to 8 keys')
    this.keys = keys.map((key) => new PublicKey(cbor.field(key, 'bytes', what)))
    this.serial = cbor.field(body.get(2), 'u64', what)
    this.notBefore = Number(cbor.field(body.get(3), 'u64', what))
    this.notAfter = this.notBefore + Number(cbor.field(body.get(4), 'u64', what))
    this.abilities = cbor.field(body.get(5), 'u32', what)
    const numbers = body.has(6) ? cbor.field(body.get(6), 'list', what) : []
    check(numbers.length <= MAX_NUMBERS, 'invalid_claim', 'a handle has at most 8 numbers')
    this.numbers = numbers.map((digits) => addresses.number(`+${cbor.field(digits, 'text', what)}`))
  }

  /** Reads the first block `CAUSEWAY HANDLE CERTIFICATE`. @param {string} pem */
  static fromPem (pem) {
    return new HandleCertificate(firstPem(pem, HANDLE))
  }

  toPem () {
    return toPem(HANDLE, this.bytes)
  }

  /**
   * Verifies the certificate at a moment: enrolment authority under a trusted root, claims signed by
   * it, both valid and not revoked, no longer than 90 days.
   *
   * @param {import('./trust.js').Trust} trust
   * @param {import('./trust.js').Revocations} revocations
   * @param {number} unix seconds
   */
  async verify (trust, revocations, unix) {
    const { enrolment, handle } = this
    await trust.verifyEnrolment(enrolment, revocations, unix)
    check(await enrolment.key.verify(Domain.handle, this.body, this.signature), 'bad_signature',
      `the signature on the certificate of ${handle} is wrong`)
    enrolment.checkPermitsUser(handle, this.numbers)
    checkLength(handle, this.notBefore, this.notAfter, MAX_HANDLE_DAYS)
    checkTime(handle, this.notBefore, this.notAfter, unix)
    revocations.check(enrolment.key, this.serial, handle)
    return this
  }

  /** When the certificate or that of its authority ends, in Unix seconds. */
  get end () {
    return Math.min(this.notAfter, this.enrolment.notAfter)
  }

  /** The certified key behind a PeerId. @param {{ toString(): string }} peer */
  keyOf (peer) {
    return this.keys.find((key) => key.peerId.toString() === peer.toString())
  }

  /** Says whether the user may call under an address: its handle or one of its numbers. @param {string} address */
  mayCallAs (address) {
    return address === this.handle || this.numbers.includes(address)
  }
}

/** The certificate of a supernode or gateway and that of the authority which issued it. */
export class NodeChain {
  /** Reads a chain. Verifies nothing. @param {Uint8Array} bytes */
  constructor (bytes) {
    const what = 'the certificate chain'
    const wire = cbor.field(cbor.decodeExact(what, bytes, MAX_CREDENTIAL), 'list', what)
    check(wire.length === 3 && wire[0] === KIND_CHAIN, 'malformed', what)
    this.bytes = Uint8Array.from(bytes)
    this.leaf = new Certificate(cbor.field(wire[1], 'bytes', what))
    this.enrolment = new Certificate(cbor.field(wire[2], 'bytes', what))
  }

  /** Reads two blocks `CERTIFICATE`, the node's own first. @param {string} pem */
  static fromPem (pem) {
    const blocks = fromPem(pem, 'CERTIFICATE')
    check(blocks.length === 2, 'identity_malformed', 'a chain has two certificates')
    return new NodeChain(cbor.encode([KIND_CHAIN, ...blocks]))
  }

  /**
   * Verifies the chain at a moment: enrolment authority under a trusted root, node under the
   * authority, both valid and not revoked, the node no authority itself.
   *
   * @param {import('./trust.js').Trust} trust
   * @param {import('./trust.js').Revocations} revocations
   * @param {number} unix seconds
   */
  async verify (trust, revocations, unix) {
    const { leaf, enrolment } = this
    await trust.verifyEnrolment(enrolment, revocations, unix)
    await leaf.checkIssuedBy(enrolment, 0)
    check(leaf.claims && leaf.authority === undefined, 'not_node',
      `certificate of ${leaf.name} is not that of a supernode or gateway`)
    enrolment.checkPermitsNode(leaf.name, leaf.claims)
    checkLength(leaf.name, leaf.notBefore, leaf.notAfter, MAX_NODE_DAYS)
    leaf.checkTime(unix)
    revocations.check(enrolment.key, leaf.serial, leaf.name)
    return this
  }

  get name () {
    return this.leaf.name
  }

  get key () {
    return this.leaf.key
  }

  /** What the node may do; present once verified. */
  get claims () {
    return this.leaf.claims
  }

  /** When the certificate or that of its authority ends, in Unix seconds. */
  get end () {
    return Math.min(this.leaf.notAfter, this.enrolment.notAfter)
  }

  /** @param {{ toString(): string }} peer */
  keyOf (peer) {
    return this.key.peerId.toString() === peer.toString() ? this.key : undefined
  }

  /** A gateway passes on what the telephone network says: any number. @param {string} address */
  mayCallAs (address) {
    return this.claims?.role === 'gateway' && addresses.isNumber(address)
  }
}

/** Reads a credential of either kind. Verifies nothing. @param {Uint8Array} bytes */
export function decodeCredential (bytes) {
  check(bytes.length <= MAX_CREDENTIAL, 'identity_oversize', 'the credential is too long')
  switch (bytes[1]) {
    case KIND_HANDLE: return new HandleCertificate(bytes)
    case KIND_CHAIN: return new NodeChain(bytes)
    default: return check(false, 'identity_malformed', 'the credential')
  }
}

/** Checks that a validity runs forward and is no longer than its kind may be. */
export function checkLength (subject, notBefore, notAfter, limit) {
  check(notAfter >= notBefore, 'invalid_claim', `certificate of ${subject} ends before it begins`)
  check(Math.ceil((notAfter - notBefore) / DAY) <= limit, 'certificate_validity_too_long',
    `certificate of ${subject} is valid for more than ${limit} days`)
}
