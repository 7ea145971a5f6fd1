// One call with one remote device, in either role. No clock and no socket: `now` in milliseconds is
// an argument, bytes go in by `handleBytes` and come out of `transmit`, and what happens is in
// `events`. See the state machine of the reference implementation, p2p-edge/src/calling/session.
import { equal, utf8 } from './bytes.js'
import { CausewayError, check } from './errors.js'
import { Ack, FrameDecoder, MAX_DTMF_MS, MAX_MEDIA, MAX_TEXT, encodeFrame, isDigit } from './frame.js'

/** The states of a call in their order. */
export const STATES = ['idle', 'inviting', 'trying', 'ringing', 'early', 'answered', 'active', 'held', 'ending', 'done']

/** How long a session waits, in milliseconds. */
export const TIMERS = Object.freeze({
  /** For the acknowledgement of the invite. */
  acknowledge: 4_000,
  /** For the answer; at most 180 s. The callee waits `margin` longer, so that the caller gives up. */
  ringing: 120_000,
  margin: 5_000,
  /** For media, from the answer on. */
  media: 8_000,
  /** For another stream when the one of an answered call, or of an unanswered one, is lost. */
  resume: 20_000,
  resumeUnanswered: 6_000,
  /** For the acknowledgement of any later request, and of the one that ends the call. */
  request: 10_000,
  ending: 4_000,
  /** Of silence before a ping, and before the call counts as lost. */
  ping: 300_000,
  liveness: 900_000
})

/** Causes of Q.850 that this side gives. */
export const Cause = Object.freeze({
  normal: 16,
  busy: 17,
  noUserResponding: 18,
  noAnswer: 19,
  rejected: 21,
  answeredElsewhere: 26,
  destinationOutOfOrder: 27,
  networkOutOfOrder: 38,
  temporaryFailure: 41,
  congestion: 42,
  bearerNotAvailable: 58,
  timerExpiry: 102,
  protocolError: 111
})

const MAX_UNACKNOWLEDGED = 64
const MAX_EVENTS = 1024
// Frames that may come at once, and milliseconds for one more.
const BURST = 200
const REFILL_MS = 20

/**
 * One call with one device.
 *
 * Events: `{ type }` is `trying`, `ringing`, `progress` (media), `answered` (media), `hold` (on),
 * `dtmf` (digit, durationMs), `message` (text), `connected` (from, displayName, private), `candidate`
 * (candidate), `not_supported` (request), and at last exactly one `ended` (cause, sipStatus, text,
 * by: far, local, timeout or lost).
 */
export class CallSession {
  transmit = []
  events = []
  state = 'idle'
  mediaUp = false
  localHold = false
  remoteHold = false
  acknowledged = false
  resumable = false
  attached = true
  #resuming = false
  #decoder = new FrameDecoder()
  #next = 1
  #received = 0
  #waiting = []
  #deadlines = {}
  #budget = BURST
  #filled

  constructor (role, invite, timers, now) {
    this.role = role
    this.call = invite.call
    this.token = invite.token
    this.timers = { ...TIMERS, ...timers }
    this.#filled = now
    this.#deadlines = { ping: now + this.timers.ping, liveness: now + this.timers.liveness }
  }

  /**
   * Starts a call on a stream that is open, and queues the invite.
   *
   * @param {Record<string, any>} invite with `call` and `token`, 16 random bytes each
   * @param {Partial<typeof TIMERS>} timers
   * @param {number} now
   */
  static outgoing (invite, timers, now) {
    const session = new CallSession('caller', invite, timers, now)
    session.state = 'inviting'
    session.#deadlines.acknowledge = now + session.timers.acknowledge
    session.#deadlines.ringing = now + session.timers.ringing
    session.#request(now, { type: 'invite', ...invite })
    return session
  }

