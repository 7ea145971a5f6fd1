// Just enough DER (X.690 10) for certificates of the overlay: definite lengths in the shortest
// form, at most 65535 bytes.
import { concat } from './bytes.js'
import { check } from './errors.js'

const malformed = 'identity_malformed'

/** Writes one element. @param {number} tag @param {...Uint8Array} contents */
export function element (tag, ...contents) {
  const body = concat(...contents)
  const n = body.length
  check(n <= 0xffff, malformed, 'a DER value is too long')
  const length = n < 0x80 ? [n] : n < 0x100 ? [0x81, n] : [0x82, n >> 8, n & 0xff]
  return concat(Uint8Array.of(tag, ...length), body)
}

/** Reads elements one after the other. */
export class Reader {
  /** @param {Uint8Array} bytes */
  constructor (bytes) {
    this.bytes = bytes
    this.at = 0
  }

  get isEmpty () {
    return this.at === this.bytes.length
  }

  /** The tag of the next element, 0 at the end. */
  get tag () {
    return this.bytes[this.at] ?? 0
  }

  /**
   * Reads the next element.
   *
   * @param {number} [tag] that it must have
   * @returns {{ tag: number, body: Uint8Array, whole: Uint8Array }}
   */
  next (tag = this.tag) {
    const { bytes, at } = this
    check(bytes.length >= at + 2 && bytes[at] === tag && (tag & 0x1f) !== 0x1f, malformed, 'unexpected DER')
    let from = at + 2
    let length = bytes[at + 1]
    if (length >= 0x80) {
      const digits = length & 0x7f
      check(digits >= 1 && digits <= 2 && bytes.length >= from + digits, malformed, 'a DER length')
      length = digits === 1 ? bytes[from] : (bytes[from] << 8) | bytes[from + 1]
      check(length >= (digits === 1 ? 0x80 : 0x100), malformed, 'a DER length is not the shortest')
      from += digits
    }
    check(bytes.length >= from + length, malformed, 'DER that is cut short')
    this.at = from + length
    return { tag, body: bytes.subarray(from, this.at), whole: bytes.subarray(at, this.at) }
  }

  /** Opens the next element. @param {number} tag */
  inside (tag) {
    return new Reader(this.next(tag).body)
  }

  /** Checks that nothing is left. */
  end () {
    check(this.isEmpty, malformed, 'something follows in DER')
  }
}
