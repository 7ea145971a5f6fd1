// X.509 certificates of authorities and nodes (RFC 5280), Ed25519 only (RFC 8410), and certificate
// requests (RFC 2986).
import { concat, equal, fromUtf8, toPem, utf8 } from './bytes.js'
import * as cbor from './cbor.js'
import { Reader, element } from './der.js'
import { CausewayError, check } from './errors.js'
import { PublicKey } from './key.js'

/** The longest certificate that is read, in bytes. */
export const MAX_DER = 2048
/** The most prefixes of one kind in a certificate or an offer. */
export const MAX_PREFIXES = 32

const malformed = 'identity_malformed'
const ED25519 = Uint8Array.of(0x30, 5, 6, 3, 0x2b, 0x65, 0x70)
const BEFORE_KEY = concat(Uint8Array.of(0x30, 0x2a), ED25519, Uint8Array.of(3, 0x21, 0))
const BEFORE_SIGNATURE = concat(ED25519, Uint8Array.of(3, 0x41, 0))
const oid = (...bytes) => bytes.join('.')
const COMMON_NAME = oid(0x55, 4, 3)
const KEY_USAGE = oid(0x55, 0x1d, 0x0f)
const BASIC_CONSTRAINTS = oid(0x55, 0x1d, 0x13)
const KNOWN = [KEY_USAGE, BASIC_CONSTRAINTS, oid(0x55, 0x1d, 0x0e), oid(0x55, 0x1d, 0x23)]
// 1.3.6.1.4.1.32473.1.1
const CLAIMS = oid(0x2b, 6, 1, 4, 1, 0x81, 0xfd, 0x59, 1, 1)
// 1.3.6.1.4.1.32473.1.2
const LIMITS = oid(0x2b, 6, 1, 4, 1, 0x81, 0xfd, 0x59, 1, 2)

/** A certificate. Parsing verifies nothing. */
export class Certificate {
  /**
   * Reads a certificate: version 3, Ed25519 throughout, serial of at most 64 bits, no critical
   * extension that is not understood (RFC 5280 4.2).
   *
   * @param {Uint8Array} der at most 2048 bytes
   */
  constructor (der) {
    check(der.length <= MAX_DER, 'identity_oversize', 'the certificate is too long')
    const file = new Reader(der)
    const outer = file.inside(0x30)
    file.end()
    const tbs = outer.next(0x30)
    const rest = outer.bytes.subarray(outer.at)
    check(rest.length === BEFORE_SIGNATURE.length + 64, malformed, 'the certificate has another signature')
    check(equal(rest.subarray(0, BEFORE_SIGNATURE.length), BEFORE_SIGNATURE), 'key_unsupported',
      'the certificate is not signed by Ed25519')
    const part = new Reader(tbs.body)
    check(equal(part.next(0xa0).body, Uint8Array.of(2, 1, 2)), malformed, 'the certificate has another version')
    this.der = Uint8Array.from(der)
    this.signed = tbs.whole
    this.signature = rest.subarray(BEFORE_SIGNATURE.length)
    this.serial = serial(part.next(0x02).body)
    check(equal(part.next(0x30).whole, ED25519), 'key_unsupported', 'the certificate is not signed by Ed25519')
    const issuer = part.next(0x30)
    const times = part.inside(0x30)
    const subject = part.next(0x30)
    const info = part.next(0x30).whole
    check(equal(info.subarray(0, BEFORE_KEY.length), BEFORE_KEY), 'key_unsupported', 'a key that is not Ed25519')
    this.notBefore = time(times.next())
    this.notAfter = time(times.next())
    times.end()
    this.issuer = issuer.whole
    this.subject = subject.whole
    this.name = commonName(subject.body)
    this.issuerName = commonName(issuer.body)
    this.key = new PublicKey(info.subarray(BEFORE_KEY.length))
    /** The path length of a CA that may sign certificates. @type {number | undefined} */
    this.authority = undefined
    /** What a node may do. @type {NodeClaims | undefined} */
    this.claims = undefined
    /** What the root permits an authority to certify, where that is limited. */
    this.limits = undefined
    if (!part.isEmpty) {
      const wrapped = part.inside(0xa3)
      this.#readExtensions(wrapped.inside(0x30))
      wrapped.end()
    }
    part.end()
  }

