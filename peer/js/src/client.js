import * as addresses from './address.js'
import { toHex } from './bytes.js'
import { Call } from './call.js'
import { CausewayError, check } from './errors.js'
import { Ack, FrameDecoder, encodeFrame } from './frame.js'
import { unixNow } from './identity.js'
import { InviteVerifier, newCallId } from './invite.js'
import { BrowserMedia } from './media.js'
import { OverlayNode } from './node.js'
import { CallSession, Cause } from './session.js'

/** Calls at one time; one more is refused. */
const MAX_CALLS = 32
/** An inbound stream must say by then what it is for. */
const FIRST_FRAME_MS = 5_000
/** What the end of a call has to go out in when the client leaves. */
const LAST_WORDS_MS = 300

/**
 * An overlay user in a browser. Events: `online`, `offline` (`detail.reason`), `incoming`
 * (`detail.call`), `refused` (`detail.reason`) for a call that did not reach the user.
 */
export class CausewayClient extends EventTarget {
  #node
  #verifier = new InviteVerifier()
  /** Live calls, and ended ones whose last words are not acknowledged. @type {Map<string, Call>} */
  #calls = new Map()
  #createMedia

  /**
   * @param {object} options
   * @param {import('./identity.js').Identity} options.identity
   * @param {string[]} options.supernodes multiaddrs of supernodes or gateways, `/.../ws/p2p/PEER`;
   *   two or three of different operators
   * @param {boolean} [options.reachable] whether the user is to be called
   * @param {() => import('./media.js').Media} [options.createMedia] makes the media of a call; by default
   *   that of the browser, with the relays of the supernodes
   */
  constructor ({ identity, supernodes, reachable = true, createMedia }) {
    super()
    this.identity = identity
    this.#node = new OverlayNode(identity, { supernodes, reachable })
    this.#createMedia = createMedia ?? (() => new BrowserMedia({ iceServers: () => this.#node.iceServers() }))
    for (const type of ['online', 'offline']) {
      this.#node.addEventListener(type, ({ detail }) => this.dispatchEvent(new CustomEvent(type, { detail })))
    }
    this.#node.addEventListener('stream', ({ detail }) => {
      this.#onStream(detail).catch((error) => {
        detail.stream.abort()
        this.dispatchEvent(new CustomEvent('refused', { detail: { reason: error.reason ?? 'frame_invalid' } }))
      })
    })
  }

  /** The node, for look-ups. */
  get node () {
    return this.#node
  }

  get isOnline () {
    return this.#node.isOnline
  }

  /** The calls that have not ended. */
  get calls () {
    return [...this.#calls.values()].filter(({ hasEnded }) => !hasEnded)
  }

  /** Joins the overlay. Returns once a supernode is connected; where the user is to be called, `online` follows. */
  async start () {
    await this.#node.start()
  }

  /** Ends every call and leaves. */
  async stop () {
    const live = this.calls
    for (const call of live) call.hangUp()
    // The last words go out before the connections do.
    if (live.length > 0) await new Promise((resolve) => setTimeout(resolve, LAST_WORDS_MS))
    for (const call of this.#calls.values()) call.dispose()
    await this.#node.stop()
  }

  /**
   * Calls a number or a user.
   *
   * @param {string} to `+442079460600` or `bob`
   * @param {object} [options]
   * @param {import('./media.js').Media} [options.media]
   * @param {string} [options.displayName] the name to show
   * @param {boolean} [options.private] asks not to be shown
   * @param {string} [options.callAs] one of the own numbers
   * @param {number} [options.ringMs] how long to ring, at most 180 s
   * @returns {Call} what follows is told by its events
   */
  call (to, { media = this.#createMedia(), ...options } = {}) {
    check(this.calls.length < MAX_CALLS, 'call_limit', 'too many calls at once')
    const ringMs = Math.min(options.ringMs ?? 120_000, 180_000)
    const from = { address: this.identity.handle, role: 'user', private: false, peer: this.#node.peerId }
    const id = newCallId()
    const call = new Call({ id, direction: 'out', to: addresses.address(to), from, media })
    this.#keep(call)
    call.place({ identity: this.identity, node: this.#node }, { ...options, ringMs })
    return call
  }

  #keep (call) {
    for (const [id, { isFinished }] of this.#calls) {
      if (isFinished) this.#calls.delete(id)
    }
    this.#calls.set(call.id, call)
  }

  async #onStream ({ stream, peer }) {
    const { frame, rest } = await firstFrame(stream)
    if (frame.type === 'resume') {
      if (!this.#calls.get(toHex(frame.call))?.reattach(frame, stream, rest)) {
        stream.send(encodeFrame({ type: 'ack', sequence: 0, received: 0, code: Ack.resumeRefused }))
        await stream.close()
      }
      return
    }
    check(frame.type === 'invite' && frame.sequence === 1, 'not_an_invite')
    check(!this.#calls.has(toHex(frame.call)), 'call_replayed')
    const session = CallSession.incoming(frame, {}, Date.now())
    const { trust, revocations } = this.identity
    let from
    try {
      check(this.calls.length < MAX_CALLS, 'call_limit')
      from = await this.#verifier.verify(frame, peer, { trust, revocations, unix: unixNow() })
      this.#checkGlare(frame, from)
    } catch (error) {
      await refuse(session, stream, error)
      throw error
    }
    const call = new Call({ id: frame.call, direction: 'in', to: frame.to, from, media: this.#createMedia() })
    this.#keep(call)
    call.take(session, stream, rest, frame.media)
    if (call.hasEnded) return
    this.dispatchEvent(new CustomEvent('incoming', { detail: { call } }))
  }

  /** Two users who call each other at once get one call: that of the lower id. */
  #checkGlare (frame, from) {
    const own = this.calls.find(({ direction, to, state }) =>
      direction === 'out' && to === from.address && ['dialling', 'trying', 'ringing'].includes(state))
    if (!own) return
    check(own.id > toHex(frame.call), 'glare', 'the calls cross')
    own.hangUp()
  }
}

/** Reads what a stream is for. The bytes that follow the frame are handed back. */
async function firstFrame (stream) {
  const decoder = new FrameDecoder()
  const timer = setTimeout(() => stream.abort(), FIRST_FRAME_MS)
  try {
    for await (const bytes of stream) {
      let frame
      const taken = decoder.feed(bytes, (first) => {
        frame = first
        return false
      })
      if (frame) return { frame, rest: bytes.subarray(taken) }
    }
  } finally {
    clearTimeout(timer)
  }
  throw new CausewayError('frame_invalid', 'the stream ended before its first frame')
}

const STATUS = { call_limit: [Cause.congestion, 503], glare: [Cause.busy, 486] }

async function refuse (session, stream, error) {
  const [cause, sipStatus] = STATUS[error.reason] ?? [Cause.rejected, 403]
  session.handleCommand(Date.now(), { type: 'reject', cause, sipStatus, text: 'refused' })
  for (const bytes of session.transmit.splice(0)) stream.send(bytes)
  await stream.close()
}