  /**
   * Takes a call from the first frame of a stream that another device has opened.
   *
   * @param {import('./frame.js').Frame} frame
   * @param {Partial<typeof TIMERS>} timers
   * @param {number} now
   */
  static incoming (frame, timers, now) {
    check(frame.type === 'invite' && frame.sequence === 1, 'not_an_invite', 'an invite is expected')
    const session = new CallSession('callee', frame, timers, now)
    session.state = 'inviting'
    session.acknowledged = session.resumable = true
    session.#received = 1
    session.#deadlines.ringing = now + session.timers.ringing + session.timers.margin
    session.#acknowledge(Ack.ok, frame.token)
    return session
  }

  get isAnswered () {
    return this.state === 'answered' || this.state === 'active' || this.state === 'held'
  }

  get hasEnded () {
    return this.state === 'ending' || this.state === 'done'
  }

  /** Whether nothing is left to do or to read. */
  get isFinished () {
    return this.state === 'done' && this.transmit.length === 0 && this.events.length === 0
  }

  /** Whether the caller's driver should open a new stream to the same device and call `resume`. */
  get wantsResume () {
    return this.role === 'caller' && !this.attached && this.state !== 'done'
  }

  /**
   * Carries out what the user of the call wants: `{ type }` is `trying`, `ringing`, `progress`,
   * `answer`, `candidate`, `update`, `dtmf`, `refer`, `message`, with the fields of the frame; or
   * `mediaUp`; or `bye`, `cancel`, `reject`, which become the frame that the state asks for.
   *
   * @param {number} now
   * @param {{ type: string } & Record<string, any>} command
   * @throws {CausewayError} `ended`, `state`, `congested` or `bad_field`; nothing is sent then
   */
  handleCommand (now, command) {
    const { type } = command
    check(!this.hasEnded, 'ended', 'the call has ended')
    checkCommand(command)
    if (type === 'bye' || type === 'cancel' || type === 'reject') return this.#end(now, command)
    check(this.#waiting.length < MAX_UNACKNOWLEDGED, 'congested', 'the other side does not acknowledge')
    const asked = this.role === 'callee' && !this.isAnswered
    const allowed = {
      trying: asked,
      ringing: asked,
      progress: asked,
      answer: asked,
      mediaUp: true,
      update: this.isAnswered,
      dtmf: this.isAnswered || this.state === 'early',
      refer: this.isAnswered,
      message: this.acknowledged,
      candidate: this.acknowledged
    }
    check(allowed[type], 'state', `${type} has no place in the state ${this.state}`)
    switch (type) {
      case 'mediaUp':
        this.mediaUp = true
        delete this.#deadlines.media
        this.#settle()
        return
      case 'trying':
        if (this.state !== 'inviting') return
        break
      case 'ringing':
        if (this.state !== 'inviting' && this.state !== 'trying') return
        break
      case 'update':
        if (this.localHold === command.hold) return
        this.localHold = command.hold
        break
    }
    this.#request(now, command)
    if (type === 'trying' || type === 'ringing') this.state = type
    else if (type === 'progress') this.state = 'early'
    else if (type === 'answer') this.#enterAnswered(now)
    else if (type === 'update') this.#settle()
  }

  /** Takes bytes of the stream, split in any way. @param {number} now @param {Uint8Array} bytes */
  handleBytes (now, bytes) {
    if (!this.attached || this.state === 'done') return
    try {
      this.#decoder.feed(bytes, (frame) => {
        check(this.events.length < MAX_EVENTS && this.#take(now), 'flood', 'too many frames in too short a time')
        this.#handleFrame(now, frame)
        return this.attached && this.state !== 'done'
      })
    } catch (error) {
      this.#refuse(now, error)
    }
  }

