// A whole site on loopback for tests: an authority, a supernode, a gateway, and a telephone behind
// its trunk. The programs are those in the folder CAUSEWAY_BIN.
import { execFileSync, spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Identity, enrol } from '../src/index.js'

const START_MS = 30_000
/** The folder of the laboratory's scripts. */
export const LAB = fileURLToPath(new URL('../../../tests/lab', import.meta.url))

/** A program and its arguments, such that the kernel ends it with this process. @param {string} program @param {string[]} args */
export const bound = (program, args) => ['setpriv', ['--pdeathsig', 'KILL', program, ...args]]

/** Every process takes loopback addresses of its own, so that daemons have their well-known ports. */
const block = (process.pid * 7919) % (1 << 14)
let next = 1
export const loopback = () => `127.${128 + (block >> 8)}.${block & 0xff}.${next++}`

/** Waits until something holds. */
export async function until (what, holds, ms = 15_000) {
  const end = Date.now() + ms
  for (;;) {
    const found = await holds()
    if (found) return found
    if (Date.now() > end) throw new Error(`not in time: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

/** Waits for an event of a call or client and returns its details. */
export function event (target, type, ms = 15_000) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${type} in time; state ${target.state}`)), ms)
    target.addEventListener(type, ({ detail }) => {
      clearTimeout(timer)
      resolve(detail)
    }, { once: true })
  })
}

export class Site {
  folder = mkdtempSync(join(tmpdir(), 'causeway-client-'))
  #daemons = []
  #users = 0

  constructor () {
    this.#run('causeway', 'authority', 'init', '--name', 'Lab', '--dir', this.#at('authority'))
  }