  #readExtensions (list) {
    const seen = new Set()
    let constraints
    let signs = false
    while (!list.isEmpty) {
      const extension = list.inside(0x30)
      const id = oid(...extension.next(0x06).body)
      const critical = extension.tag === 0x01 && extension.next(0x01).body[0] !== 0
      const value = extension.next(0x04).body
      extension.end()
      check(!seen.has(id), malformed, 'an extension comes twice')
      seen.add(id)
      if (id === CLAIMS) this.claims = readClaims(value)
      else if (id === LIMITS) this.limits = readLimits(value)
      else if (id === BASIC_CONSTRAINTS) constraints = readConstraints(value)
      else if (id === KEY_USAGE) signs = readsCertSign(value)
      else check(!critical || KNOWN.includes(id), malformed, 'a critical extension is not understood')
    }
    if (constraints?.ca && signs) this.authority = constraints.path
  }

  get isSelfIssued () {
    return equal(this.issuer, this.subject)
  }

  /** Checks that the root lets this authority certify a user with these numbers. @param {string[]} numbers */
  checkPermitsUser (subject, numbers) {
    this.#checkPermits(subject, ({ numberPrefixes, onlyNumbers }) =>
      !onlyNumbers && numbers.every((number) => within(numberPrefixes, number.slice(1))))
  }

  /** Checks that the root lets this authority certify a node with these claims. */
  checkPermitsNode (subject, claims) {
    this.#checkPermits(subject, ({ prefixes, numberPrefixes, onlyNumbers }) => !onlyNumbers &&
      claims.prefixes.every((digits) => within(prefixes, digits)) &&
      claims.numberPrefixes.every((digits) => within(numberPrefixes, digits)))
  }

  /** Checks that the root lets this authority assign a number. @param {string} number */
  checkPermitsAssignment (number) {
    this.#checkPermits(number, ({ numberPrefixes }) => within(numberPrefixes, number.slice(1)))
  }

  #checkPermits (subject, permit) {
    check(!this.limits || permit(this.limits), 'outside_issuer_limits',
      `certificate of ${subject} holds what ${this.name} may not certify`)
  }

  /** Checks that a moment lies within the validity (RFC 5280 4.1.2.5). @param {number} unix seconds */
  checkTime (unix) {
    checkTime(this.name, this.notBefore, this.notAfter, unix)
  }

  /**
   * Checks that `issuer` is an authority whose path may still hold `below` further authorities, and
   * that it signed this certificate (RFC 5280 6.1.3, 6.1.4).
   *
   * @param {Certificate} issuer
   * @param {number} below
   */
  async checkIssuedBy (issuer, below) {
    check(issuer.authority !== undefined && issuer.authority >= below, 'not_authority',
      `${issuer.name} is not an authority that may issue this`)
    check(equal(this.issuer, issuer.subject), 'wrong_issuer',
      `certificate of ${this.name} was issued by ${this.issuerName}`)
    check(await issuer.key.verifyRaw(this.signed, this.signature), 'bad_signature',
      `the signature on the certificate of ${this.name} is wrong`)
  }
}

/**
 * Checks that a moment lies within a validity, both ends included.
 *
 * @param {string} subject
 * @param {number} notBefore Unix seconds
 * @param {number} notAfter
 * @param {number} unix
 */
export function checkTime (subject, notBefore, notAfter, unix) {
  check(unix >= notBefore, 'certificate_not_yet_valid', `certificate of ${subject} is not valid yet`)
  check(unix <= notAfter, 'certificate_expired', `certificate of ${subject} has expired`)
}

/** A positive INTEGER of at most 64 bits. */
function serial (raw) {
  check(raw.length > 0 && raw[0] < 0x80, malformed, 'the number of the certificate')
  const digits = raw[0] === 0 ? raw.subarray(1) : raw
  check(digits.length <= 8, malformed, 'the number of the certificate')
  return digits.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n)
}

/** UTCTime and GeneralizedTime as RFC 5280 4.1.2.5 has them. */
function time ({ tag, body }) {
  const text = fromUtf8(body)
  const form = tag === 0x17 ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/ : /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/
  const found = (tag === 0x17 || tag === 0x18) && form.exec(text)
  check(found, malformed, 'a date of the certificate')
  const [year, month, day, ...clock] = found.slice(1).map(Number)
  const full = tag === 0x18 ? year : year < 50 ? 2000 + year : 1900 + year
  const unix = Date.UTC(full, month - 1, day, ...clock) / 1000
  check(unix >= 0 && new Date(unix * 1000).getUTCDate() === day, malformed, 'a date of the certificate')
  return unix
}

/** The single common name: 1 to 64 bytes without control characters. */
function commonName (body) {
  const names = []
  const sets = new Reader(body)
  while (!sets.isEmpty) {
    const set = sets.inside(0x31)
    while (!set.isEmpty) {
      const pair = set.inside(0x30)
      const id = oid(...pair.next(0x06).body)
      const value = pair.next()
      pair.end()
      if (id === COMMON_NAME) {
        check(value.tag === 0x0c || value.tag === 0x13, malformed, 'a name of the certificate')
        names.push(fromUtf8(value.body))
      }
    }
  }
  const [name] = names
  check(names.length === 1 && isName(name), malformed, 'a name of the certificate')
  return name
}

