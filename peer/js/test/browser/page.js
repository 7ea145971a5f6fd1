// Chromium with a page that the laboratory commands: see user.js.
import { execFileSync, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { fromFloats } from '../audio.js'
import { LAB, bound } from '../site.js'

const START_MS = 60_000
const FILES = {
  '/': ['text/html', new URL('index.html', import.meta.url)],
  '/user.js': ['text/javascript', new URL('user.js', import.meta.url)],
  '/causeway.js': ['text/javascript', new URL('../../dist/causeway.js', import.meta.url)]
}

/** A page in a browser, with a wav file as its microphone. */
export class Page {
  #server
  #chromium
  #commands = []
  #events = []
  /** Wakes the page's question for a command. */
  #asked
  #recording
  #log = ''

  /** Installs Chromium if need be and loads the page. @param {string} folder @param {string} wav */
  async open (folder, wav) {
    execFileSync(join(LAB, 'chromium.sh'), ['install'])
    this.#server = createServer((request, response) => this.#answer(request, response))
    // A page from the loopback device may use the microphone without TLS.
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${this.#server.address().port}/`
    const env = { ...process.env, CHROMIUM_WAV: wav }
    this.#chromium = spawn(...bound(join(LAB, 'chromium.sh'), ['run', folder, url]), { env, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const output of [this.#chromium.stdout, this.#chromium.stderr]) output.on('data', (text) => { this.#log += text })
    await this.event('ready', START_MS)
  }

  async close () {
    if (!this.#chromium || this.#chromium.exitCode !== null) return
    const ended = new Promise((resolve) => this.#chromium.once('exit', resolve))
    this.#chromium.kill('SIGTERM')
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 5_000))])
    this.#chromium.kill('SIGKILL')
    this.#server.close()
    this.#server.closeAllConnections()
  }

  /** Gives a command. */
  tell (command, fields = {}) {
    this.#recording = undefined
    this.#commands.push(JSON.stringify({ command, ...fields }))
    this.#asked?.()
  }

  /** Waits for an event and returns it; those before it are lost. @param {string} name @param {number} [ms] */
  async event (name, ms = 20_000) {
    const end = Date.now() + ms
    const seen = []
    for (;;) {
      const told = this.#events.shift()
      if (told?.event === name) return told
      if (told?.event === 'error' || told?.event === 'ended') throw new Error(`no ${name}, but ${JSON.stringify(told)}`)
      if (told) seen.push(told.event)
      else if (Date.now() > end) throw new Error(`no ${name} in time; seen ${seen}\n${this.#log.slice(-2000)}`)
      else await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  /** Forgets what has happened so far. */
  forget () {
    this.#events = []
  }

  /** What was heard in the call that has ended. */
  get recording () {
    if (!this.#recording) throw new Error('nothing was heard')
    return this.#recording
  }

  async #answer (request, response) {
    const url = new URL(request.url, 'http://page')
    const end = (status, type = 'text/plain', body = '') => response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' }).end(body)
    const parts = []
    for await (const part of request) parts.push(part)
    const body = Buffer.concat(parts)
    if (url.pathname === '/command') {
      if (this.#commands.length === 0) await new Promise((resolve) => { this.#asked = resolve })
      return end(200, 'application/json', this.#commands.shift())
    }
    if (url.pathname === '/event') {
      this.#events.push(JSON.parse(body))
      return end(204)
    }
    if (url.pathname === '/recording') {
      this.#recording = fromFloats(body, Number(url.searchParams.get('rate')))
      return end(204)
    }
    const [type, file] = FILES[url.pathname] ?? []
    return file ? end(200, type, readFileSync(file)) : end(404)
  }
}
