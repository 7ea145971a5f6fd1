// The state machine of a call, in virtual time: two sessions, or one against scripted frames.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FrameDecoder, encodeFrame } from '../src/frame.js'
import { CallSession, Cause, TIMERS } from '../src/session.js'

const INVITE = { call: new Uint8Array(16).fill(1), token: new Uint8Array(16).fill(2), certificate: new Uint8Array(3),
  to: 'bob', media: 'v=0\r\n', nonce: new Uint8Array(16), expires: 9, signature: new Uint8Array(64) }

const types = (session) => session.events.splice(0).map(({ type }) => type)

/** Two ends of a call and a wire between them that can be cut. */
class Pair {
  now = 1_000_000
  up = true

  constructor () {
    this.caller = CallSession.outgoing(INVITE, {}, this.now)
    const [first] = frames(this.caller.transmit.splice(0))
    this.callee = CallSession.incoming(first, {}, this.now)
    this.flow()
  }

  /** Carries everything to the other side until nothing is left. */
  flow () {
    let moved = true
    while (moved) {
      moved = false
      for (const [from, to] of [[this.caller, this.callee], [this.callee, this.caller]]) {
        for (const bytes of from.transmit.splice(0)) {
          moved = true
          if (this.up) to.handleBytes(this.now, bytes)
        }
      }
    }
  }

  do (session, type, fields = {}) {
    session.handleCommand(this.now, { type, ...fields })
    this.flow()
  }

  /** Lets time pass; every timer on the way fires when it is due. */
  pass (ms) {
    const end = this.now + ms
    for (;;) {
      const due = Math.min(this.caller.nextTimeout ?? Infinity, this.callee.nextTimeout ?? Infinity)
      if (due > end) break
      this.now = Math.max(this.now, due)
      this.caller.handleTimeout(this.now)
      this.callee.handleTimeout(this.now)
      this.flow()
    }
    this.now = end
  }

  answer () {
    this.do(this.callee, 'answer', { media: 'answer' })
    this.do(this.callee, 'mediaUp')
    this.do(this.caller, 'mediaUp')
  }

  cut () {
    this.caller.handleClosed(this.now)
    this.callee.handleClosed(this.now)
  }

  resume () {
    this.caller.resume(this.now)
    const [frame] = frames(this.caller.transmit.splice(0))
    assert.ok(this.callee.reattach(this.now, frame))
    this.flow()
  }
}

function frames (parts) {
  const all = []
  const decoder = new FrameDecoder()
  for (const bytes of parts) decoder.feed(bytes, (frame) => { all.push(frame) })
  return all
}

test('a call rings, is answered, held, and ended', () => {
  const pair = new Pair()
  const { caller, callee } = pair
  assert.ok(caller.acknowledged && caller.resumable)
  for (const type of ['trying', 'ringing']) pair.do(callee, type)
  pair.do(callee, 'progress', { media: 'early' })
  assert.deepEqual(caller.events.map(({ type, media }) => media ?? type), ['trying', 'ringing', 'early'])
  assert.equal(caller.state, 'early')
  pair.answer()
  assert.deepEqual([caller.state, callee.state], ['active', 'active'])
  pair.do(callee, 'update', { hold: true })
  assert.deepEqual([caller.state, callee.state], ['held', 'held'])
  pair.do(callee, 'update', { hold: false })
  pair.do(caller, 'dtmf', { digit: '#', durationMs: 100 })
  pair.do(callee, 'message', { text: 'hello' })
  pair.do(caller, 'refer', { to: 'carol' })
  types(callee)
  pair.do(caller, 'bye', { cause: Cause.normal })
  assert.deepEqual([caller.state, callee.state], ['done', 'done'])
  const told = caller.events.splice(0)
  assert.deepEqual(told.slice(3).map(({ type }) => type), ['answered', 'hold', 'hold', 'message', 'not_supported', 'ended'])
  assert.deepEqual(callee.events.splice(0), [{ type: 'ended', cause: 16, sipStatus: undefined, text: '', by: 'far' }])
  assert.ok(caller.isFinished && callee.isFinished)
})