  /**
   * Takes note that the stream is lost. Media goes on: a call whose other side has agreed can be put
   * on another stream until a timer runs out; any other call ends.
   *
   * @param {number} now
   */
  handleClosed (now) {
    if (!this.attached) return
    this.attached = this.#resuming = false
    this.#decoder = new FrameDecoder()
    this.transmit = []
    delete this.#deadlines.request
    if (this.state === 'done') return
    if (this.state === 'ending') {
      if (!this.resumable || this.#waiting.length === 0) return this.#finish()
      this.#deadlines.ending = Math.max(this.#deadlines.ending, now + this.timers.resume)
    } else if (this.resumable) {
      this.#deadlines.resume ??= now + (this.isAnswered ? this.timers.resume : this.timers.resumeUnanswered)
    } else {
      this.#lose(this.acknowledged ? Cause.temporaryFailure : Cause.destinationOutOfOrder)
    }
  }

  /** Caller: puts the call on a new stream. @param {number} now */
  resume (now) {
    check(this.wantsResume, 'state', 'the stream of the call is not lost')
    this.attached = this.#resuming = true
    this.#deadlines.request = now + this.timers.request
    const { call, token } = this
    this.transmit.push(encodeFrame({ type: 'resume', sequence: 0, call, token, received: this.#received }))
  }

  /**
   * Callee: puts the call on a new stream whose first frame was `resume`.
   *
   * @param {number} now
   * @param {import('./frame.js').Frame} frame
   * @returns {boolean} whether the stream carries the call now
   */
  reattach (now, frame) {
    const fits = frame.type === 'resume' && this.role === 'callee' && this.state !== 'done' &&
      equal(frame.call, this.call) && equal(frame.token, this.token) && frame.received < this.#next
    if (!fits) return false
    this.transmit = []
    this.#decoder = new FrameDecoder()
    this.attached = true
    this.#heard(now)
    delete this.#deadlines.resume
    this.#acknowledge(Ack.resumed)
    this.#forget(now, frame.received)
    this.#sendAgain(now)
    if (this.state === 'ending') this.#deadlines.ending = now + this.timers.ending
    return true
  }

  /** When `handleTimeout` is due, or `undefined`. */
  get nextTimeout () {
    const times = Object.values(this.#deadlines)
    return times.length > 0 ? Math.min(...times) : undefined
  }

  /** Does what is due. @param {number} now */
  handleTimeout (now) {
    const due = (name) => this.#deadlines[name] <= now && delete this.#deadlines[name]
    if (due('ending')) return this.#finish()
    if (due('resume')) return this.#lose(Cause.networkOutOfOrder)
    const expire = (cause, text, sipStatus) => this.#end(now, { cause, text, sipStatus }, 'timeout')
    if (due('acknowledge')) expire(Cause.noUserResponding, 'the device did not respond', 408)
    else if (due('ringing')) expire(Cause.noAnswer, 'no answer', 480)
    else if (due('media')) expire(Cause.bearerNotAvailable, 'media did not come up after the answer')
    else if (due('liveness')) expire(Cause.timerExpiry, 'the other side fell silent')
    if (due('ping') && !this.hasEnded) {
      this.#deadlines.ping = now + this.timers.ping
      if (this.attached && this.#waiting.length === 0) this.#request(now, { type: 'ping' })
    }
    // The stream takes bytes and nothing comes back: it is as good as closed.
    if (due('request') && this.state !== 'ending') this.handleClosed(now)
  }

  #handleFrame (now, frame) {
    this.#heard(now)
    if (frame.type === 'ack') return this.#acked(now, frame)
    check(frame.type !== 'resume', 'not_an_invite', 'a stream is resumed at its beginning')
    check(!this.#resuming, 'sequence_gap', 'a frame before the stream was resumed')
    if (frame.sequence <= this.#received) return this.#acknowledge(Ack.ok)
    check(frame.sequence === this.#received + 1, 'sequence_gap', 'a frame of the sequence is missing')
    this.#received = frame.sequence
    const code = this.hasEnded ? this.#afterTheEnd(frame) : this.#apply(now, frame)
    this.#acknowledge(code)
  }

  #acked (now, { received, code, token }) {
    if (code === Ack.resumeRefused) {
      if (!this.#resuming) return
      return this.hasEnded ? this.#finish() : this.#lose(Cause.networkOutOfOrder)
    }
    if (received >= this.#next || (code === Ack.resumed) !== this.#resuming) return
    if (code === Ack.notSupported && !this.hasEnded) {
      const refused = this.#waiting.find(({ sequence, type }) => sequence === received && type === 'refer')
      if (refused) this.events.push({ type: 'not_supported', request: 'refer' })
    }
    if (this.#resuming) {
      this.#resuming = false
      delete this.#deadlines.resume
      this.#forget(now, received)
      return this.#sendAgain(now)
    }
    if (!this.acknowledged && received >= 1) {
      this.acknowledged = true
      delete this.#deadlines.acknowledge
      this.resumable = token !== undefined && equal(token, this.token)
    }
    this.#forget(now, received)
  }

  /** Both sides may end the call at once: the other's last word is the last of all. */
  #afterTheEnd ({ type }) {
    if (type === 'bye' || type === 'cancel' || type === 'reject') this.#finish()
    return Ack.ok
  }

  #apply (now, frame) {
    const { type } = frame
    const waits = this.role === 'caller' && !this.isAnswered
    const emit = (event) => void this.events.push(event)
    const reach = (state) => {
      if (STATES.indexOf(this.state) < STATES.indexOf(state)) this.state = state
    }
    switch (type) {
      case 'ping':
      case 'unknown':
        return Ack.ok
      case 'trying':
        if (!waits) return Ack.misplaced
        if (STATES.indexOf(this.state) < STATES.indexOf('trying')) emit({ type })
        reach('trying')
        return Ack.ok
      case 'ringing':
        if (!waits) return Ack.misplaced
        reach('ringing')
        emit({ type })
        return Ack.ok
      case 'progress':
        if (!waits) return Ack.misplaced
        this.state = 'early'
        emit({ type, media: frame.media })
        return Ack.ok
      case 'answer':
        if (!waits) return Ack.misplaced
        emit({ type: 'answered', media: frame.media })
        this.#enterAnswered(now)
        return Ack.ok
      case 'candidate':
        emit({ type, candidate: frame.candidate })
        return Ack.ok
      case 'update':
        if (!this.isAnswered) return Ack.misplaced
        if (this.remoteHold !== frame.hold) {
          this.remoteHold = frame.hold
          this.#settle()
          emit({ type: 'hold', on: frame.hold })
        }
        return Ack.ok
      case 'dtmf':
        if (!this.isAnswered && this.state !== 'early') return Ack.misplaced
        emit({ type, digit: frame.digit, durationMs: frame.durationMs })
        return Ack.ok
      case 'message':
        emit({ type, text: frame.text })
        return Ack.ok
      case 'connected':
        if (!this.isAnswered) return Ack.misplaced
        emit({ type, from: frame.from, displayName: frame.displayName, private: frame.private })
        return Ack.ok
      case 'refer':
        return Ack.notSupported
      case 'bye':
        return this.#endedByFar(frame.cause, undefined, frame.text)
      case 'cancel':
        // One that crossed the answer still ends the call.
        if (this.role !== 'callee') return Ack.misplaced
        return this.#endedByFar(...cancelled(frame.answeredElsewhere))
      case 'reject':
        if (this.role !== 'caller') return Ack.misplaced
        return this.#endedByFar(frame.cause, frame.sipStatus, frame.text)
      default:
        return Ack.misplaced
    }
  }

  #endedByFar (cause, sipStatus, text) {
    this.events.push({ type: 'ended', cause, sipStatus, text, by: 'far' })
    this.#finish()
    return Ack.ok
  }

  /** Ends the call from this side with the frame that role and state ask for. */
  #end (now, command, by = 'local') {
    let { cause = Cause.normal, sipStatus, text = '' } = command
    if (command.type === 'cancel') [cause, sipStatus, text] = cancelled(command.answeredElsewhere ?? false)
    check(command.type !== 'reject' || this.role === 'callee', 'state', 'only the callee rejects')
    if (this.isAnswered) this.#request(now, { type: 'bye', cause, text })
    else if (this.role === 'callee') this.#request(now, { type: 'reject', cause, sipStatus, text })
    else this.#request(now, { type: 'cancel', answeredElsewhere: cause === Cause.answeredElsewhere })
    this.events.push({ type: 'ended', cause, sipStatus, text, by })
    this.state = 'ending'
    const lostUntil = this.#deadlines.resume ?? 0
    this.#deadlines = { ending: Math.max(now + this.timers.ending, lostUntil) }
    if (!this.attached && !this.resumable) this.#finish()
  }

  /** Ends the call over a frame that cannot be understood; nothing more is read. */
  #refuse (now, error) {
    if (!(error instanceof CausewayError)) throw error
    if (!this.hasEnded) {
      const cause = error.reason === 'flood' ? Cause.congestion : Cause.protocolError
      this.#end(now, { cause, text: error.message })
    }
    this.#finish()
  }

  #lose (cause) {
    this.events.push({ type: 'ended', cause, sipStatus: undefined, text: 'the signalling connection was lost', by: 'lost' })
    this.#finish()
  }

  #finish () {
    this.state = 'done'
    this.#waiting = []
    this.#deadlines = {}
  }

  #enterAnswered (now) {
    delete this.#deadlines.ringing
    this.state = 'answered'
    if (!this.mediaUp) this.#deadlines.media = now + this.timers.media
    this.#settle()
  }

  #settle () {
    if (this.mediaUp && this.isAnswered) this.state = this.localHold || this.remoteHold ? 'held' : 'active'
  }

