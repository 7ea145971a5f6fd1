// The client's node: a libp2p host that dials by WebSocket, proves itself to supernodes, asks them,
// and is reached through them.
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { peerIdFromMultihash, peerIdFromString } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { webSockets } from '@libp2p/websockets'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { decode } from 'multiformats/hashes/digest'
import * as addresses from './address.js'
import { concat } from './bytes.js'
import { Channel } from './channel.js'
import { NodeChain, decodeCredential } from './credential.js'
import { CausewayError, check } from './errors.js'
import { CALL_PROTOCOL } from './frame.js'
import { unixNow } from './identity.js'
import { LOCATION_LIFE, outranks, rank, signLocation, validateLocation, validateNumber, validateOffer } from './record.js'
import { Siblings } from './siblings.js'
import { MAX_LISTS, MAX_LIST_BYTES } from './trust.js'
import * as wire from './wire.js'

/** Supernodes that are asked, and through which the user is reached, where there are as many. */
const SERVERS = 3
/** Circuit addresses of one relay in the location record. */
const ADDRESSES_PER_RELAY = 2
const MAX_ADDRESSES = 8
/** The longest prefix that is looked up beside the empty one, in digits. */
const LONGEST_PREFIX = 7
/** Gateways that are asked for their offers at one time. */
const MAX_GATEWAYS = 16
const DIAL_MS = 8_000
const REQUEST_MS = 5_000
const OFFERS_MS = 3_000
const FIRST_RETRY_MS = 500
const LAST_RETRY_MS = 30_000
/** Relays that are kept for media, how long a call waits for them, and when too few are asked again. */
const RELAYS = 2
const RELAYS_MS = 1_000
const RELAYS_AGAIN_MS = 30_000
/** Changes within this time are published together. */
const SETTLE_MS = 50

/**
 * The node of an overlay user that runs no DHT. Events: `online`, `offline` (`detail.reason`), and
 * `stream` (`detail.stream`, `detail.peer`) for a call that comes in.
 */
export class OverlayNode extends EventTarget {
  #identity
  #bootstrap
  #reachable
  #libp2p
  #parts
  /** Verified supernodes that are connected, by PeerId. @type {Map<string, NodeChain>} */
  #servers = new Map()
  /** What is under way to each peer, so that it is done once. */
  #proving = new Map()
  #joining = new Map()
  #reserved = new Set()
  #reserving = Promise.resolve()
  #siblings = new Siblings()
  /** Relays for media: what a browser takes of each, and until when. */
  #relays = new Map()
  /** When each supernode may be asked again, and what is under way. */
  #relaysAgain = new Map()
  #relaysAsked = new Set()
  #lastSequence = 0
  /** Until when the location is known to be stored, in Unix milliseconds. */
  #published = 0
  #online = false
  #stopped = false
  #timers = new Map()
  #retries = new Map()