test('ends become the frame that the state asks for', () => {
  const given = (act) => {
    const pair = new Pair()
    act(pair)
    return [pair.caller.events.at(-1), pair.callee.events.at(-1)].map(({ type, cause, by }) => [type, cause, by])
  }
  assert.deepEqual(given((pair) => pair.do(pair.caller, 'bye')), [['ended', 16, 'local'], ['ended', 16, 'far']])
  assert.deepEqual(given((pair) => pair.do(pair.caller, 'cancel', { answeredElsewhere: true })), [['ended', 26, 'local'], ['ended', 26, 'far']])
  assert.deepEqual(given((pair) => pair.do(pair.callee, 'reject', { cause: 17 })), [['ended', 17, 'far'], ['ended', 17, 'local']])
  assert.deepEqual(given((pair) => pair.do(pair.callee, 'bye', { cause: 21 })), [['ended', 21, 'far'], ['ended', 21, 'local']])
})

test('commands without a place are refused and send nothing', () => {
  const pair = new Pair()
  const refused = (session, command, reason) => {
    assert.throws(() => session.handleCommand(pair.now, command), { reason })
    assert.equal(session.transmit.length, 0)
  }
  refused(pair.caller, { type: 'ringing' }, 'state')
  refused(pair.caller, { type: 'answer', media: '' }, 'state')
  refused(pair.caller, { type: 'reject' }, 'state')
  refused(pair.callee, { type: 'update', hold: true }, 'state')
  refused(pair.callee, { type: 'dtmf', digit: '1', durationMs: 100 }, 'state')
  refused(pair.callee, { type: 'message', text: 'x'.repeat(513) }, 'bad_field')
  pair.answer()
  refused(pair.caller, { type: 'dtmf', digit: 'x', durationMs: 100 }, 'bad_field')
  pair.up = false
  for (let n = 0; n < 64; n++) pair.do(pair.caller, 'message', { text: 'x' })
  refused(pair.caller, { type: 'message', text: 'x' }, 'congested')
  pair.do(pair.caller, 'bye')
  refused(pair.caller, { type: 'bye' }, 'ended')
})

test('each timer ends the call with its cause', () => {
  const silent = CallSession.outgoing(INVITE, {}, 0)
  silent.handleTimeout(TIMERS.acknowledge - 1)
  assert.equal(silent.state, 'inviting')
  silent.handleTimeout(TIMERS.acknowledge)
  assert.deepEqual(silent.events.map(({ cause, sipStatus, by }) => [cause, sipStatus, by]), [[18, 408, 'timeout']])

  const ringing = new Pair()
  ringing.do(ringing.callee, 'ringing')
  ringing.pass(TIMERS.ringing)
  assert.deepEqual([ringing.caller.events.at(-1).cause, ringing.callee.events.at(-1).by], [19, 'far'], 'the caller gives up')

  const deaf = new Pair()
  deaf.do(deaf.callee, 'answer', { media: 'answer' })
  deaf.pass(TIMERS.media)
  assert.equal(deaf.caller.events.at(-1).cause, 58)

  const long = new Pair()
  long.answer()
  long.pass(3 * TIMERS.liveness)
  assert.equal(long.caller.state, 'active', 'pings keep a call')
  long.up = false
  long.pass(TIMERS.ping + TIMERS.request + TIMERS.resume)
  for (const session of [long.caller, long.callee]) {
    assert.deepEqual([session.events.at(-1).cause, session.events.at(-1).by], [38, 'lost'], 'a ping without an answer')
  }
})

test('a call survives the loss of its stream, and nothing is lost or heard twice', () => {
  const pair = new Pair()
  pair.answer()
  types(pair.callee)
  pair.up = false
  pair.do(pair.caller, 'message', { text: 'one' })
  pair.cut()
  pair.do(pair.caller, 'message', { text: 'two' })
  assert.ok(pair.caller.wantsResume)
  pair.pass(TIMERS.resume - 1)
  pair.up = true
  pair.resume()
  assert.deepEqual(pair.callee.events.splice(0).map(({ text }) => text), ['one', 'two'])
  assert.equal(pair.caller.state, 'active')
  pair.pass(TIMERS.resume)
  assert.equal(pair.caller.state, 'active', 'the timer of the loss is off')
  pair.do(pair.callee, 'bye')
  assert.equal(pair.caller.state, 'done')
})

