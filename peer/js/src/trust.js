import { equal, fromPem, toHex, toPem } from './bytes.js'
import * as cbor from './cbor.js'
import { CausewayError, check } from './errors.js'
import { Domain } from './key.js'
import { Certificate } from './x509.js'

/** The most roots that are trusted at once. */
const MAX_ROOTS = 8
/** The longest signed revocation list, in bytes, and the most certificates on it. */
export const MAX_LIST_BYTES = 512 * 1024
const MAX_REVOKED = 20_000
/** The most authorities whose lists are held. */
export const MAX_LISTS = 64
const REVOCATIONS = 'CAUSEWAY REVOCATION LIST'
const KIND = 3

/** The trusted roots: all that a verifier must be given. */
export class Trust {
  /** @param {Certificate[]} roots */
  constructor (roots) {
    this.roots = roots
  }

  /** Reads 1 to 8 self-signed authorities. @param {string} pem */
  static async fromPem (pem) {
    const blocks = fromPem(pem, 'CERTIFICATE')
    check(blocks.length > 0, 'pem_missing', 'the file holds no PEM block `CERTIFICATE`')
    check(blocks.length <= MAX_ROOTS, 'identity_oversize', 'too many roots')
    const roots = blocks.map((der) => new Certificate(der))
    for (const root of roots) await root.checkIssuedBy(root, 1)
    return new Trust(roots)
  }

  toPem () {
    return this.roots.map((root) => toPem('CERTIFICATE', root.der)).join('')
  }

  /**
   * Verifies the certificate of an enrolment authority up to a root.
   *
   * @param {Certificate} enrolment
   * @param {Revocations} revocations
   * @param {number} unix seconds
   * @returns {Promise<Certificate>} the root
   */
  async verifyEnrolment (enrolment, revocations, unix) {
    const root = await this.#rootOf(enrolment)
    check(enrolment.authority !== undefined && !enrolment.isSelfIssued, 'not_authority',
      `${enrolment.name} is not an enrolment authority`)
    root.checkTime(unix)
    enrolment.checkTime(unix)
    revocations.check(root.key, enrolment.serial, enrolment.name)
    return root
  }

  /** Of several roots with one name, the one whose key fits. */
  async #rootOf (issued) {
    let refused = new CausewayError('wrong_issuer', `certificate of ${issued.name} was issued by ${issued.issuerName}`)
    for (const root of this.roots.filter((root) => equal(root.subject, issued.issuer))) {
      try {
        await issued.checkIssuedBy(root, 1)
        return root
      } catch (error) {
        refused = error
      }
    }
    throw refused
  }
}

/** The list of one authority: which of its certificates are revoked. */
export class SignedRevocations {
  /** Reads a list. Verifies nothing. @param {Uint8Array} bytes */
  constructor (bytes) {
    const what = 'the revocation list'
    const wire = cbor.field(cbor.decodeExact(what, bytes, MAX_LIST_BYTES), 'list', what)
    check(wire.length === 4 && wire[0] === KIND, 'malformed', what)
    this.bytes = Uint8Array.from(bytes)
    this.signer = new Certificate(cbor.field(wire[1], 'bytes', what))
    this.body = cbor.field(wire[2], 'bytes', what)
    this.signature = cbor.field(wire[3], 'bytes', what)
    const body = cbor.field(cbor.decode(what, this.body, MAX_LIST_BYTES), 'map', what)
    this.version = cbor.field(body.get(0), 'u64', what)
    const revoked = cbor.field(body.get(1), 'list', what)
    check(revoked.length <= MAX_REVOKED, 'malformed', what)
    this.serials = new Set(revoked.map((row) => cbor.field(cbor.field(row, 'list', what)[0], 'u64', what)))
  }
}

/** The newest list of each authority. Empty at first: nothing is revoked. */
export class Revocations {
  /** @type {Map<string, SignedRevocations>} */
  #lists = new Map()

  /** Reads every list of a PEM file. @param {string} pem @param {Trust} trust @param {number} unix */
  static async fromPem (pem, trust, unix) {
    const merged = new Revocations()
    for (const bytes of fromPem(pem, REVOCATIONS)) {
      try {
        await merged.apply(bytes, trust, unix)
      } catch (error) {
        // Replaced by a newer one of the same file, or by an authority that the file revokes.
        if (error.reason !== 'stale_revocations' && error.reason !== 'revoked') throw error
      }
    }
    return merged
  }

  /**
   * Takes over a signed list.
   *
   * @param {Uint8Array} bytes
   * @param {Trust} trust
   * @param {number} unix seconds
   * @returns {Promise<boolean>} whether it was news
   */
  async apply (bytes, trust, unix) {
    const list = new SignedRevocations(bytes)
    const { signer } = list
    const root = trust.roots.find((root) => equal(root.der, signer.der))
    if (root) root.checkTime(unix)
    else await trust.verifyEnrolment(signer, this, unix)
    check(await signer.key.verify(Domain.revocations, list.body, list.signature), 'bad_signature',
      `the signature on the revocation list of ${signer.name} is wrong`)
    const held = this.#lists.get(signer.key.hex)
    if (held && equal(held.body, list.body)) return false
    check(!held || held.version < list.version, 'stale_revocations', 'the revocation list is not newer')
    check(held || this.#lists.size < MAX_LISTS, 'identity_oversize', 'too many revocation lists')
    this.#lists.set(signer.key.hex, list)
    return true
  }

  /** Throws where a certificate is revoked. @param {import('./key.js').PublicKey} issuer @param {bigint} serial @param {string} subject */
  check (issuer, serial, subject) {
    check(!this.isRevoked(issuer, serial), 'revoked', `certificate of ${subject} was revoked`)
  }

  /** @param {import('./key.js').PublicKey} issuer @param {bigint} serial */
  isRevoked (issuer, serial) {
    return this.#lists.get(issuer.hex)?.serials.has(serial) ?? false
  }

  /** The version held of an authority's list. @param {Uint8Array} issuer its key */
  version (issuer) {
    return this.#lists.get(toHex(issuer))?.version
  }

  /** The lists that are held: the key of the authority and the version. */
  held () {
    return [...this.#lists.values()].map((list) => ({ issuer: list.signer.key.bytes, version: list.version }))
  }

  toPem () {
    return [...this.#lists.values()].map((list) => toPem(REVOCATIONS, list.bytes)).join('')
  }
}

