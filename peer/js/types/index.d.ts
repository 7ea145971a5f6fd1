/** An E.164 number or the name of a user, in its one spelling. */
export function address(text: string): string
/** An E.164 number: `+` and 2 to 15 digits; separators are taken out. */
export function number(text: string): string
/** The name of a user: 1 to 32 of `a-z 0-9 . _ -`, beginning with a letter. */
export function handle(text: string): string

/** Something was refused or has failed; `reason` is one of a closed set of names. */
export class CausewayError extends Error {
  readonly reason: string
  constructor(reason: string, message?: string)
}

/** Causes of Q.850 that this side gives. */
export const Cause: Readonly<{
  normal: 16
  busy: 17
  noUserResponding: 18
  noAnswer: 19
  rejected: 21
  answeredElsewhere: 26
  destinationOutOfOrder: 27
  networkOutOfOrder: 38
  temporaryFailure: 41
  congestion: 42
  bearerNotAvailable: 58
  timerExpiry: 102
  protocolError: 111
}>

/** What a user may do: bits. */
export const Abilities: Readonly<{ callHandles: 1; callNumbers: 2; beCalled: 4; text: 8 }>

/** An Ed25519 public key. */
export class PublicKey {
  readonly bytes: Uint8Array
  readonly hex: string
  readonly peerId: { toString(): string }
  constructor(bytes: Uint8Array)
  equals(other: PublicKey): boolean
}

/** The secret Ed25519 key of a device. */
export class NodeKey {
  readonly public: PublicKey
  readonly peerId: { toString(): string }
  static generate(): Promise<NodeKey>
  /** Derives the key of a seed of 32 bytes (RFC 8032 5.1.5). */
  static fromSeed(seed: Uint8Array): Promise<NodeKey>
  /** Reads PKCS#8 (RFC 8410 7). */
  static fromPem(pem: string): Promise<NodeKey>
  /** Writes PKCS#8. The text is secret. */
  toPem(): string
}

/** The trusted roots. */
export class Trust {
  static fromPem(pem: string): Promise<Trust>
  toPem(): string
}

/** The newest revocation list of each authority. */
export class Revocations {
  static fromPem(pem: string, trust: Trust, unix: number): Promise<Revocations>
  /** Takes over a signed list. Returns whether it was news. */
  apply(bytes: Uint8Array, trust: Trust, unix: number): Promise<boolean>
  toPem(): string
}

/** The certificate of an overlay user. */
export class HandleCertificate {
  readonly handle: string
  readonly numbers: string[]
  readonly keys: PublicKey[]
  readonly serial: bigint
  /** Bits of {@link Abilities}. */
  readonly abilities: number
  /** Unix seconds. */
  readonly notBefore: number
  readonly notAfter: number
  constructor(bytes: Uint8Array)
  static fromPem(pem: string): HandleCertificate
  toPem(): string
  verify(trust: Trust, revocations: Revocations, unix: number): Promise<this>
}

/** What the certificate of a supernode or gateway says of it. */
export interface NodeClaims {
  role: 'supernode' | 'gateway'
  /** Digits of numbers that it may offer calls to, and that it may assign. */
  prefixes: string[]
  numberPrefixes: string[]
  rate?: Price
}

/** A price in millionths of a currency unit for one minute. */
export interface Price {
  microsPerMinute: bigint
  /** ISO 4217. */
  currency: string
}

/** The certificate of a supernode or gateway and that of its issuer. */
export class NodeChain {
  readonly name: string
  readonly key: PublicKey
  readonly claims: NodeClaims | undefined
  constructor(bytes: Uint8Array)
  static fromPem(pem: string): NodeChain
  verify(trust: Trust, revocations: Revocations, unix: number): Promise<this>
}

/**
 * Begins an enrolment: makes a key, and the request that an authority certifies. Keep the key; the
 * request is PEM (PKCS#10).
 */
export function enrol(handle: string): Promise<{ key: NodeKey; request: string }>

/** The identity of an overlay user's device. */
export class Identity {
  readonly key: NodeKey
  readonly certificate: HandleCertificate
  readonly trust: Trust
  readonly revocations: Revocations
  readonly handle: string
  readonly numbers: string[]
  /** Ends an enrolment: puts the parts (each PEM) together and verifies that they fit. */
  static load(
    parts: { key: string | NodeKey; certificate: string; root: string; revocations?: string },
    unix?: number
  ): Promise<Identity>
}

/** Where a user is; verified. */
export interface Location {
  handle: string
  /** Unix milliseconds. */
  sequence: number
  /** Unix seconds. */
  expires: number
  devices: Array<{ peer: string; addresses: string[]; abilities: number; priority: number }>
  holder: HandleCertificate
}

/** Whose a number is; verified. */
export interface NumberRecord {
  number: string
  handle: string
  sequence: number
  expires: number
  writer: NodeChain
}

/** What a gateway offers; verified. */
export interface Offer {
  peer: string
  gateway: NodeChain
  prefixes: string[]
  price: Price
  codecs: string[]
  capacity: number
  load: number
  expires: number
}