  /**
   * @param {import('./identity.js').Identity} identity
   * @param {object} options
   * @param {string[]} options.supernodes multiaddrs `/.../ws/p2p/PEER` or `/.../tls/ws/p2p/PEER`
   * @param {boolean} [options.reachable] whether the user is to be called; otherwise it only calls
   */
  constructor (identity, { supernodes, reachable = true }) {
    super()
    check(supernodes.length > 0, 'address', 'no supernode to join by')
    this.#identity = identity
    this.#bootstrap = supernodes.map((text) => {
      const address = multiaddr(text)
      const last = address.getComponents().at(-1)
      check(last?.name === 'p2p', 'address', `${text} does not end in /p2p/ and the id of a peer`)
      return { address, peer: last.value }
    })
    this.#reachable = reachable
  }

  get peerId () {
    return this.#identity.key.peerId.toString()
  }

  get isOnline () {
    return this.#online
  }

  /** The names of the supernodes that are connected and verified. */
  get supernodes () {
    return [...this.#servers.values()].map((chain) => chain.name)
  }

  /** Starts to join. Returns once a supernode is connected; `online` follows. */
  async start () {
    this.#libp2p = await createLibp2p({
      privateKey: this.#identity.key.pair,
      transports: [webSockets(), circuitRelayTransport()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux()],
      // The addresses are those of supernodes that prove themselves: private ones and plain
      // WebSockets are as good as any.
      connectionGater: { denyDialMultiaddr: () => false },
      connectionManager: { reconnectRetries: 0, dialTimeout: DIAL_MS },
      services: { identify: identify(), ping: ping(), parts: (parts) => (this.#parts = parts, {}) }
    })
    await this.#libp2p.handle(CALL_PROTOCOL, (stream, connection) => {
      const detail = { stream: new Channel(stream), peer: connection.remotePeer.toString() }
      this.dispatchEvent(new CustomEvent('stream', { detail }))
    }, { runOnLimitedConnection: true, maxInboundStreams: 64 })
    this.#libp2p.addEventListener('peer:disconnect', ({ detail: peer }) => this.#onDisconnected(peer.toString()))
    this.#libp2p.addEventListener('self:peer:update', () => this.#onAddresses())
    await this.#reach()
    this.#checkOnline()
  }

  /** Waits until a supernode is connected, or none of those that are not waited for can be. */
  async #reach () {
    if (this.#servers.size > 0) return
    const joins = [...this.#fill(), ...this.#joining.values()]
    try {
      await Promise.any(joins)
    } catch (error) {
      const reasons = new Set(error.errors.flatMap((each) => each.errors ?? each).map(({ message }) => message))
      throw new CausewayError('unreachable', `no supernode was reached: ${[...reasons].join('; ')}`)
    }
  }

  /** Drops every connection, as a change of network does; they are made anew. */
  async dropConnections () {
    await Promise.allSettled(this.#libp2p.getConnections().map((connection) => connection.close()))
  }

  /** Leaves the overlay. */
  async stop () {
    this.#stopped = true
    for (const name of [...this.#timers.keys()]) this.#cancel(name)
    await this.#libp2p?.stop()
  }

  /** Joins by more supernodes while there are fewer than wanted. Returns the attempts that it has begun. */
  #fill () {
    const begun = []
    for (const node of this.#bootstrap) {
      const busy = this.#joining.size + this.#bootstrap.filter(({ peer }) => this.#servers.has(peer)).length
      if (busy >= SERVERS || this.#stopped) break
      const { peer } = node
      if (this.#servers.has(peer) || this.#joining.has(peer) || this.#timers.has(`join ${peer}`)) continue
      const act = this.#join(node)
      // Nobody may be waiting for it; what failed is tried again.
      act.catch(() => {})
      this.#joining.set(peer, act)
      begun.push(act)
    }
    return begun
  }

  /** Joins by a supernode; where that fails by another, and by this one later. */
  async #join (node) {
    const { peer, address } = node
    try {
      await this.#prove(peer, [address])
      this.#retries.delete(peer)
      this.#joining.delete(peer)
    } catch (error) {
      this.#joining.delete(peer)
      this.#retry(`join ${peer}`, peer, () => this.#fill())
      const others = this.#fill()
      if (others.length === 0) throw error
      return await Promise.any(others)
    }
    if (this.#reachable) this.#reserve(node)
  }

  /** Does something after a wait that doubles with each failure. */
  #retry (name, what, act) {
    const wait = Math.min(LAST_RETRY_MS, 2 * (this.#retries.get(what) ?? FIRST_RETRY_MS / 2))
    this.#retries.set(what, wait)
    this.#later(name, wait, act)
  }

  /** Asks a supernode for a place on its relay. What fails is tried again. */
  async #reserve (node) {
    const { peer, address } = node
    if (this.#reserved.has(peer) || !this.#servers.has(peer)) return
    this.#reserved.add(peer)
    const name = `reserve ${peer}`
    // One after the other: libp2p forgets those that wait once it has one.
    const turn = this.#reserving.then(() => this.#parts.transportManager.listen([address.encapsulate('/p2p-circuit')]))
    this.#reserving = turn.catch(() => {})
    try {
      await turn
      this.#retries.delete(name)
      this.#later('publish', SETTLE_MS)
    } catch {
      this.#reserved.delete(peer)
      this.#retry(name, name, () => this.#reserve(node))
    }
  }

  /** Own addresses have changed: a reservation may be gone, and the location is published anew. */
  #onAddresses () {
    const held = this.#ownAddresses()
    for (const node of this.#bootstrap) {
      const isHeld = held.some((address) => address.includes(`/p2p/${node.peer}/p2p-circuit`))
      if (!this.#reserved.has(node.peer) || isHeld || !this.#published) continue
      this.#reserved.delete(node.peer)
      this.#retry(`reserve ${node.peer}`, `reserve ${node.peer}`, () => this.#reserve(node))
    }
    this.#later('publish', SETTLE_MS)
  }

  #onDisconnected (peer) {
    this.#servers.delete(peer)
    this.#relaysAgain.delete(peer)
    this.#reserved.delete(peer)
    // Whoever is not to be called joins again when it has something to ask.
    const isOurs = this.#bootstrap.some((known) => known.peer === peer)
    if (isOurs && this.#reachable) this.#later(`join ${peer}`, FIRST_RETRY_MS, () => this.#fill())
    this.#checkOnline()
  }

  /** Does something later, once: at the soonest time that was asked for, and not after `stop`. */
  #later (name, ms, act = () => this.#publish()) {
    const due = Date.now() + ms
    if (this.#stopped || this.#timers.get(name)?.due <= due) return
    this.#cancel(name)
    const timer = setTimeout(() => {
      this.#timers.delete(name)
      // What failed has arranged for another attempt.
      Promise.resolve(act()).catch(() => {})
    }, ms)
    this.#timers.set(name, { timer, due })
  }

  #cancel (name) {
    clearTimeout(this.#timers.get(name)?.timer)
    this.#timers.delete(name)
  }

  /**
   * Connects to a certified node and exchanges credentials with it.
   *
   * @param {string} peer
   * @param {import('@multiformats/multiaddr').Multiaddr[]} where
   * @returns {Promise<NodeChain>} what it is certified to be
   */
  async #prove (peer, where) {
    const known = this.#servers.get(peer)
    if (known && this.#libp2p.getConnections(peerIdFromString(peer)).length > 0) return known
    if (!this.#proving.has(peer)) {
      const act = this.#hello(peer, where).finally(() => this.#proving.delete(peer))
      this.#proving.set(peer, act)
    }
    return await this.#proving.get(peer)
  }

  async #hello (peer, where) {
    await this.#libp2p.dial(where, { signal: AbortSignal.timeout(DIAL_MS) })
    try {
      return await this.#greet(peer)
    } catch (error) {
      await this.#libp2p.hangUp(peerIdFromString(peer))
      throw error
    }
  }

  /** Sends the own credential and verifies the other's. */
  async #greet (peer) {
    const { trust, revocations, certificate } = this.#identity
    const hello = wire.encodeHello(certificate.bytes, revocations.held())
    const answer = wire.decodeHello(await this.#request(peer, wire.IDENTITY_PROTOCOL, hello))
    const chain = decodeCredential(answer.credential)
    check(chain instanceof NodeChain, 'not_node', 'the peer is not a supernode')
    await chain.verify(trust, revocations, unixNow())
    check(chain.keyOf(peer), 'node_key_mismatch', `the certificate of ${chain.name} is for another key`)
    // Only now: anybody could claim a list that is never handed out.
    await this.#fetchLists(peer, answer.lists)
    await chain.verify(trust, revocations, unixNow())
    this.#servers.set(peer, chain)
    // So that no call waits for them.
    this.#later('relays', SETTLE_MS, () => this.iceServers())
    this.#checkOnline()
    return chain
  }

  /** Fetches the revocation lists that are newer than those held. */
  async #fetchLists (peer, lists) {
    const { trust, revocations } = this.#identity
    for (const { issuer, version } of lists.slice(0, MAX_LISTS)) {
      const held = revocations.version(issuer)
      if (held !== undefined && held >= version) continue
      const list = await this.#request(peer, wire.REVOCATION_PROTOCOL, issuer, MAX_LIST_BYTES)
      if (list.length === 0) continue
      try {
        await revocations.apply(list, trust, unixNow())
      } catch (error) {
        // A list that does not verify says nothing; whoever hands it out is no less certified.
        if (error.reason === undefined) throw error
      }
    }
    for (const [server, chain] of this.#servers) {
      if (revocations.isRevoked(chain.enrolment.key, chain.leaf.serial)) {
        this.#servers.delete(server)
        await this.#libp2p.hangUp(peerIdFromString(server))
      }
    }
  }

  /**
   * Sends one request and reads its answer.
   *
   * @param {string} peer connected
   * @param {string} protocol
   * @param {Uint8Array} request
   * @param {number} [limit] of the answer, in bytes
   */
  async #request (peer, protocol, request, limit = wire.MAX_MESSAGE) {
    const signal = AbortSignal.timeout(REQUEST_MS)
    const connection = this.#connection(peer)
    const stream = await connection.newStream(protocol, { signal })
    const abort = () => stream.abort(new CausewayError('timeout', `no answer to ${protocol}`))
    signal.addEventListener('abort', abort)
    try {
      stream.send(request)
      // Ends this side's half; the answer comes on the other.
      stream.close({ signal }).catch(() => {})
      const parts = []
      let length = 0
      for await (const part of stream) {
        parts.push(part.subarray())
        length += part.length ?? part.byteLength
        check(length <= limit, 'oversize', 'the answer is too long')
      }
      return concat(...parts)
    } finally {
      signal.removeEventListener('abort', abort)
      if (stream.status === 'open') stream.abort(new CausewayError('done'))
    }
  }

  /** The best connection to a peer: a direct one before one through a relay. */
  #connection (peer) {
    const open = this.#libp2p.getConnections(peerIdFromString(peer)).filter(({ status }) => status === 'open')
    const connection = open.find(({ limits }) => limits === undefined) ?? open[0]
    check(connection, 'unreachable', 'the peer is not connected')
    return connection
  }

  /** Asks up to three supernodes and hands each answer to `take`, with the key that it is for. */
  async #ask (keys, take) {
    await this.#reach()
    const servers = [...this.#servers.keys()].slice(0, SERVERS)
    const ask = async (server) => {
      for (let at = 0; at < keys.length; at += wire.MAX_KEYS) {
        const part = keys.slice(at, at + wire.MAX_KEYS)
        const answer = await this.#request(server, wire.LOOKUP_PROTOCOL, wire.encodeLookup(part))
        const answers = wire.decodeAnswers(answer, part.length)
        for (const [index, one] of answers.entries()) await take(one, part[index])
      }
    }
    const outcomes = await Promise.allSettled(servers.map(ask))
    const failed = outcomes.filter(({ status }) => status === 'rejected')
    if (failed.length === servers.length) throw failed[0].reason
  }

  get #context () {
    const { trust, revocations } = this.#identity
    return { trust, revocations, unix: unixNow() }
  }

  /** The best valid record that any of the supernodes has. Records that are not valid count for nothing. */
  async #best (key, validate) {
    let best
    await this.#ask([key], async ({ records }) => {
      for (const value of records) {
        const record = await validate(value).catch(() => undefined)
        if (record && (!best || outranks(record, best))) best = record
      }
    })
    return best
  }

  /** Finds where a user is, or `undefined`. @param {string} user */
  async findLocation (user) {
    const slot = addresses.handle(user)
    return await this.#best(addresses.recordKey.location(slot), (value) => validateLocation(slot, value, this.#context))
  }

  /** Finds whose a number is, or `undefined`. @param {string} telephone */
  async findNumber (telephone) {
    const slot = addresses.number(telephone)
    return await this.#best(addresses.recordKey.number(slot), (value) => validateNumber(slot, value, this.#context))
  }

  /**
   * Finds the gateways that take calls to a number, in the order in which they are to be called.
   * Each is connected, proves itself and signs its offer: nobody's word is taken for another.
   *
   * @param {string} telephone
   */
  async findOffers (telephone) {
    const number = addresses.number(telephone)
    const digits = number.slice(1)
    const lengths = Array.from({ length: Math.min(digits.length, LONGEST_PREFIX) + 1 }, (_, at) => at).reverse()
    const found = new Map()
    await this.#ask(lengths.map((length) => addresses.recordKey.gateway(digits.slice(0, length))), ({ providers }) => {
      for (const { peer, addresses: where } of providers) {
        const id = readPeer(peer)
        if (!id || (!found.has(id) && found.size >= MAX_GATEWAYS)) continue
        const known = found.get(id) ?? new Set()
        where.forEach((text) => known.add(text))
        found.set(id, known)
      }
    })
    const offers = []
    const fetch = async ([peer, where]) => {
      const reachable = [...where].map((text) => withPeer(text, peer)).filter((address) => address !== undefined)
      const chain = await this.#prove(peer, reachable)
      check(chain.claims.role === 'gateway', 'provider_uncertified', 'a provider that is no gateway')
      const answer = await this.#request(peer, wire.OFFER_PROTOCOL, wire.encodeOfferRequest(number))
      for (const value of wire.decodeOffers(answer)) {
        const offer = await validateOffer(number, value, this.#context)
        if (offer.peer === peer) offers.push({ ...offer, addresses: reachable.map(String) })
      }
    }
    const all = Promise.allSettled([...found].map(fetch))
    let timer
    await Promise.race([all, new Promise((resolve) => { timer = setTimeout(resolve, OFFERS_MS) })])
    clearTimeout(timer)
    return rank([...offers])
  }

  /**
   * Finds relays for media (RFC 8656): those of two supernodes, with credentials for them that last some
   * hours and are asked for again at half of that. Waits a second for them at the longest.
   *
   * @returns {Promise<RTCIceServer[]>}
   */
  async iceServers () {
    const now = Date.now()
    for (const [peer, { until }] of this.#relays) {
      if (until <= now || !this.#servers.has(peer)) this.#relays.delete(peer)
    }
    for (const peer of this.#servers.keys()) {
      if (this.#relays.size + this.#relaysAsked.size >= SERVERS) break
      if (this.#relays.has(peer) || this.#relaysAgain.get(peer) > now) continue
      this.#relaysAgain.set(peer, now + RELAYS_AGAIN_MS)
      // Some supernodes have no relay.
      const asked = this.#askRelay(peer).catch(() => {}).finally(() => this.#relaysAsked.delete(asked))
      this.#relaysAsked.add(asked)
    }
    let timer
    await Promise.race([Promise.all(this.#relaysAsked), new Promise((resolve) => { timer = setTimeout(resolve, RELAYS_MS) })])
    clearTimeout(timer)
    // Of the second one a single address: browsers slow down where there are many.
    const few = ({ urls, ...rest }, at) => ({ urls: at === 0 ? urls : urls.slice(0, 1), ...rest })
    return [...this.#relays.values()].slice(0, RELAYS).map(({ server }, at) => few(server, at))
  }

  async #askRelay (peer) {
    const answer = await this.#request(peer, wire.TURN_PROTOCOL, wire.encodeTurnRequest())
    const { expires, ...server } = wire.decodeTurn(answer) ?? {}
    if (expires > unixNow()) this.#relays.set(peer, { server, until: Date.now() + (expires - unixNow()) * 500 })
  }

  /**
   * Opens a call stream to a device: on a connection that is up, or after dialling.
   *
   * @param {string} peer
   * @param {string[]} where multiaddrs
   */
  async openCall (peer, where = []) {
    const signal = AbortSignal.timeout(DIAL_MS)
    const id = peerIdFromString(peer)
    if (this.#libp2p.getConnections(id).length === 0) {
      const reachable = where.map((text) => this.#viaConnected(withPeer(text, peer))).filter((address) => address !== undefined)
      check(reachable.length > 0, 'unreachable', 'the device has no address that a WebSocket reaches')
      await this.#libp2p.dial(reachable, { signal })
    }
    return new Channel(await this.#connection(peer).newStream(CALL_PROTOCOL, { signal, runOnLimitedConnection: true }))
  }

  /**
   * A circuit through a relay that is connected needs no address of the relay; any other address
   * must be one of a WebSocket.
   */
  #viaConnected (address) {
    if (address === undefined) return undefined
    const parts = address.getComponents()
    const at = parts.findIndex(({ name }) => name === 'p2p-circuit')
    if (at > 0) {
      const relay = parts[at - 1].value
      if (this.#servers.has(relay)) return multiaddr(`/p2p/${relay}/p2p-circuit/p2p/${parts.at(-1).value}`)
    }
    const direct = at > 0 ? parts.slice(0, at) : parts
    return direct.some(({ name }) => name === 'ws' || name === 'wss') ? address : undefined
  }

  /** The circuit addresses under which this device is reached: the surest transports first. */
  #ownAddresses () {
    const own = this.#libp2p.getMultiaddrs().filter((address) => address.toString().includes('/p2p-circuit'))
    const byRelay = new Map()
    for (const address of own) {
      const parts = address.getComponents()
      const relay = parts.slice(0, parts.findIndex(({ name }) => name === 'p2p-circuit')).findLast(({ name }) => name === 'p2p')?.value
      if (!this.#servers.has(relay)) continue
      byRelay.set(relay, [...(byRelay.get(relay) ?? []), address.toString()])
    }
    const best = (list) => [...new Set(list)].sort((a, b) => transportRank(a) - transportRank(b)).slice(0, ADDRESSES_PER_RELAY)
    return [...byRelay.values()].flatMap(best).slice(0, MAX_ADDRESSES)
  }

  /** Publishes the location of this device, and again at half of its life. */
  async #publish () {
    if (!this.#reachable) return
    const own = this.#ownAddresses()
    if (own.length === 0) return this.#checkOnline()
    this.#retry('publish', 'publish', () => this.#publish())
    const { certificate } = this.#identity
    const unix = unixNow()
    if (certificate.keys.length > 1) {
      const held = await this.findLocation(certificate.handle)
      if (held) {
        this.#siblings.learn(held, this.peerId, LOCATION_LIFE)
        this.#lastSequence = Math.max(this.#lastSequence, held.sequence)
      }
    }
    this.#lastSequence = Math.max(Date.now(), this.#lastSequence + 1)
    const devices = [{ peer: this.peerId, addresses: own }, ...this.#siblings.alive(unix, LOCATION_LIFE)]
    const location = { sequence: this.#lastSequence, expires: unix + LOCATION_LIFE, devices }
    const value = await signLocation(this.#identity, location)
    const request = wire.encodePublish(addresses.recordKey.location(certificate.handle), value)
    const put = async (server) => {
      const { stored, refused } = wire.decodePublished(await this.#request(server, wire.PUBLISH_PROTOCOL, request))
      check(stored > 0, refused ?? 'refused', `the location was refused: ${refused}`)
    }
    await Promise.any([...this.#servers.keys()].slice(0, SERVERS).map(put))
    this.#cancel('publish')
    this.#retries.delete('publish')
    // What has changed meanwhile is not in it.
    const isCurrent = String(this.#ownAddresses()) === String(own)
    this.#later('publish', isCurrent ? LOCATION_LIFE * 500 : SETTLE_MS)
    this.#published = Date.now() + LOCATION_LIFE * 1000
    this.#checkOnline()
  }

  #checkOnline () {
    let missing
    if (this.#servers.size === 0 && this.#reachable) missing = 'no supernode is connected'
    else if (this.#reachable && this.#ownAddresses().length === 0) missing = 'no relay reservation is held'
    else if (this.#reachable && this.#published < Date.now()) missing = 'the location is not published yet'
    if ((missing === undefined) === this.#online || this.#stopped) return
    this.#online = missing === undefined
    this.dispatchEvent(new CustomEvent(this.#online ? 'online' : 'offline', { detail: { reason: missing } }))
  }
}

function readPeer (bytes) {
  try {
    return peerIdFromMultihash(decode(bytes)).toString()
  } catch {
    return undefined
  }
}

/** An address that ends in the id of a peer, or `undefined` where it is malformed. */
function withPeer (text, peer) {
  try {
    const address = multiaddr(text)
    const last = address.getComponents().at(-1)
    return last?.name === 'p2p' && last.value === peer ? address : address.encapsulate(`/p2p/${peer}`)
  } catch {
    return undefined
  }
}

/** Orders transports by how surely a caller gets through: TCP, then WebSocket, then QUIC. */
function transportRank (text) {
  const [relay] = text.split('/p2p-circuit')
  if (/\/quic/.test(relay)) return 2
  return /\/(ws|wss)(\/|$)/.test(relay) ? 1 : 0
}
