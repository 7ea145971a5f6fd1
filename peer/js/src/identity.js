import { HandleCertificate } from './credential.js'
import { check } from './errors.js'
import { NodeKey } from './key.js'
import { Revocations, Trust } from './trust.js'
import { writeRequest } from './x509.js'

/** The moment in Unix seconds. */
export const unixNow = () => Math.floor(Date.now() / 1000)

/**
 * Begins an enrolment: makes a key, and the request that an authority certifies
 * (`causeway authority issue user HANDLE --request FILE`). The key never leaves the device.
 *
 * @param {string} handle
 * @returns {Promise<{ key: NodeKey, request: string }>} the request as PEM
 */
export async function enrol (handle) {
  const key = await NodeKey.generate()
  return { key, request: await writeRequest(handle, key) }
}

/** The identity of an overlay user's device: key, certificate, whom to believe, what is revoked. */
export class Identity {
  /**
   * @param {NodeKey} key
   * @param {HandleCertificate} certificate
   * @param {Trust} trust
   * @param {Revocations} revocations
   */
  constructor (key, certificate, trust, revocations) {
    this.key = key
    this.certificate = certificate
    this.trust = trust
    this.revocations = revocations
  }

  /**
   * Ends an enrolment: puts the parts together and verifies that they belong together.
   *
   * @param {object} parts each PEM; key and certificate may be one text, as the authority writes it
   * @param {string | NodeKey} parts.key
   * @param {string} parts.certificate
   * @param {string} parts.root
   * @param {string} [parts.revocations]
   * @param {number} [unix] seconds
   */
  static async load ({ key, certificate, root, revocations }, unix = unixNow()) {
    const trust = await Trust.fromPem(root)
    const revoked = revocations ? await Revocations.fromPem(revocations, trust, unix) : new Revocations()
    const pair = typeof key === 'string' ? await NodeKey.fromPem(key) : key
    const verified = await HandleCertificate.fromPem(certificate).verify(trust, revoked, unix)
    check(verified.keyOf(pair.peerId), 'wrong_key', `the key in use is not certified for ${verified.handle}`)
    return new Identity(pair, verified, trust, revoked)
  }

  get handle () {
    return this.certificate.handle
  }

  get numbers () {
    return this.certificate.numbers
  }
}
