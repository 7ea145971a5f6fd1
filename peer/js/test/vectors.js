// What the reference implementation has written: see p2p-edge/tests/vectors.
import { readFileSync } from 'node:fs'

const text = JSON.parse(readFileSync(new URL('vectors.json', import.meta.url), 'utf8'))

/** Reads hexadecimal digits. @param {string} hex */
export const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16))

/** Changes one bit of the byte at a place, from the end where it is negative. */
export function bent (original, at) {
  const copy = Uint8Array.from(original)
  copy[at < 0 ? copy.length + at : at] ^= 1
  return copy
}

export const vectors = text
export const NOW = Number(text.now)
/** A vector that is hexadecimal. @param {string} name */
export const vector = (name) => bytes(text[name])
