// The client against running daemons: enrolment, look-ups, calls out and in by signalling.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { CausewayClient, CausewayError, Cause, Identity } from '../src/index.js'
import { Site, StillMedia, Telephone, event, until } from './site.js'

const ALICE = '+15551000'
let site, telephone, supernode, gateway

before(async () => {
  site = new Site()
  telephone = new Telephone()
  await telephone.open()
  supernode = await site.start('supernode1')
  gateway = await site.start('gateway1', { trunk: telephone.address, bootstrap: [supernode.tcp], numbers: { [ALICE]: 'alice' } })
})

after(() => {
  telephone?.close()
  site?.stop()
})

const client = (identity, options = {}) =>
  new CausewayClient({ identity, supernodes: [supernode.websocket], createMedia: () => new StillMedia(), ...options })

async function joined (t, handle, options, ...numbers) {
  const user = client(await site.user(handle, ...numbers), options)
  t.after(() => user.stop())
  await user.start()
  if (options?.reachable !== false) await until(`${handle} is online`, () => user.isOnline)
  return user
}

/** The gateway's offer takes a moment to reach the supernode. */
const offers = async (user, number) => await until('an offer', async () => {
  const found = await user.node.findOffers(number)
  return found.length > 0 && found
})

test('records are found by any supernode, verified here', async (t) => {
  const bob = await joined(t, 'bob')
  const carol = await joined(t, 'carol', { reachable: false, supernodes: [supernode.websocket, gateway.websocket] })
  await until('two supernodes', () => carol.node.supernodes.length === 2)
  assert.deepEqual(carol.node.supernodes.sort(), ['gateway1', 'supernode1'])
  const location = await carol.node.findLocation('Bob')
  assert.equal(location.devices[0].peer, bob.node.peerId)
  assert.match(location.devices[0].addresses[0], new RegExp(`/tcp/4001/p2p/${supernode.peer}/p2p-circuit/p2p/`))
  assert.match(location.devices[0].addresses[1], /\/tcp\/4002\/ws\//, 'browsers reach it too')
  assert.equal((await until('the number', () => carol.node.findNumber(ALICE))).handle, 'alice')
  assert.equal(await carol.node.findLocation('nobody'), undefined)
  const [offer] = await offers(carol, '+442079460600')
  assert.equal(offer.peer, gateway.peer)
  assert.equal(offer.gateway.name, 'gateway1')
  assert.deepEqual(await carol.node.findOffers('+33123456789'), [])
})

test('a call to a number rings, is answered, and is hung up', async (t) => {
  const dave = await joined(t, 'dave')
  await offers(dave, '+442079460600')
  const media = new StillMedia()
  const call = dave.call('+44 20 7946 0600', { media, displayName: 'Dave' })
  await event(call, 'ringing')
  await event(call, 'answered')
  assert.match(media.accepted, /a=ice-lite[\s\S]*a=candidate:[\s\S]*a=setup:passive/)
  assert.match(telephone.requests('INVITE').at(-1), /^From:.*"?Dave"?/m)
  call.hangUp()
  const end = await call.ended
  assert.deepEqual([end.cause, end.by, call.state, media.closed], [Cause.normal, 'local', 'ended', true])
  await until('BYE', () => telephone.requests('BYE').length === 1)
  assert.equal(dave.calls.length, 0)
})

test('busy is heard as busy, and a call that rings is given up', async (t) => {
  const erin = await joined(t, 'erin')
  await offers(erin, '+442079460017')
  const busy = erin.call('+442079460017')
  const end = await busy.ended
  assert.deepEqual([end.cause, end.sipStatus, end.by], [Cause.busy, 486, 'far'])
  const ringing = erin.call('+442079460607')
  await event(ringing, 'ringing')
  ringing.hangUp()
  assert.equal((await ringing.ended).by, 'local')
  await until('CANCEL', () => telephone.requests('CANCEL').length === 1)
})

test('a number that no gateway takes is not found', async (t) => {
  const frank = await joined(t, 'frank', { reachable: false })
  const end = await frank.call('+33123456789').ended
  assert.deepEqual([end.cause, end.sipStatus], [1, 404])
  const user = await frank.call('nobody').ended
  assert.deepEqual([user.cause, user.sipStatus], [1, 404])
})

test('a number rings the user, who answers; the telephone hangs up', async (t) => {
  const alice = await joined(t, 'alice', {}, ALICE)
  const came = event(alice, 'incoming')
  telephone.call(gateway.address, ALICE)
  const { call } = await came
  assert.deepEqual([call.from.address, call.from.role, call.from.peer, call.to], ['+442079460111', 'gateway', gateway.peer, 'alice'])
  call.ring()
  await until('180', () => telephone.heard.some((message) => message.startsWith('SIP/2.0 180')))
  await call.answer()
  assert.match(call.media.accepted, /a=ice-lite/)
  await until('200', () => telephone.status === 200)
  telephone.hangUp()
  const end = await call.ended
  assert.deepEqual([end.cause, end.by], [Cause.normal, 'far'])
})

test('a user who refuses is busy to the telephone', async (t) => {
  const alice = await joined(t, 'alice', {}, ALICE)
  const came = event(alice, 'incoming')
  telephone.call(gateway.address, ALICE)
  const { call } = await came
  call.reject({ cause: Cause.busy })
  await until('486', () => telephone.status === 486)
  assert.equal((await call.ended).by, 'local')
})

test('two clients call each other through the relay', async (t) => {
  const [grace, heidi] = [await joined(t, 'grace'), await joined(t, 'heidi')]
  const came = event(heidi, 'incoming')
  const call = grace.call('heidi')
  const { call: incoming } = await came
  assert.deepEqual([incoming.from.address, incoming.from.role], ['grace', 'user'])
  incoming.ring()
  await event(call, 'ringing')
  await incoming.answer()
  await until('answered', () => call.state === 'answered')
  const text = event(incoming, 'message')
  call.sendDigit('5')
  assert.equal((await event(incoming, 'dtmf')).digit, '5')
  call.sendText('hello')
  assert.equal((await text).text, 'hello')
  const held = event(call, 'hold')
  incoming.hold(true)
  assert.equal((await held).on, true)
  incoming.hangUp()
  assert.equal((await call.ended).by, 'far')
})

test('a softphone is called through a relay that the client was not told of, and calls back', async (t) => {
  const other = await site.start('supernode2', { bootstrap: [supernode.tcp] })
  const rupert = await site.softphone('rupert', other.tcp)
  const sybil = await joined(t, 'sybil')
  const call = sybil.call('rupert')
  await until('answered', () => call.state === 'answered' || call.hasEnded)
  assert.equal(call.state, 'answered')
  assert.match(call.media.accepted, /opus/)
  call.hangUp()
  const came = event(sybil, 'incoming')
  rupert.tell({ command: 'call', to: 'sybil' })
  const { call: incoming } = await came
  assert.deepEqual([incoming.from.address, incoming.from.role], ['rupert', 'user'])
  await incoming.answer()
  assert.equal(incoming.state, 'answered')
  incoming.hangUp()
  await until('rupert hears the end', () => rupert.said().filter(({ event: what }) => what === 'ended').length === 2)
})

test('a user whose supernode dies is reached through another', async (t) => {
  const dying = await site.start('supernode3', { bootstrap: [supernode.tcp] })
  const victor = await joined(t, 'victor', { supernodes: [dying.websocket, supernode.websocket] })
  const wendy = await joined(t, 'wendy', { reachable: false })
  const both = await until('both relays', async () => {
    const location = await wendy.node.findLocation('victor')
    const at = (node) => location?.devices[0].addresses.some((address) => address.includes(node.peer))
    return at(dying) && at(supernode)
  })
  assert.ok(both)
  dying.stop()
  await until('one supernode', () => victor.node.supernodes.length === 1)
  const came = event(victor, 'incoming')
  wendy.call('victor')
  assert.equal((await came).call.from.address, 'wendy')
})

test('signalling that is lost is taken up on another connection', async (t) => {
  const [ivan, judy] = [await joined(t, 'ivan'), await joined(t, 'judy')]
  const came = event(judy, 'incoming')
  const call = ivan.call('judy')
  const { call: incoming } = await came
  await incoming.answer()
  await until('answered', () => call.state === 'answered')
  for (const each of [call, incoming]) each.media.onconnected()
  await ivan.node.dropConnections()
  const text = event(incoming, 'message', 20_000)
  await until('the text is taken', () => {
    call.sendText('still here')
    return true
  })
  assert.equal((await text).text, 'still here')
  assert.equal(call.state, 'active')
})

test('the overlay that another root certifies is not joined', async () => {
  const other = new Site()
  try {
    const mallory = client(await other.user('mallory'))
    const refused = (error) => error instanceof CausewayError && /certificate of Lab enrolment is wrong/.test(error.message)
    await assert.rejects(mallory.start(), refused)
    assert.deepEqual(mallory.node.supernodes, [])
    await mallory.stop()
  } finally {
    other.stop()
  }
})

test('what is enrolled for another key, or revoked, is no identity', async () => {
  const [one, two] = [await site.user('kim'), await site.user('lee')]
  const parts = { key: two.key, certificate: one.certificate.toPem(), root: site.root }
  await assert.rejects(Identity.load(parts), { reason: 'wrong_key' })
  const revocations = site.revoke(one.certificate.serial)
  await assert.rejects(Identity.load({ ...parts, key: one.key, revocations }), { reason: 'revoked' })
})
