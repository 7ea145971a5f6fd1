// An overlay user in a browser that does what the laboratory asks: commands come by GET /command,
// what happens goes by POST /event, and what was heard by POST /recording.
import { BrowserMedia, CausewayClient, Identity, enrol } from './causeway.js'

let queue = Promise.resolve()
/** Tells the laboratory something; in order. */
function tell (event, detail = {}) {
  queue = queue.then(() => fetch('event', { method: 'POST', body: JSON.stringify({ event, ...detail }) }))
}
addEventListener('unhandledrejection', ({ reason }) => tell('error', { text: String(reason?.stack ?? reason) }))
addEventListener('error', ({ message }) => tell('error', { text: message }))

/** What the far end says, from the first packet on, as the browser plays it. */
class Recorder {
  #parts = []
  #rate = 48_000
  #player = new Audio()

  constructor (remote) {
    // Nothing is decoded that is not played.
    this.#player.srcObject = remote
    this.#player.play().catch((error) => tell('error', { text: `play: ${error}` }))
    const [track] = remote.getAudioTracks()
    this.#read(new MediaStreamTrackProcessor({ track }).readable.getReader())
  }

  async #read (reader) {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      const samples = new Float32Array(value.numberOfFrames)
      value.copyTo(samples, { planeIndex: 0, format: 'f32-planar' })
      this.#rate = value.sampleRate
      this.#parts.push(samples)
      value.close()
    }
  }

  async send () {
    this.#player.srcObject = null
    await fetch(`recording?rate=${this.#rate}`, { method: 'POST', body: new Blob(this.#parts) })
  }
}

// What is heard is compared with what was said: nothing may be made better.
const constraints = { echoCancellation: false, noiseSuppression: false, autoGainControl: false }
let identity, client, call, recorder
const createMedia = () => new BrowserMedia({ constraints })

function watch (which) {
  call = which
  recorder = undefined
  for (const type of ['trying', 'ringing', 'early', 'answered', 'hold', 'dtmf', 'connected']) {
    call.addEventListener(type, ({ detail }) => tell(type, detail))
  }
  call.addEventListener('active', () => {
    recorder ??= new Recorder(call.media.remote)
    tell('active')
  })
  call.addEventListener('ended', async ({ detail }) => {
    await recorder?.send()
    tell('ended', detail)
  })
}

const commands = {
  /** Makes a key, and a request for the authority. */
  async enrol ({ handle }) {
    const { key, request } = await enrol(handle)
    identity = { key }
    tell('request', { pem: request })
  },
  /** Takes the certificate, and joins. */
  async join ({ certificate, root, supernodes }) {
    identity = await Identity.load({ ...identity, certificate, root })
    client = new CausewayClient({ identity, supernodes, createMedia })
    client.addEventListener('online', () => tell('online', { peer: client.node.peerId }))
    client.addEventListener('offline', ({ detail }) => tell('offline', detail))
    client.addEventListener('refused', ({ detail }) => tell('refused', detail))
    client.addEventListener('incoming', ({ detail }) => {
      watch(detail.call)
      call.ring()
      tell('incoming', { from: call.from.address, role: call.from.role })
    })
    await client.start()
  },
  async call ({ to }) {
    watch(client.call(to))
  },
  async answer () {
    await call.answer()
  },
  async press ({ digits }) {
    for (const digit of digits) call.sendDigit(digit)
  },
  async hang_up () {
    call?.hangUp()
  }
}

tell('ready')
for (;;) {
  const answer = await fetch('command')
  if (answer.status !== 200) continue
  const { command, ...detail } = await answer.json()
  commands[command](detail).catch((error) => tell('error', { text: `${command}: ${error.stack ?? error}` }))
}
