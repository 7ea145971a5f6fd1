// Frames of `/causeway/call/1`: an unsigned LEB128 length, then that many bytes of a CBOR map.
import * as addresses from './address.js'
import { concat, utf8 } from './bytes.js'
import * as cbor from './cbor.js'
import { CausewayError, check } from './errors.js'

/** The name under which the call protocol is negotiated. */
export const CALL_PROTOCOL = '/causeway/call/1'
/** Longest frame without its length, in bytes. */
export const MAX_FRAME = 16 * 1024
/** Longest session description, free text and certificate, in bytes; longest digit in milliseconds. */
export const MAX_MEDIA = 8 * 1024
export const MAX_TEXT = 512
const MAX_CERTIFICATE = 6 * 1024
const MAX_SIGNATURE = 256
export const MAX_DTMF_MS = 6000

const KINDS = ['invite', 'trying', 'ringing', 'progress', 'answer', 'candidate', 'update', 'dtmf', 'refer',
  'message', 'bye', 'cancel', 'reject', 'ping', 'ack', 'resume', 'connected']
/** How a request was taken. */
export const Ack = Object.freeze({ ok: 0, notSupported: 1, misplaced: 2, resumed: 3, resumeRefused: 4 })
/** The events of RFC 4733 3.2 in the order of their codes. */
const DIGITS = '0123456789*#ABCD'

/** Says whether a digit can be sent. @param {string} digit */
export const isDigit = (digit) => digit.length === 1 && DIGITS.includes(digit)

// What each field of the map is: its key, its type, and the longest it may be in bytes.
const FIELDS = {
  call: [2, 'bytes', 16],
  certificate: [3, 'bytes', MAX_CERTIFICATE],
  from: [4, 'text', 64],
  displayName: [5, 'text', 128],
  private: [6, 'bool'],
  to: [7, 'text', 64],
  media: [8, 'text', MAX_MEDIA],
  nonce: [9, 'bytes', 16],
  expires: [10, 'u64'],
  signature: [11, 'bytes', MAX_SIGNATURE],
  token: [12, 'bytes', 16],
  cause: [13, 'u8'],
  sipStatus: [14, 'u16'],
  text: [15, 'text', MAX_TEXT],
  hold: [16, 'bool'],
  digit: [17, 'u8'],
  durationMs: [18, 'u16'],
  answeredElsewhere: [19, 'bool'],
  code: [20, 'u16'],
  received: [21, 'u32'],
  candidate: [22, 'text', MAX_TEXT]
}
// What a frame holds: fields that it needs, and fields that it may have, with what their absence means.
const PARTY = { from: undefined, displayName: undefined, private: false }
const SHAPES = {
  invite: [['call', 'certificate', 'to', 'media', 'nonce', 'expires', 'signature', 'token'], PARTY],
  trying: [[], {}],
  ringing: [[], {}],
  progress: [['media'], {}],
  answer: [['media'], {}],
  candidate: [['candidate'], {}],
  update: [['hold'], {}],
  dtmf: [['digit', 'durationMs'], {}],
  refer: [['to'], {}],
  message: [[], { text: '' }],
  bye: [['cause'], { text: '' }],
  cancel: [[], { answeredElsewhere: false }],
  reject: [['cause'], { sipStatus: undefined, text: '' }],
  ping: [[], {}],
  ack: [['received'], { code: 0, token: undefined }],
  resume: [['call', 'token', 'received'], {}],
  connected: [[], PARTY]
}

/**
 * One frame: `type` says what it is, `sequence` numbers requests from 1 (`ack` and `resume` have 0),
 * the rest are its fields.
 *
 * @typedef {{ type: string, sequence: number } & Record<string, any>} Frame
 */

/**
 * Writes a frame with its length in front.
 *
 * @param {Frame} frame
 * @returns {Uint8Array}
 */
export function encodeFrame (frame) {
  const [needed, optional] = SHAPES[frame.type]
  const entries = [[0, KINDS.indexOf(frame.type) + 1], [1, frame.sequence || undefined]]
  for (const name of needed) entries.push([FIELDS[name][0], wire(name, frame[name])])
  for (const [name, absent] of Object.entries(optional)) {
    const value = frame[name]
    entries.push([FIELDS[name][0], value === absent ? undefined : value])
  }
  const body = cbor.encodeMap(entries.sort(([a], [b]) => a - b))
  check(body.length <= MAX_FRAME, 'too_long', 'the frame is longer than 16 KiB')
  const length = []
  let rest = body.length
  for (; rest >= 0x80; rest >>= 7) length.push((rest & 0x7f) | 0x80)
  return concat(Uint8Array.of(...length, rest), body)
}

