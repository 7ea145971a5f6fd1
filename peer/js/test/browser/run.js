// `make browser`: a page in Chromium with the client, a gateway and a real PBX on this machine; calls both ways, heard and
// measured. The last line is `RESULT browser out=ok in=ok corr=0.95`, with the worst correlation of all four voices.
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { correlation, readWav } from '../audio.js'
import { LAB, Site, loopback, until } from '../site.js'
import { Page } from './page.js'
import { Pbx } from './pbx.js'

const USER = '+15551000'
const CALLER = '+15550199'
const DIGITS = '159*#'
/** How long both sides talk: the whole speech, and a little for what is on the way. */
const TALK_MS = 16_000
/** Waveform correlation below which a voice does not count as heard. */
const HEARD = 0.9
/** How often a call is tried before it counts as failed: a machine that stands still tears holes into a voice. */
const ATTEMPTS = 3

const file = execFileSync(join(LAB, 'speech.sh'), ['path'], { encoding: 'utf8' }).trim()
const speech = readWav(file)
const site = new Site()
const page = new Page()
const pbx = new Pbx()
let recorded = 0

/** Sets the stage: supernode, PBX, gateway, and a page whose key is made in it and stays there. */
async function setStage () {
  console.log('Setting the stage; all of it on loopback')
  const supernode = await site.start('supernode1')
  const address = loopback()
  await pbx.start(join(site.folder, 'asterisk'), address)
  await site.start('gateway1', { address, trunk: pbx.address, bootstrap: [supernode.tcp], numbers: { [USER]: 'webster' } })
  console.log('  supernode, gateway and Asterisk are up')
  const folder = join(site.folder, 'chromium')
  mkdirSync(folder)
  await page.open(folder, file)
  page.tell('enrol', { handle: 'webster' })
  const { pem } = await page.event('request')
  page.tell('join', { certificate: site.certify('webster', pem, [USER]), root: site.root, supernodes: [supernode.websocket] })
  await page.event('online')
  console.log('  the page is online: an overlay user, reached through the supernode by WebSocket')
}

/** Compares what each side heard with what the other has said; returns the worse of both. */
async function judge () {
  const heard = { 'the PBX heard the browser': (await pbx.recordings(recorded)).at(-1), 'the browser heard the PBX': page.recording }
  let worst = 1
  for (const [what, audio] of Object.entries(heard)) {
    const { median, whole, lagMs, above90, blocks } = correlation(speech, audio)
    console.log(`   ${what}: median block ${median.toFixed(3)}, ${Math.round(100 * above90)}% of ${blocks} blocks above 0.9, ` +
      `whole ${whole.toFixed(3)} at ${lagMs.toFixed(1)} ms`)
    if (median < HEARD) throw new Error(`${what}, but not well`)
    worst = Math.min(worst, median)
  }
  return worst
}

async function callOut () {
  page.tell('call', { to: '+442079460620' })
  await page.event('active')
  recorded++
  await pause(TALK_MS)
  page.tell('hang_up')
  const { by } = await page.event('ended')
  if (by !== 'local') throw new Error(`the page hung up, but ${by} ended the call`)
  return await judge()
}

async function digits () {
  const before = pbx.digits.length
  page.tell('call', { to: '+442079460604' })
  await page.event('active')
  page.tell('press', { digits: DIGITS })
  const heard = await until('every digit at the PBX', () => pbx.digits.length >= before + DIGITS.length && pbx.digits.slice(before))
  page.tell('hang_up')
  await page.event('ended')
  if (heard !== DIGITS) throw new Error(`sent ${DIGITS}, the PBX heard ${heard}`)
  console.log(`   the PBX heard ${heard}`)
  return 1
}

async function callIn () {
  pbx.call(USER, CALLER, '620')
  const { from, role } = await page.event('incoming')
  if (from !== CALLER || role !== 'gateway') throw new Error(`the caller was not shown, but ${from}, ${role}`)
  page.tell('answer')
  await page.event('active')
  recorded++
  await pause(TALK_MS)
  pbx.hangUpAll()
  const { by } = await page.event('ended')
  if (by !== 'far') throw new Error(`the PBX hung up, but ${by} ended the call`)
  return await judge()
}

/** Plays one call, and again where it fails. */
async function attempt (what, act) {
  console.log(`\n${what}`)
  for (let left = ATTEMPTS; left > 0; left--) {
    try {
      return await act()
    } catch (error) {
      console.log(`   FAILED: ${error.message}`)
      // What is left of it must not be taken for the next call.
      page.tell('hang_up')
      pbx.hangUpAll()
      await pause(2_000)
      page.forget()
    }
  }
  return undefined
}

let good = false
try {
  await setStage()
  const out = await attempt('the page calls +442079460620: both talk, and it hangs up', callOut)
  const pressed = await attempt('the page sends digits in media', digits)
  const inward = await attempt('the PBX calls the number of the page: both talk, and the PBX hangs up', callIn)
  const [outOk, inOk] = [out !== undefined && pressed !== undefined, inward !== undefined]
  const ok = (value) => (value ? 'ok' : 'failed')
  good = outOk && inOk
  console.log(`\nRESULT browser out=${ok(outOk)} in=${ok(inOk)} corr=${Math.min(out ?? 0, inward ?? 0).toFixed(2)}`)
} finally {
  await page.close()
  pbx.stop()
  site.stop()
}
process.exit(good ? 0 : 1)
