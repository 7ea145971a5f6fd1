import * as addresses from './address.js'
import { toHex } from './bytes.js'
import { CausewayError } from './errors.js'
import { makeInvite } from './invite.js'
import { Leg } from './leg.js'
import { CallSession, Cause } from './session.js'

/** Which of several refusals a caller hears: what the user said before what the network did. */
const TELLING = [Cause.busy, Cause.rejected, Cause.noAnswer]
/** Causes after which another gateway is tried, as long as nobody is alerted. */
const REPLACEABLE = [Cause.noUserResponding, Cause.destinationOutOfOrder, Cause.networkOutOfOrder,
  Cause.temporaryFailure, Cause.congestion, 34]

/**
 * A call, of either direction. Events, each with a `detail`: `trying`, `ringing`, `early`,
 * `answered`, `active` (media is up), `hold` (`on`), `dtmf` (`digit`, `durationMs`), `message`
 * (`text`), `connected` (`from`, `displayName`), and at last exactly one `ended` (`cause` of Q.850,
 * `sipStatus`, `text`, `by`).
 */
export class Call extends EventTarget {
  /** @type {'dialling' | 'incoming' | 'trying' | 'ringing' | 'early' | 'answered' | 'active' | 'ended'} */
  state
  #id
  /** @type {Leg[]} */
  #legs = []
  /** @type {Leg | undefined} */
  #winner
  #outcomes = []
  #outcome
  #searching = false
  #described
  #connected = false

  /**
   * @param {object} parts
   * @param {Uint8Array} parts.id
   * @param {'out' | 'in'} parts.direction
   * @param {string} parts.to
   * @param {any} parts.from
   * @param {import('./media.js').Media} parts.media
   */
  constructor ({ id, direction, to, from, media }) {
    super()
    this.#id = id
    this.direction = direction
    this.to = to
    /** Who calls: `address`, `displayName`, `private`, `role`, `peer`. */
    this.from = from
    this.media = media
    this.state = direction === 'out' ? 'dialling' : 'incoming'
  }

