import { check } from './errors.js'

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true })

/** Encodes text as UTF-8. @param {string} text */
export const utf8 = (text) => encoder.encode(text)

/**
 * Decodes UTF-8.
 *
 * @param {Uint8Array} bytes
 * @throws {CausewayError} `malformed` where it is not well-formed
 */
export function fromUtf8 (bytes) {
  try {
    return decoder.decode(bytes)
  } catch {
    return check(false, 'malformed', 'text that is not UTF-8')
  }
}

/** Joins byte strings. @param {...Uint8Array} parts */
export function concat (...parts) {
  const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** Says whether two byte strings are the same. @param {Uint8Array} a @param {Uint8Array} b */
export const equal = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at])

/** Orders byte strings. @param {Uint8Array} a @param {Uint8Array} b */
export function compare (a, b) {
  for (let at = 0; at < Math.min(a.length, b.length); at++) {
    if (a[at] !== b[at]) return a[at] - b[at]
  }
  return a.length - b.length
}

/** Writes bytes as hexadecimal digits. @param {Uint8Array} bytes */
export const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

/** Draws random bytes from the cryptographic source of the platform. @param {number} length */
export const random = (length) => globalThis.crypto.getRandomValues(new Uint8Array(length))

/** The SHA-256 of bytes. @param {Uint8Array} bytes */
export const sha256 = async (bytes) => new Uint8Array(await globalThis.crypto.subtle.digest('SHA-256', bytes))

/**
 * Returns the contents of every PEM block (RFC 7468) with a label, in order.
 *
 * @param {string} pem at most 1 MiB
 * @param {string} label
 */
export function fromPem (pem, label) {
  check(pem.length <= 1 << 20, 'identity_oversize', 'the PEM file is longer than 1 MiB')
  const blocks = []
  for (const [, name, body] of pem.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----([^-]*)-----END \1-----/g)) {
    if (name !== label) continue
    let text
    try {
      text = atob(body.replace(/\s/g, ''))
    } catch {
      check(false, 'identity_malformed', `a PEM block \`${label}\` is not base64`)
    }
    blocks.push(Uint8Array.from(text, (letter) => letter.charCodeAt(0)))
  }
  return blocks
}

/** Returns the contents of the first PEM block with a label. @param {string} pem @param {string} label */
export function firstPem (pem, label) {
  const [first] = fromPem(pem, label)
  check(first, 'pem_missing', `the file holds no PEM block \`${label}\``)
  return first
}

/** Writes one PEM block. @param {string} label @param {Uint8Array} bytes */
export function toPem (label, bytes) {
  const text = btoa(String.fromCharCode(...bytes)).replace(/.{64}(?=.)/g, '$&\n')
  return `-----BEGIN ${label}-----\n${text}\n-----END ${label}-----\n`
}