  #at (...names) {
    return join(this.folder, ...names)
  }

  #run (program, ...args) {
    const folder = process.env.CAUSEWAY_BIN
    if (!folder) throw new Error('CAUSEWAY_BIN names no folder with the programs')
    return execFileSync(join(folder, program), args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
  }

  /** The certificate of the root. */
  get root () {
    return readFileSync(this.#at('authority', 'root.pem'), 'utf8')
  }

  #issue (...args) {
    return this.#run('causeway', 'authority', 'issue', ...args, '--dir', this.#at('authority'))
  }

  /** Starts a supernode, or a gateway with one trunk. Returns where it is. */
  async start (name, { address = loopback(), trunk, bootstrap = [], numbers = {}, turn = false } = {}) {
    const identity = this.#at(`${name}.pem`)
    const role = trunk ? ['--role', 'gateway', '--offer', '+44', '--numbers', '+1555'] : ['--role', 'supernode']
    const issued = this.#issue('node', name, ...role, '--out', identity)
    const peer = / peer ([^ ,\n]+)/.exec(issued)[1]
    const listen = ['udp/4001/quic-v1', 'tcp/4001', 'tcp/4002/ws'].map((each) => `"/ip4/${address}/${each}"`)
    const lines = [
      '[overlay]', `role = "${trunk ? 'gateway' : 'supernode'}"`, `identity_file = "${identity}"`,
      `trust_file = "${this.#at('authority', 'root.pem')}"`, `listen = [${listen}]`,
      `bootstrap = [${bootstrap.map((each) => `"${each}"`)}]`, trunk ? 'offer = ["+44"]' : '',
      ...(turn ? ['[overlay.turn]', `udp = ["${address}:3478"]`, `tcp = ["${address}:3478"]`, 'allow = ["127.0.0.0/8"]'] : []),
      '[media]', `trunk_address = "${address}"`, `overlay_address = "${address}"`
    ]
    if (trunk) {
      lines.push('[sip]', `listen = ["udp:${address}:5060"]`, '[numbers]')
      for (const [number, handle] of Object.entries(numbers)) lines.push(`"${number}" = "${handle}"`)
      lines.push('[[trunks]]', 'name = "pbx"', `target = "udp:${trunk}:5060"`, 'options_interval_s = 0')
      lines.push('[[routes]]', 'prefix = ""', 'trunks = ["pbx"]')
    }
    const config = this.#at(`${name}.toml`)
    writeFileSync(config, lines.join('\n'))
    const program = join(process.env.CAUSEWAY_BIN, 'causewayd')
    const daemon = spawn(...bound(program, ['--config', config]), { stdio: ['ignore', 'pipe', 'pipe'] })
    let log = ''
    for (const output of [daemon.stdout, daemon.stderr]) output.on('data', (text) => { log += text })
    this.#daemons.push(daemon)
    const ended = () => { throw new Error(`${name} has ended:\n${log}`) }
    await until(`${name} is started`, () => (daemon.exitCode === null ? log.includes('started') : ended()), START_MS)
    return { address, peer, log: () => log, stop: () => daemon.kill('SIGKILL'),
      websocket: `/ip4/${address}/tcp/4002/ws/p2p/${peer}`, tcp: `/ip4/${address}/tcp/4001/p2p/${peer}` }
  }

  /** Starts the reference softphone of a user, which answers at once. Returns once it is online. */
  async softphone (handle, bootstrap) {
    const identity = this.#at(`${handle}.pem`)
    this.#issue('user', handle, '--out', identity)
    const args = ['run', '--identity', identity, '--root', this.#at('authority', 'root.pem'), '--bootstrap', bootstrap,
      '--media-address', loopback(), '--mode', 'now']
    const phone = spawn(...bound(join(process.env.CAUSEWAY_BIN, 'causeway-peer'), args), { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#daemons.push(phone)
    let said = ''
    phone.stdout.on('data', (text) => { said += text })
    await until(`${handle} is online`, () => said.includes('"online"'), START_MS)
    return { said: () => said.trim().split('\n').map((line) => JSON.parse(line)), tell: (command) => phone.stdin.write(`${JSON.stringify(command)}\n`) }
  }

  /** Enrols a user: the key is made here, and the authority certifies the request. */
  async user (handle, ...numbers) {
    const { key, request } = await enrol(handle)
    return await Identity.load({ key, certificate: this.certify(handle, request, numbers), root: this.root })
  }

  /** Certifies a user from the request for it, PEM; returns the certificate. */
  certify (handle, request, numbers) {
    const name = `${handle}-${this.#users++}`
    const [file, certificate] = [this.#at(`${name}.request`), this.#at(`${name}.certificate`)]
    writeFileSync(file, request)
    this.#issue('user', handle, '--request', file, ...numbers.flatMap((number) => ['--number', number]), '--out', certificate)
    return readFileSync(certificate, 'utf8')
  }

  /** Revokes a certificate by its number. Daemons are told by `revocation_file` alone. */
  revoke (serial) {
    this.#run('causeway', 'authority', 'revoke', String(serial), '--reason', 'withdrawn', '--dir', this.#at('authority'))
    return readFileSync(this.#at('authority', 'revoked.pem'), 'utf8')
  }

  stop () {
    for (const daemon of this.#daemons) daemon.kill('SIGKILL')
    rmSync(this.folder, { recursive: true })
  }
}

/** A telephone behind the trunk that speaks just enough SIP (RFC 3261) to be called and to call. */
export class Telephone {
  address = loopback()
  /** What it was sent: requests and responses, in order. */
  heard = []
  #socket = createSocket('udp4')

  constructor () {
    this.#socket.on('message', (data, from) => this.#onMessage(String(data), from))
  }

  async open () {
    await new Promise((resolve) => this.#socket.bind(5060, this.address, resolve))
  }

  close () {
    this.#socket.close()
  }

  /** Requests of a method so far. */
  requests (method) {
    return this.heard.filter((message) => message.startsWith(`${method} `))
  }

  #onMessage (message, from) {
    this.heard.push(message)
    if (message.startsWith('SIP/2.0')) return this.#onResponse(message, from)
    const send = (status, sdp) => this.#respond(message, status, from, sdp)
    if (message.startsWith('INVITE')) {
      const number = /^INVITE sip:([^@]+)@/.exec(message)[1]
      if (number.endsWith('017')) return send('486 Busy Here')
      send('100 Trying')
      send('180 Ringing')
      if (!number.endsWith('607')) setTimeout(() => send('200 OK', this.#sdp()), 50)
    } else if (message.startsWith('CANCEL')) {
      send('200 OK')
      this.#respond(this.requests('INVITE').at(-1), '487 Request Terminated', from)
    } else if (!message.startsWith('ACK')) send('200 OK')
  }

  #sdp () {
    return `v=0\r\no=- 1 1 IN IP4 ${this.address}\r\ns=-\r\nc=IN IP4 ${this.address}\r\nt=0 0\r\n` +
      'm=audio 20000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n'
  }

  #respond (request, status, { address, port }, sdp = '') {
    const kept = request.split('\r\n').filter((line) => /^(Via|From|Call-ID|CSeq|Record-Route):/i.test(line))
    const to = /^To:.*$/im.exec(request)[0]
    const lines = [`SIP/2.0 ${status}`, ...kept, to.includes(';tag=') ? to : `${to};tag=telephone`,
      `Contact: <sip:telephone@${this.address}:5060>`]
    if (sdp) lines.push('Content-Type: application/sdp')
    this.#socket.send(`${[...lines, `Content-Length: ${sdp.length}`, '', sdp].join('\r\n')}`, port, address)
  }

  /** Calls a number through the gateway. */
  call (gateway, number) {
    this.heard = []
    const sdp = this.#sdp()
    this.#dialog = {
      uri: `sip:${number}@${gateway}`,
      head: [`From: <sip:+442079460111@${this.address}>;tag=caller`, `Call-ID: call-${Date.now()}`, 'Max-Forwards: 70',
        `Contact: <sip:telephone@${this.address}:5060>`],
      to: `To: <sip:${number}@${gateway}>`,
      gateway
    }
    this.#request('INVITE', 1, sdp)
  }

  #dialog

  #request (method, sequence, sdp = '') {
    const { uri, head, to, gateway } = this.#dialog
    const lines = [`${method} ${uri} SIP/2.0`, `Via: SIP/2.0/UDP ${this.address}:5060;branch=z9hG4bK${method}${Date.now()}`,
      ...head, to, `CSeq: ${sequence} ${method}`]
    if (sdp) lines.push('Content-Type: application/sdp')
    this.#socket.send(`${[...lines, `Content-Length: ${sdp.length}`, '', sdp].join('\r\n')}`, 5060, gateway)
  }

  #onResponse (message) {
    const status = Number(message.slice(8, 11))
    if (status < 200 || !/^CSeq: *\d+ +INVITE/im.test(message)) return
    this.#dialog.to = /^To:.*$/im.exec(message)[0]
    const contact = /^Contact: *<([^>]+)>/im.exec(message)
    if (status < 300 && contact) this.#dialog.uri = contact[1]
    this.#request('ACK', 1)
  }

  /** The final status of the call, once there is one. */
  get status () {
    const final = this.heard.findLast((message) => /^SIP\/2\.0 [2-6]/.test(message))
    return final && Number(final.slice(8, 11))
  }

  /** Hangs up the call that it has made. */
  hangUp () {
    this.#request('BYE', 2)
  }
}

/** Media that says what a browser would and carries nothing. */
export class StillMedia {
  closed = false
  accepted = undefined

  async createOffer () {
    return describe('actpass')
  }

  async acceptAnswer (sdp) {
    this.accepted = sdp
  }

  async createAnswer (offer) {
    this.accepted = offer
    return describe('active', /^a=mid:(.*)$/m.exec(offer)[1].trim())
  }

  close () {
    this.closed = true
  }
}

const describe = (setup, mid = '0') => ['v=0', 'o=- 1 1 IN IP4 127.0.0.1', 's=-', 't=0 0', `a=group:BUNDLE ${mid}`,
  'm=audio 9 UDP/TLS/RTP/SAVPF 111 126', 'c=IN IP4 0.0.0.0', `a=mid:${mid}`, 'a=sendrecv', 'a=rtcp-mux',
  'a=ice-ufrag:user', 'a=ice-pwd:passwordpasswordpassword', `a=setup:${setup}`,
  `a=fingerprint:sha-256 ${Array(32).fill('AB').join(':')}`,
  'a=rtpmap:111 opus/48000/2', 'a=rtpmap:126 telephone-event/8000', ''].join('\r\n')
