import { CausewayError } from './errors.js'

/**
 * What a call needs of media. `BrowserMedia` is that of browsers; programs and tests bring their own.
 *
 * @typedef {object} Media
 * @property {() => Promise<string>} createOffer makes an SDP offer
 * @property {(sdp: string) => Promise<void> | void} acceptAnswer takes the answer to it
 * @property {(offer: string) => Promise<string>} createAnswer answers an offer
 * @property {(candidate: string) => void} [addCandidate] takes one more ICE candidate
 * @property {(digit: string, durationMs: number) => boolean} [sendDigit] says whether media takes it
 * @property {(on: boolean) => void} [hold]
 * @property {() => void} close
 * @property {() => void} [onconnected] set by the call: ICE and DTLS are up
 * @property {(text: string) => void} [onfailed] set by the call
 * @property {(candidate: string) => void} [oncandidate] set by the call
 */

/** How long candidates are gathered before the description goes out without the rest. */
const GATHER_MS = 1_000
/** The clock of Opus. */
const CLOCK_RATE = 48_000
/**
 * Codecs that go into a description: Opus, and telephone events in its clock (RFC 4733 2.1). Browsers
 * that have the choice would send them in that of G.711, which the gateway hears beside G.711 only; and
 * G.711 comes from a source of its own there, which a page does not hear.
 */
const isWanted = ({ mimeType, clockRate }) =>
  clockRate === CLOCK_RATE && (mimeType === 'audio/opus' || mimeType === 'audio/telephone-event')

/** Media of a browser: one audio stream each way. */
export class BrowserMedia {
  #options
  #pc
  #sender
  #own
  #closed = false
  #gathered = false
  onconnected = () => {}
  onfailed = () => {}
  oncandidate = () => {}
  /** What the other side says: play it. */
  remote = new MediaStream()

  /**
   * @param {object} [options]
   * @param {MediaStream} [options.stream] what to say; the microphone where there is none
   * @param {MediaTrackConstraints} [options.constraints] of the microphone
   * @param {RTCIceServer[] | (() => Promise<RTCIceServer[]>)} [options.iceServers] a client brings those of its
   *   supernodes; calls through gateways need them only where the network lets no datagrams out
   */
  constructor (options = {}) {
    this.#options = options
  }

  async createOffer () {
    const pc = await this.#open()
    await pc.setLocalDescription(await pc.createOffer())
    return await this.#described(pc)
  }

  async acceptAnswer (sdp) {
    await this.#pc?.setRemoteDescription({ type: 'answer', sdp })
  }

  async createAnswer (offer) {
    const pc = await this.#open()
    await pc.setRemoteDescription({ type: 'offer', sdp: offer })
    await pc.setLocalDescription(await pc.createAnswer())
    return await this.#described(pc)
  }

  addCandidate (candidate) {
    const line = candidate.startsWith('candidate:') ? candidate : `candidate:${candidate}`
    // One that the browser does not understand leads nowhere.
    this.#pc?.addIceCandidate({ candidate: line, sdpMLineIndex: 0 }).catch(() => {})
  }

  sendDigit (digit, durationMs) {
    const dtmf = this.#sender?.dtmf
    const agreed = this.#pc?.remoteDescription?.sdp ?? ''
    if (!dtmf?.canInsertDTMF || !/^a=rtpmap:\d+ telephone-event\/48000/im.test(agreed)) return false
    dtmf.insertDTMF(dtmf.toneBuffer + digit, Math.max(40, durationMs), 100)
    return true
  }

  hold (on) {
    for (const track of [...(this.#own?.getAudioTracks() ?? []), ...this.remote.getAudioTracks()]) track.enabled = !on
  }

  /** What the browser has measured. */
  async stats () {
    return await this.#pc?.getStats()
  }

  close () {
    this.#closed = true
    this.#pc?.close()
    this.#pc = undefined
    if (!this.#options.stream) this.#own?.getTracks().forEach((track) => track.stop())
  }

  async #open () {
    const { stream, constraints = true, iceServers = [] } = this.#options
    this.#own = stream ?? await navigator.mediaDevices.getUserMedia({ audio: constraints })
    const servers = typeof iceServers === 'function' ? await iceServers().catch(() => []) : iceServers
    if (this.#closed) {
      // The call was over before the user had let the page listen, or relays were found.
      this.close()
      throw new CausewayError('ended', 'the call has ended')
    }
    const pc = new RTCPeerConnection({ iceServers: servers, bundlePolicy: 'max-bundle' })
    this.#pc = pc
    const [track] = this.#own.getAudioTracks()
    // Not `addTransceiver`: one that was made so is not used for what the other side offers (RFC 8829 5.10).
    this.#sender = pc.addTrack(track, this.#own)
    const [transceiver] = pc.getTransceivers()
    transceiver.setCodecPreferences(RTCRtpReceiver.getCapabilities('audio').codecs.filter(isWanted))
    pc.ontrack = ({ track }) => this.remote.addTrack(track)
    pc.onconnectionstatechange = () => {
      if (pc.connectionState === 'connected') this.onconnected()
      if (pc.connectionState === 'failed') this.onfailed('the connection of media has failed')
    }
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate) this.#gathered = true
      else if (this.#gathered === 'late' && !isHidden(candidate.candidate)) this.oncandidate(candidate.candidate)
    }
    return pc
  }

  /** Waits for candidates and returns the description with them. */
  async #described (pc) {
    const end = Date.now() + GATHER_MS
    while (!this.#gathered && pc.iceGatheringState !== 'complete' && Date.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    if (this.#gathered === false) this.#gathered = 'late'
    const lines = pc.localDescription.sdp.split('\r\n')
    return lines.filter((line) => !line.startsWith('a=candidate:') || !isHidden(line)).join('\r\n')
  }
}

/** A name of mDNS, by which a browser hides its address, means nothing on another network. */
const isHidden = (candidate) => /\.local(\s|$)/.test(candidate)
