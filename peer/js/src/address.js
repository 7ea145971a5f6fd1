import { check } from './errors.js'

/**
 * Reads an E.164 number: `+` and 2 to 15 digits. Separators (RFC 3966 5.1.1) are taken out.
 *
 * @param {string} text
 */
export function number (text) {
  const plain = text.replace(/[-.() ]/g, '')
  check(/^\+[1-9][0-9]{1,14}$/.test(plain), 'address', `${text} is not a telephone number`)
  return plain
}

/** Reads a handle: 1 to 32 of `a-z 0-9 . _ -`, beginning with a letter. @param {string} text */
export function handle (text) {
  check(/^[A-Za-z][A-Za-z0-9._-]{0,31}$/.test(text), 'address', `${text} is not the name of a user`)
  return text.toLowerCase()
}

/** Reads `+...` as a number and anything else as a handle. @param {string} text */
export const address = (text) => (isNumber(text) ? number(text) : handle(text))

/** Says whether an address is a telephone number. @param {string} text */
export const isNumber = (text) => text.startsWith('+')

/**
 * Cleans a display name: control characters go, 128 bytes of UTF-8 remain. Nothing left is
 * `undefined`.
 *
 * @param {string} raw
 */
export function cleanName (raw) {
  let clean = ''
  let length = 0
  for (const letter of raw.trim().replace(/\p{Cc}/gu, '')) {
    length += new TextEncoder().encode(letter).length
    if (length > 128) break
    clean += letter
  }
  return clean || undefined
}

/** The keys under which records are stored. */
export const recordKey = {
  /** @param {string} user */
  location: (user) => `/causeway/loc/${handle(user)}`,
  /** @param {string} telephone */
  number: (telephone) => `/causeway/num/${number(telephone)}`,
  /** @param {string} digits without `+` */
  gateway: (digits) => `/causeway/gw/+${digits}`
}