  /** The id of the call as both ends and the gateway's records have it: 32 hexadecimal digits. */
  get id () {
    return toHex(this.#id)
  }

  get hasEnded () {
    return this.state === 'ended'
  }

  /** Whether the other side knows, or can no longer be told, that the call has ended. */
  get isFinished () {
    return this.hasEnded && this.#legs.every(({ session }) => session.state === 'done')
  }

  /** Resolves with the details of `ended`. */
  get ended () {
    return new Promise((resolve) => {
      if (this.hasEnded) resolve(this.#outcome)
      else this.addEventListener('ended', ({ detail }) => resolve(detail), { once: true })
    })
  }

  /** Callee: tells the caller that the user is being alerted. */
  ring () {
    this.#command({ type: 'ringing' })
  }

  /** Callee: answers. Media is set up first. */
  async answer () {
    const media = await this.#describe(() => this.media.createAnswer(this.offer))
    this.#command({ type: 'answer', media })
    this.#enter('answered')
    if (this.#connected) this.#mediaUp()
  }

  /** Callee: refuses. @param {{ cause?: number, text?: string }} [why] */
  reject ({ cause = Cause.rejected, text = '' } = {}) {
    this.#command({ type: 'reject', cause, text, sipStatus: cause === Cause.busy ? 486 : undefined })
  }

  /** Ends the call, whatever its state. @param {{ cause?: number, text?: string }} [why] */
  hangUp ({ cause = Cause.normal, text = '' } = {}) {
    if (this.hasEnded) return
    const alive = this.#legs.filter(({ session }) => !session.hasEnded)
    this.#searching = false
    for (const leg of alive) leg.command({ type: 'bye', cause, text })
    if (alive.length === 0) this.#end({ cause, sipStatus: 487, text, by: 'local' })
  }

  /** Holds the other side, or takes it back. @param {boolean} on */
  hold (on) {
    this.#command({ type: 'update', hold: on })
    this.media.hold?.(on)
  }

  /**
   * Sends a digit: in media (RFC 4733) where the other side takes it there.
   *
   * @param {string} digit one of `0-9 * # A-D`
   * @param {number} [durationMs]
   */
  sendDigit (digit, durationMs = 160) {
    if (this.media.sendDigit?.(digit, durationMs)) return
    this.#command({ type: 'dtmf', digit, durationMs })
  }

  /** Sends text to the other user. @param {string} text at most 512 bytes */
  sendText (text) {
    this.#command({ type: 'message', text })
  }

  /** Drops what is left of the call: the client leaves. */
  dispose () {
    for (const leg of this.#legs) leg.dispose()
  }

  #command (command) {
    const leg = this.#winner ?? this.#legs[0]
    if (this.hasEnded || !leg) throw new CausewayError('state', `${command.type} has no place in the state ${this.state}`)
    leg.command(command)
  }

  async #describe (act) {
    this.media.onconnected = () => {
      this.#connected = true
      this.#mediaUp()
    }
    this.media.onfailed = (text) => this.hangUp({ cause: Cause.bearerNotAvailable, text })
    this.media.oncandidate = (candidate) => {
      const reached = this.#legs.filter(({ session }) => session.acknowledged && !session.hasEnded)
      for (const leg of reached) leg.command({ type: 'candidate', candidate })
    }
    return await act()
  }

  #mediaUp () {
    const leg = this.#winner ?? this.#legs[0]
    if (!leg || leg.session.hasEnded) return
    leg.command({ type: 'mediaUp' })
    if (leg.session.isAnswered) this.#enter('active')
  }

  /**
   * Places the call: finds whom it is for, and rings every device, or one gateway after the other.
   *
   * @param {{ identity: import('./identity.js').Identity, node: import('./node.js').OverlayNode }} client
   * @param {{ displayName?: string, private?: boolean, callAs?: string, ringMs?: number }} options
   */
  async place ({ identity, node }, { displayName, private: hidden, callAs, ringMs }) {
    this.#searching = true
    try {
      const search = addresses.isNumber(this.to) ? findForNumber(node, this.to) : findForHandle(node, this.to)
      const [found, media] = await Promise.all([search, this.#describe(() => this.media.createOffer())])
      if (this.hasEnded) return
      const reach = async ({ peer, where }) => {
        const invite = await makeInvite(identity, { call: this.#id, to: this.to, media, from: callAs, displayName, private: hidden })
        const stream = await node.openCall(peer, where)
        if (this.hasEnded || this.#winner) return stream.abort()
        const session = CallSession.outgoing(invite, { ringing: ringMs }, Date.now())
        const settled = Promise.withResolvers()
        const leg = new Leg(session, (event) => this.#onEvent(leg, event, settled), () => node.openCall(peer, where))
        this.#legs.push(leg)
        leg.attach(stream)
        return await settled.promise
      }
      if (found.gateways) await this.#oneByOne(found.gateways, reach)
      else await this.#allAtOnce(found.devices, reach)
    } catch (error) {
      const unknown = error.reason === 'not_found'
      this.#outcomes.push({ cause: unknown ? 1 : Cause.temporaryFailure, sipStatus: unknown ? 404 : 480, text: error.message, by: 'local' })
    }
    this.#searching = false
    this.#conclude()
  }

  async #oneByOne (gateways, reach) {
    for (const gateway of gateways) {
      const outcome = await reach(gateway).catch((error) => this.#unreached(error))
      // One that has alerted the user, or has refused for good, is the last.
      if (this.hasEnded || !outcome || !REPLACEABLE.includes(outcome.cause)) return
    }
  }

  async #allAtOnce (devices, reach) {
    await Promise.all(devices.map((device) => reach(device).catch((error) => this.#unreached(error))))
  }

  #unreached (error) {
    const outcome = { cause: Cause.destinationOutOfOrder, sipStatus: 480, text: error.message, by: 'local' }
    this.#outcomes.push(outcome)
    return outcome
  }

  /**
   * Takes a call that has come in.
   *
   * @param {CallSession} session
   * @param {import('./channel.js').Channel} stream
   * @param {Uint8Array} rest bytes of the stream after the invite
   * @param {string} offer SDP
   */
  take (session, stream, rest, offer) {
    this.offer = offer
    const leg = new Leg(session, (event) => this.#onEvent(leg, event))
    this.#legs.push(leg)
    this.#winner = leg
    leg.attach(stream, rest)
  }

  /** Puts a call that has come in on another stream. Says whether the stream carries it now. */
  reattach (frame, stream, rest) {
    const [leg] = this.#legs
    if (!leg?.session.reattach(Date.now(), frame)) return false
    leg.attach(stream, rest)
    return true
  }

  #onEvent (leg, event, settled) {
    const { type, ...detail } = event
    const other = this.#winner && this.#winner !== leg
    switch (type) {
      case 'trying':
        if (!other) this.#enter('trying')
        return
      case 'ringing':
        settled?.resolve(undefined)
        if (!other) this.#enter('ringing')
        return
      case 'progress':
        settled?.resolve(undefined)
        if (other) return
        this.#accept(leg, detail.media)
        this.#enter('early')
        return
      case 'answered':
        settled?.resolve(undefined)
        return this.#onAnswered(leg, detail.media)
      case 'candidate':
        this.media.addCandidate?.(detail.candidate)
        return
      case 'ended':
        settled?.resolve(detail)
        this.#outcomes.push(detail)
        if (this.#winner === leg) this.#end(detail)
        else this.#conclude()
        return
      default:
        if (!other) this.#tell(type, detail)
    }
  }

  /** The first device to answer has the call; the others are told so. */
  #onAnswered (leg, media) {
    if (this.#winner && this.#winner !== leg) {
      leg.command({ type: 'bye', cause: Cause.answeredElsewhere, text: 'answered elsewhere' })
      return
    }
    this.#winner = leg
    for (const other of this.#legs) {
      if (other !== leg && !other.session.hasEnded) other.command({ type: 'cancel', answeredElsewhere: true })
    }
    this.#accept(leg, media)
    this.#enter('answered')
    if (this.#connected) this.#mediaUp()
  }

  /** Early media and the answer bring the same description; the first that comes is taken. */
  #accept (leg, media) {
    if (this.#described) return
    this.#described = leg
    Promise.resolve(this.media.acceptAnswer(media)).catch((error) =>
      this.hangUp({ cause: Cause.bearerNotAvailable, text: `the answer was not accepted: ${error.message}`.slice(0, 200) }))
  }

  #enter (state) {
    const order = ['dialling', 'incoming', 'trying', 'ringing', 'early', 'answered', 'active', 'ended']
    if (order.indexOf(state) <= order.indexOf(this.state)) return
    this.state = state
    this.#tell(state, state === 'ended' ? this.#outcome : {})
  }

  #tell (type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }))
  }

  /** Ends the call once nobody can answer it any more. */
  #conclude () {
    if (this.hasEnded || this.#searching || this.#winner) return
    if (this.#legs.some(({ session }) => !session.hasEnded)) return
    const telling = TELLING.map((cause) => this.#outcomes.find((outcome) => outcome.cause === cause)).find(Boolean)
    this.#end(telling ?? this.#outcomes.at(-1) ?? { cause: Cause.destinationOutOfOrder, sipStatus: 480, text: 'not reachable', by: 'local' })
  }

  #end (detail) {
    if (this.hasEnded) return
    this.#outcome = detail
    this.media.close()
    this.#enter('ended')
  }
}

async function findForHandle (node, handle) {
  const location = await node.findLocation(handle)
  if (!location) throw new CausewayError('not_found', `${handle} is not in the overlay now`)
  const others = location.devices.filter(({ peer }) => peer !== node.peerId)
  return { devices: others.map(({ peer, addresses: where }) => ({ peer, where })) }
}

/** A number of an overlay user rings that user; any other is called through a gateway. */
async function findForNumber (node, number) {
  const offers = node.findOffers(number)
  // It may fail while the number is still looked up.
  offers.catch(() => {})
  const record = await node.findNumber(number)
  if (record) return await findForHandle(node, record.handle)
  const gateways = (await offers).map(({ peer, addresses: where }) => ({ peer, where }))
  if (gateways.length === 0) throw new CausewayError('not_found', `no gateway takes calls to ${number}`)
  return { gateways }
}