const wire = (name, value) => (name === 'digit' ? DIGITS.indexOf(value) : value)

/** Reads the CBOR map of one frame, without its length. @param {Uint8Array} bytes @returns {Frame} */
export function decodeFrame (bytes) {
  const map = cbor.decode('the frame', bytes, MAX_FRAME, 'bad_cbor')
  check(map instanceof Map, 'bad_cbor', 'the frame is not a map')
  const kind = read(() => cbor.field(map.get(0), 'u16', 'kind'), 'bad_cbor')
  const sequence = map.has(1) ? read(() => cbor.field(map.get(1), 'u32', 'sequence'), 'bad_cbor') : 0
  const type = KINDS[kind - 1] ?? 'unknown'
  const frame = { type, sequence }
  if (type === 'unknown') frame.kind = kind
  const [needed, optional] = SHAPES[type] ?? [[], {}]
  for (const name of needed) {
    check(map.has(FIELDS[name][0]), 'missing_field', `the field ${name} is missing`)
    frame[name] = readField(map, name)
  }
  for (const [name, absent] of Object.entries(optional)) {
    frame[name] = map.has(FIELDS[name][0]) ? readField(map, name) : absent
  }
  checkValues(frame)
  check(sequence > 0 || type === 'ack' || type === 'resume', 'missing_field', 'the field sequence is missing')
  return frame
}

function read (act, reason) {
  try {
    return act()
  } catch (error) {
    throw new CausewayError(reason, error.message)
  }
}

function readField (map, name) {
  const [key, type, limit] = FIELDS[name]
  const value = read(() => cbor.field(map.get(key), type, name), 'bad_cbor')
  if (limit !== undefined) {
    const length = type === 'text' ? utf8(value).length : value.length
    check(length <= limit, 'field_too_long', `the field ${name} is too long`)
  }
  return type === 'u64' ? Number(value) : value
}

function checkValues (frame) {
  const bad = (condition, name) => check(condition, 'bad_field', `the field ${name} has no valid value`)
  for (const name of ['call', 'nonce', 'token']) bad(frame[name] === undefined || frame[name].length === 16, name)
  for (const name of ['from', 'to']) {
    if (frame[name] !== undefined) frame[name] = read(() => addresses.address(frame[name]), 'bad_field')
  }
  if (frame.displayName !== undefined) bad(addresses.cleanName(frame.displayName) === frame.displayName, 'display_name')
  if (frame.cause !== undefined) bad(frame.cause >= 1 && frame.cause <= 127, 'cause')
  if (frame.sipStatus !== undefined) bad(frame.sipStatus >= 300 && frame.sipStatus < 700, 'sip_status')
  if (frame.durationMs !== undefined) bad(frame.durationMs <= MAX_DTMF_MS, 'duration_ms')
  if (frame.digit !== undefined) {
    bad(frame.digit < DIGITS.length, 'digit')
    frame.digit = DIGITS[frame.digit]
  }
}

/** Cuts a byte stream into frames, however the stream was split. Holds at most one frame. */
export class FrameDecoder {
  #length = 0
  #digits = 0
  #wanted = -1
  #parts = []
  #have = 0

  /**
   * Takes bytes and hands each complete frame on, in order. Stops where `take` returns false: a
   * stream that is refused is not read on.
   *
   * @param {Uint8Array} bytes
   * @param {(frame: Frame) => boolean | void} take
   * @returns {number} bytes that were taken
   * @throws {CausewayError} where the stream is malformed: close it
   */
  feed (bytes, take) {
    let at = 0
    while (at < bytes.length) {
      if (this.#wanted < 0) {
        this.#readLength(bytes[at++])
        if (this.#wanted !== 0) continue
      }
      const part = bytes.subarray(at, at + this.#wanted - this.#have)
      this.#parts.push(Uint8Array.from(part))
      this.#have += part.length
      at += part.length
      if (this.#have < this.#wanted) return at
      const body = concat(...this.#parts)
      this.#length = this.#digits = this.#have = 0
      this.#wanted = -1
      this.#parts = []
      if (take(decodeFrame(body)) === false) return at
    }
    return at
  }

  #readLength (byte) {
    this.#length |= (byte & 0x7f) << (7 * this.#digits++)
    if (byte & 0x80) {
      check(this.#digits < 3, 'bad_varint', 'the length of the frame is malformed')
      return
    }
    // Only the shortest form of a length is valid: a last byte of 0 adds nothing.
    check(byte !== 0 || this.#digits === 1, 'bad_varint', 'the length of the frame is malformed')
    check(this.#length <= MAX_FRAME, 'too_long', 'the frame is longer than 16 KiB')
    this.#wanted = this.#length
  }
}