  #heard (now) {
    if (this.hasEnded) return
    this.#deadlines.ping = now + this.timers.ping
    this.#deadlines.liveness = now + this.timers.liveness
  }

  #request (now, frame) {
    const sequence = this.#next++
    const bytes = encodeFrame({ ...frame, sequence })
    if (this.attached && !this.#resuming) {
      this.transmit.push(bytes)
      this.#deadlines.request ??= now + this.timers.request
    }
    this.#waiting.push({ sequence, type: frame.type, bytes })
  }

  #acknowledge (code, token) {
    this.transmit.push(encodeFrame({ type: 'ack', sequence: 0, received: this.#received, code, token }))
  }

  #forget (now, received) {
    while (this.#waiting[0]?.sequence <= received) this.#waiting.shift()
    this.#expectAcknowledgement(now)
    if (this.#waiting.length === 0 && this.state === 'ending') this.#finish()
  }

  #sendAgain (now) {
    for (const { bytes } of this.#waiting) this.transmit.push(bytes)
    this.#expectAcknowledgement(now)
  }

  #expectAcknowledgement (now) {
    if (this.#waiting.length > 0 && this.attached) this.#deadlines.request = now + this.timers.request
    else delete this.#deadlines.request
  }

  /** A token bucket over received frames. */
  #take (now) {
    const gained = Math.floor((now - this.#filled) / REFILL_MS)
    if (gained > 0) {
      this.#budget = Math.min(BURST, this.#budget + gained)
      this.#filled += gained * REFILL_MS
    }
    return this.#budget-- > 0
  }
}

const cancelled = (elsewhere) =>
  elsewhere ? [Cause.answeredElsewhere, 487, 'answered elsewhere'] : [Cause.normal, 487, 'cancelled']

function checkCommand ({ media, text, candidate, digit, durationMs }) {
  const short = (value, limit) => value === undefined || utf8(value).length <= limit
  check(short(media, MAX_MEDIA), 'bad_field', 'the session description is too long')
  check(short(text, MAX_TEXT) && short(candidate, MAX_TEXT), 'bad_field', 'the text is too long')
  check(digit === undefined || isDigit(digit), 'bad_field', 'not a digit of a telephone')
  check(durationMs === undefined || (durationMs >= 0 && durationMs <= MAX_DTMF_MS), 'bad_field', 'too long a digit')
}