function isName (name) {
  return name.length >= 1 && utf8(name).length <= 64 && !/[\u0000-\u001f\u007f-\u009f]/.test(name)
}

function readConstraints (der) {
  const file = new Reader(der)
  const list = file.inside(0x30)
  file.end()
  const ca = list.tag === 0x01 && list.next(0x01).body[0] === 0xff
  const path = list.isEmpty ? 0 : Number(serial(list.next(0x02).body))
  list.end()
  return { ca, path }
}

/** keyCertSign is bit 5 (RFC 5280 4.2.1.3). */
function readsCertSign (der) {
  const file = new Reader(der)
  const { body } = file.next(0x03)
  file.end()
  check(body.length >= 2 && body[0] < 8, malformed, 'the key usage of the certificate')
  return (body[1] & 0x04) !== 0
}

/**
 * What the certificate of a supernode or gateway says of it.
 *
 * @typedef {object} NodeClaims
 * @property {'supernode' | 'gateway'} role
 * @property {string[]} prefixes digits of numbers that it may offer calls to
 * @property {string[]} numberPrefixes digits of numbers that it may assign
 * @property {{ microsPerMinute: bigint, currency: string } | undefined} rate the highest price
 */

/** @returns {NodeClaims} */
function readClaims (value) {
  const outer = new Reader(value)
  const bytes = outer.next(0x04).body
  outer.end()
  try {
    const map = cbor.field(cbor.decode('the claims of a node', bytes, 1024), 'map', 'the claims of a node')
    const role = map.get(0) === 1 ? 'supernode' : map.get(0) === 2 ? 'gateway' : undefined
    const prefixes = readPrefixes(map.get(1))
    const numberPrefixes = readPrefixes(map.get(2))
    const rate = map.has(3) && map.get(3) !== null ? readPrice(map.get(3)) : undefined
    check(role, malformed, 'the role of a node')
    check(role === 'gateway' || (prefixes.length + numberPrefixes.length === 0 && !rate), 'invalid_claim',
      'a prefix or price for a supernode that is no gateway')
    return { role, prefixes, numberPrefixes, rate }
  } catch (error) {
    throw new CausewayError(error.reason === 'malformed' ? malformed : error.reason, error.message)
  }
}

/** Says whether digits begin with one of the prefixes. */
function within (prefixes, digits) {
  return prefixes.some((prefix) => digits.startsWith(prefix))
}

function readLimits (value) {
  const what = 'the limits of an authority'
  const outer = new Reader(value)
  const bytes = outer.next(0x04).body
  outer.end()
  try {
    const map = cbor.field(cbor.decode(what, bytes, 1024), 'map', what)
    const onlyNumbers = map.get(2) ?? false
    check(typeof onlyNumbers === 'boolean', malformed, what)
    return { prefixes: readPrefixes(map.get(0)), numberPrefixes: readPrefixes(map.get(1)), onlyNumbers }
  } catch (error) {
    throw new CausewayError(error.reason === 'malformed' ? malformed : error.reason, error.message)
  }
}

/** Reads prefixes from their digits, at most 32. @param {unknown} list @returns {string[]} */
export function readPrefixes (list) {
  const prefixes = cbor.field(list, 'list', 'a list of prefixes')
  check(prefixes.length <= MAX_PREFIXES, 'invalid_claim', 'more than 32 prefixes')
  const isPrefix = (digits) => typeof digits === 'string' && /^([1-9][0-9]{0,14})?$/.test(digits)
  check(prefixes.every(isPrefix), 'invalid_claim', 'a prefix')
  return prefixes
}

/** Reads a price. @param {unknown} pair */
export function readPrice (pair) {
  const [micros, currency] = cbor.field(pair, 'list', 'a price')
  check(typeof currency === 'string' && /^[A-Z]{3}$/.test(currency), 'invalid_claim', 'a currency')
  return { microsPerMinute: cbor.field(micros, 'u64', 'a price'), currency }
}

/**
 * Writes a certificate request for a name (RFC 2986), as PEM.
 *
 * @param {string} name
 * @param {import('./key.js').NodeKey} key
 */
export async function writeRequest (name, key) {
  check(isName(name), 'invalid_claim', 'a name other than 1 to 64 printable characters')
  const type = element(0x06, Uint8Array.of(0x55, 4, 3))
  const subject = element(0x30, element(0x31, element(0x30, type, element(0x0c, utf8(name)))))
  const version = Uint8Array.of(2, 1, 0)
  const info = element(0x30, version, subject, BEFORE_KEY, key.public.bytes, Uint8Array.of(0xa0, 0))
  return toPem('CERTIFICATE REQUEST', element(0x30, info, BEFORE_SIGNATURE, await key.signRaw(info)))
}