test('a stream that does not come back ends the call, with another token it is not taken', () => {
  const pair = new Pair()
  pair.answer()
  pair.cut()
  const resume = { type: 'resume', sequence: 0, call: INVITE.call, token: new Uint8Array(16), received: 0 }
  assert.equal(pair.callee.reattach(pair.now, resume), false)
  assert.equal(pair.callee.reattach(pair.now, { ...resume, token: INVITE.token, received: 99 }), false)
  pair.pass(TIMERS.resume)
  for (const session of [pair.caller, pair.callee]) {
    assert.deepEqual([session.events.at(-1).cause, session.events.at(-1).by], [38, 'lost'])
  }
  const refused = new Pair()
  refused.answer()
  refused.cut()
  refused.caller.resume(refused.now)
  refused.caller.handleBytes(refused.now, encodeFrame({ type: 'ack', sequence: 0, received: 0, code: 4 }))
  assert.equal(refused.caller.events.at(-1).by, 'lost')
})

test('one that was never acknowledged is not resumed', () => {
  const session = CallSession.outgoing(INVITE, {}, 0)
  session.handleClosed(1)
  assert.deepEqual([session.state, session.events.at(-1).cause], ['done', 27])
})

test('a frame that breaks the rules ends the call with 111, a flood with 42', () => {
  const ended = (...sent) => {
    const pair = new Pair()
    pair.answer()
    types(pair.callee)
    for (const frame of sent) pair.callee.handleBytes(pair.now, frame)
    return pair.callee.events.find(({ type }) => type === 'ended')?.cause
  }
  const next = (frame) => encodeFrame({ sequence: 2, ...frame })
  assert.equal(ended(next({ type: 'ping' })), undefined)
  assert.equal(ended(next({ type: 'ping', sequence: 3 })), 111, 'a number was left out')
  assert.equal(ended(next({ type: 'resume', sequence: 0, call: INVITE.call, token: INVITE.token, received: 0 })), 111)
  assert.equal(ended(Uint8Array.of(1, 0xff)), 111)
  const pings = Array.from({ length: 300 }, (_, at) => next({ type: 'ping', sequence: 2 + at }))
  assert.equal(ended(...pings), 42)
})

test('frames without a place are acknowledged and skipped', () => {
  const pair = new Pair()
  types(pair.callee)
  const take = (frame) => {
    pair.callee.handleBytes(pair.now, encodeFrame(frame))
    return frames(pair.callee.transmit.splice(0)).map(({ type, received, code }) => [type, received, code])
  }
  assert.deepEqual(take({ type: 'ringing', sequence: 2 }), [['ack', 2, 2]], 'a caller does not ring')
  assert.deepEqual(take({ type: 'update', sequence: 3, hold: true }), [['ack', 3, 2]])
  assert.deepEqual(take({ type: 'ping', sequence: 3 }), [['ack', 3, 0]], 'a repetition')
  assert.deepEqual(take({ type: 'refer', sequence: 4, to: 'carol' }), [['ack', 4, 1]])
  assert.deepEqual(types(pair.callee), [])
  assert.throws(() => CallSession.incoming({ type: 'ping', sequence: 1 }, {}, 0), { reason: 'not_an_invite' })
})

test('both may end the call at once', () => {
  const pair = new Pair()
  pair.answer()
  pair.caller.handleCommand(pair.now, { type: 'bye' })
  pair.callee.handleCommand(pair.now, { type: 'bye' })
  pair.flow()
  assert.deepEqual([pair.caller.state, pair.callee.state], ['done', 'done'])
  for (const session of [pair.caller, pair.callee]) {
    assert.equal(session.events.filter(({ type }) => type === 'ended').length, 1)
  }
})
