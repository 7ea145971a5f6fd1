import { generateKeyPairFromSeed, publicKeyFromRaw } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey } from '@libp2p/peer-id'
import { concat, firstPem, random, toHex, toPem, utf8 } from './bytes.js'
import { check } from './errors.js'

// The PKCS#8 wrapping of an Ed25519 seed up to the seed itself (RFC 8410 7).
const PKCS8 = Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20)

/**
 * What a signature is for. Its name goes before the signed bytes, so that a signature made for one
 * purpose is worth nothing for another.
 */
export const Domain = Object.freeze({
  handle: utf8('causeway-handle-v1\0'),
  revocations: utf8('causeway-revocations-v1\0'),
  invite: utf8('causeway-invite-v1\0'),
  location: utf8('causeway-location-v1\0'),
  number: utf8('causeway-number-v1\0'),
  assignment: utf8('causeway-assignment-v1\0'),
  offer: utf8('causeway-offer-v1\0')
})

/** An Ed25519 public key (RFC 8032 5.1.5): the identity of a device, node or authority. */
export class PublicKey {
  /** @param {Uint8Array} bytes 32 of them */
  constructor (bytes) {
    check(bytes.length === 32, 'key_unsupported', 'a key that is not Ed25519')
    this.bytes = Uint8Array.from(bytes)
    this.hex = toHex(this.bytes)
    this.key = publicKeyFromRaw(this.bytes)
    this.peerId = peerIdFromPublicKey(this.key)
  }

  /**
   * Says whether a signature was made by this key, for a domain, over exactly these bytes.
   *
   * @param {Uint8Array} domain
   * @param {Uint8Array} bytes
   * @param {Uint8Array} signature
   */
  async verify (domain, bytes, signature) {
    return await this.verifyRaw(concat(domain, bytes), signature)
  }

  /** Verifies without a domain: X.509 only. @param {Uint8Array} bytes @param {Uint8Array} signature */
  async verifyRaw (bytes, signature) {
    if (signature.length !== 64) return false
    try {
      return await this.key.verify(bytes, signature)
    } catch {
      // 32 bytes that are no point of the curve.
      return false
    }
  }

  /** @param {PublicKey} other */
  equals (other) {
    return this.hex === other.hex
  }
}

/** The secret Ed25519 key of a device. */
export class NodeKey {
  #pair
  #seed

  constructor (pair, seed) {
    this.#pair = pair
    this.#seed = seed
    this.public = new PublicKey(pair.publicKey.raw)
    this.peerId = this.public.peerId
  }

  /** Draws a new key. */
  static async generate () {
    return await NodeKey.fromSeed(random(32))
  }

  /** Derives the key of a seed (RFC 8032 5.1.5). @param {Uint8Array} seed 32 bytes */
  static async fromSeed (seed) {
    check(seed.length === 32, 'key_unsupported', 'a seed has 32 bytes')
    return new NodeKey(await generateKeyPairFromSeed('Ed25519', seed), Uint8Array.from(seed))
  }

  /** Reads the first block `PRIVATE KEY`, PKCS#8 (RFC 8410 7, RFC 5958). @param {string} pem */
  static async fromPem (pem) {
    const der = firstPem(pem, 'PRIVATE KEY')
    const version = der[4] === 0 || der[4] === 1
    const algorithm = PKCS8.every((byte, at) => at === 1 || at === 4 || der[at] === byte)
    check(der.length >= 48 && der[1] + 2 === der.length && version && algorithm, 'identity_malformed',
      'the private key is not Ed25519 in PKCS#8')
    return await NodeKey.fromSeed(der.subarray(16, 48))
  }

  /** Writes the key as PEM, PKCS#8. The text is secret. */
  toPem () {
    return toPem('PRIVATE KEY', concat(PKCS8, this.#seed))
  }

  /** Signs exactly these bytes for a domain. @param {Uint8Array} domain @param {Uint8Array} bytes */
  async sign (domain, bytes) {
    return await this.signRaw(concat(domain, bytes))
  }

  /** Signs without a domain: certificate requests only. @param {Uint8Array} bytes */
  async signRaw (bytes) {
    return Uint8Array.from(await this.#pair.sign(bytes))
  }

  /** The key as libp2p takes it. */
  get pair () {
    return this.#pair
  }
}
