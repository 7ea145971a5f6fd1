// Asterisk as the PBX behind the trunk; its extensions are in tests/lab/asterisk/extensions.conf.
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readWav } from '../audio.js'
import { LAB, bound, loopback, until } from '../site.js'

export class Pbx {
  address = loopback()
  #folder
  #env
  #process

  /** Fetches Asterisk if need be and starts it. @param {string} folder @param {string} gateway address of the gateway */
  async start (folder, gateway) {
    mkdirSync(folder)
    this.#folder = folder
    this.#env = { ...process.env, ASTERISK_ADDRESS: this.address, GATEWAY_ADDRESS: gateway, TRUNK_CODECS: 'alaw,ulaw' }
    const script = join(LAB, 'asterisk.sh')
    execFileSync(script, ['install'], { stdio: 'inherit' })
    this.#process = spawn(...bound(script, ['run', folder]), { env: this.#env, stdio: 'ignore' })
    await until('Asterisk is up', () => this.#try('core waitfullybooted').includes('fully booted'), 30_000)
  }

  stop () {
    this.#process?.kill('SIGKILL')
  }

  /** Runs a command of its console. */
  cli (command) {
    return execFileSync(join(LAB, 'asterisk.sh'), ['cli', this.#folder, command], { env: this.#env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
  }

  #try (command) {
    try {
      return this.cli(command)
    } catch {
      return ''
    }
  }

  /** Calls a number through the gateway and connects it to an extension once it answers. */
  call (number, from, extension) {
    const text = [`Channel: PJSIP/${number}@causeway`, `CallerID: <${from}>`, 'Context: lab', `Extension: ${extension}`, 'Priority: 1',
      'MaxRetries: 0', 'WaitTime: 20', ''].join('\n')
    // Written elsewhere and moved, so that it is never seen half written.
    const draft = join(this.#folder, 'spool/tmp/call')
    writeFileSync(draft, text)
    renameSync(draft, join(this.#folder, 'spool/outgoing/call'))
  }

  hangUpAll () {
    this.cli('channel request hangup all')
  }

  /** The digits received so far on all calls. */
  get digits () {
    const log = readFileSync(join(this.#folder, 'log/dtmf'), 'utf8')
    return [...log.matchAll(/DTMF end '(.)' received on/g)].map(([, digit]) => digit).join('')
  }

  /** What callers of the extension that talks and records said, one recording for each call, oldest first. */
  async recordings (count) {
    const folder = join(this.#folder, 'recordings')
    const order = (name) => Number(/-(\d+\.\d+)-in\.wav$/.exec(name)[1])
    const files = await until(`${count} recordings`, () => {
      const found = readdirSync(folder).filter((name) => /^620-.*-in\.wav$/.test(name)).sort((a, b) => order(a) - order(b))
      return found.length >= count && this.#try('core show channels count').startsWith('0 active channels') && found
    })
    return files.map((name) => readWav(join(folder, name)))
  }
}