/** The client's node. Events: `online`, `offline`. */
export class OverlayNode extends EventTarget {
  readonly peerId: string
  readonly isOnline: boolean
  /** The names of the supernodes that are connected and verified. */
  readonly supernodes: string[]
  findLocation(user: string): Promise<Location | undefined>
  findNumber(telephone: string): Promise<NumberRecord | undefined>
  /** The gateways that take calls to a number, in the order in which they are to be called. */
  findOffers(telephone: string): Promise<Offer[]>
  /** Relays for media, of two supernodes, with credentials for them. Waits a second at the longest. */
  iceServers(): Promise<RTCIceServer[]>
  /** Drops every connection, as a change of network does; they are made anew. */
  dropConnections(): Promise<void>
}

/** What a call needs of media. */
export interface Media {
  createOffer(): Promise<string>
  acceptAnswer(sdp: string): Promise<void> | void
  createAnswer(offer: string): Promise<string>
  addCandidate?(candidate: string): void
  /** Says whether media takes the digit; otherwise it goes by signalling. */
  sendDigit?(digit: string, durationMs: number): boolean
  hold?(on: boolean): void
  close(): void
  /** Set by the call; to be called when ICE and DTLS are up. */
  onconnected?: () => void
  /** Set by the call; to be called when media is over and cannot come back. */
  onfailed?: (text: string) => void
  /** Set by the call; to be called with each ICE candidate found after the description. */
  oncandidate?: (candidate: string) => void
}

/** Media of a browser: one audio stream each way. */
export class BrowserMedia implements Media {
  /** What the other side says: play it. */
  readonly remote: MediaStream
  constructor(options?: {
    /** What to say; the microphone where there is none. */
    stream?: MediaStream
    constraints?: MediaTrackConstraints
    iceServers?: RTCIceServer[] | (() => Promise<RTCIceServer[]>)
  })
  createOffer(): Promise<string>
  acceptAnswer(sdp: string): Promise<void>
  createAnswer(offer: string): Promise<string>
  addCandidate(candidate: string): void
  sendDigit(digit: string, durationMs: number): boolean
  hold(on: boolean): void
  stats(): Promise<RTCStatsReport | undefined>
  close(): void
  onconnected: () => void
  onfailed: (text: string) => void
  oncandidate: (candidate: string) => void
}

/** How a call has ended. */
export interface Ended {
  /** Q.850. */
  cause: number
  sipStatus?: number
  text: string
  by: 'far' | 'local' | 'timeout' | 'lost'
}

/** Who calls. */
export interface Caller {
  /** A handle or a number; absent where it is not known. */
  address?: string
  displayName?: string
  /** Whether the caller asked not to be shown. */
  private: boolean
  role: 'user' | 'gateway'
  peer: string
}

/**
 * A call. Events, each with a `detail`: `trying`, `ringing`, `early`, `answered`, `active`, `hold`
 * (`on`), `dtmf` (`digit`, `durationMs`), `message` (`text`), `connected` (`from`, `displayName`,
 * `private`), `not_supported` (`request`), and at last exactly one `ended` ({@link Ended}).
 */
export class Call extends EventTarget {
  /** 32 hexadecimal digits, the same at both ends and in the records of the gateway. */
  readonly id: string
  readonly direction: 'out' | 'in'
  readonly to: string
  readonly from: Caller
  readonly media: Media
  readonly state: 'dialling' | 'incoming' | 'trying' | 'ringing' | 'early' | 'answered' | 'active' | 'ended'
  readonly hasEnded: boolean
  readonly ended: Promise<Ended>
  /** Callee: tells the caller that the user is being alerted. */
  ring(): void
  /** Callee: answers. */
  answer(): Promise<void>
  /** Callee: refuses. */
  reject(why?: { cause?: number; text?: string }): void
  /** Ends the call, whatever its state. */
  hangUp(why?: { cause?: number; text?: string }): void
  hold(on: boolean): void
  sendDigit(digit: string, durationMs?: number): void
  /** At most 512 bytes. */
  sendText(text: string): void
}

/**
 * An overlay user. Events: `online`, `offline` (`detail.reason`), `incoming` (`detail.call`),
 * `refused` (`detail.reason`) for a call that did not reach the user.
 */
export class CausewayClient extends EventTarget {
  readonly identity: Identity
  readonly node: OverlayNode
  readonly isOnline: boolean
  readonly calls: Call[]
  constructor(options: {
    identity: Identity
    /** `/dns4/HOST/tcp/443/tls/ws/p2p/PEER`: two or three, of different operators. */
    supernodes: string[]
    /** Whether the user is to be called; true where it is not given. */
    reachable?: boolean
    createMedia?: () => Media
  })
  /** Returns once a supernode is connected; where the user is to be called, `online` follows. */
  start(): Promise<void>
  /** Ends every call and leaves. */
  stop(): Promise<void>
  call(to: string, options?: {
    media?: Media
    displayName?: string
    private?: boolean
    /** One of the own numbers. */
    callAs?: string
    /** How long to ring, in milliseconds, at most 180 s. */
    ringMs?: number
  }): Call
}
