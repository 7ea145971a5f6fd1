// The overlay's CBOR (RFC 8949): maps with small numbers as keys in ascending order, definite
// lengths, shortest numbers (4.2.1).
import { decode as read, encode as write } from 'cborg'
import { equal } from './bytes.js'
import { check } from './errors.js'

const STRICT = {
  strict: true,
  useMaps: true,
  rejectDuplicateMapKeys: true,
  allowIndefinite: false,
  allowUndefined: false,
  allowInfinity: false,
  allowNaN: false
}

/**
 * Writes a value: numbers, bigints, text, bytes, booleans, null, arrays, and Maps.
 *
 * @param {unknown} value
 * @returns {Uint8Array}
 */
export const encode = (value) => Uint8Array.from(write(value))

/**
 * Writes a map without the entries that are `undefined`.
 *
 * @param {Array<[number, unknown]>} entries
 */
export const encodeMap = (entries) => encode(new Map(entries.filter(([, value]) => value !== undefined)))

/**
 * Reads one value that fills the bytes.
 *
 * @param {string} what is read, for the message
 * @param {Uint8Array} bytes
 * @param {number} limit in bytes
 * @param {string} [reason] of the error
 * @returns {any}
 */
export function decode (what, bytes, limit, reason = 'malformed') {
  check(bytes.length <= limit, reason, `${what} is longer than ${limit} bytes`)
  try {
    return read(bytes, STRICT)
  } catch (error) {
    return check(false, reason, `${what}: ${error.message}`)
  }
}

/**
 * Reads as `decode` does, and refuses every encoding but the one that `encode` writes: two
 * spellings of one record would pass for two records.
 *
 * @param {string} what
 * @param {Uint8Array} bytes
 * @param {number} limit
 * @param {string} [reason]
 */
export function decodeExact (what, bytes, limit, reason = 'malformed') {
  const value = decode(what, bytes, limit, reason)
  check(equal(encode(value), bytes), reason, `${what} is not in its shortest form`)
  return value
}

const isBytes = (value) => value instanceof Uint8Array

/**
 * Checks the type of a field and returns it. Types: `u64` (returned as bigint), `u32`, `u8`, `text`,
 * `bytes`, `bool`, `list`, `map`.
 *
 * @param {any} value
 * @param {string} type
 * @param {string} what
 */
export function field (value, type, what) {
  const whole = typeof value === 'bigint' || Number.isSafeInteger(value)
  switch (type) {
    case 'u64':
      if (whole && value >= 0 && BigInt(value) < 1n << 64n) return BigInt(value)
      break
    case 'u32':
    case 'u16':
    case 'u8':
      if (whole && value >= 0 && value < 2 ** Number(type.slice(1))) return Number(value)
      break
    case 'text':
      if (typeof value === 'string') return value
      break
    case 'bytes':
      if (isBytes(value)) return value
      break
    case 'bool':
      if (typeof value === 'boolean') return value
      break
    case 'list':
      if (Array.isArray(value)) return value
      break
    case 'map':
      if (value instanceof Map) return value
      break
  }
  return check(false, 'malformed', `${what} is malformed`)
}
