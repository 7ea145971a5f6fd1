// The relay of a running supernode, asked for by the client, and used by a TURN client of a few lines
// that shares no code with either.
import assert from 'node:assert/strict'
import { createHash, createHmac } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { after, before, test } from 'node:test'
import { CausewayClient } from '../src/index.js'
import { encode } from '../src/cbor.js'
import { decodeTurn } from '../src/wire.js'
import { Site, StillMedia, until } from './site.js'

let site, supernode, plain

before(async () => {
  site = new Site()
  supernode = await site.start('supernode1', { turn: true })
  plain = await site.start('supernode2', { bootstrap: [supernode.tcp] })
})

after(() => site?.stop())

/** Sends a request (RFC 8489 5) and reads the attributes of the answer. */
async function ask (socket, [host, port], method, attributes, key) {
  const padded = (type, value) => {
    const head = Buffer.alloc(4)
    head.writeUInt16BE(type, 0)
    head.writeUInt16BE(value.length, 2)
    return Buffer.concat([head, value, Buffer.alloc((4 - value.length % 4) % 4)])
  }
  let body = Buffer.concat(attributes.map(([type, value]) => padded(type, Buffer.from(value))))
  const head = Buffer.alloc(20)
  head.writeUInt16BE(method, 0)
  head.writeUInt32BE(0x2112A442, 4)
  crypto.getRandomValues(head.subarray(8))
  head.writeUInt16BE(body.length + (key ? 24 : 0), 2)
  if (key) body = Buffer.concat([body, padded(8, createHmac('sha1', key).update(head).update(body).digest())])
  const heard = new Promise((resolve) => socket.once('message', resolve))
  socket.send(Buffer.concat([head, body]), port, host)
  const answer = await heard
  const found = new Map()
  for (let at = 20; at < answer.length;) {
    const length = answer.readUInt16BE(at + 2)
    found.set(answer.readUInt16BE(at), answer.subarray(at + 4, at + 4 + length))
    at += 4 + Math.ceil(length / 4) * 4
  }
  return { type: answer.readUInt16BE(0), found }
}

test('a client is given relays, which take its credential', async (t) => {
  const identity = await site.user('alice')
  const client = new CausewayClient({
    identity, supernodes: [supernode.websocket, plain.websocket], createMedia: () => new StillMedia()
  })
  t.after(() => client.stop())
  await client.start()
  await until('two supernodes', () => client.node.supernodes.length === 2)
  const [relay, ...more] = await until('a relay', async () => {
    const found = await client.node.iceServers()
    return found.length > 0 && found
  })
  assert.equal(more.length, 0, 'the other supernode has none')
  const { address } = supernode
  assert.deepEqual(relay.urls, [`turn:${address}:3478?transport=udp`, `turn:${address}:3478?transport=tcp`])
  assert.deepEqual(await client.node.iceServers(), [relay], 'it is kept')

  const socket = createSocket('udp4')
  t.after(() => socket.close())
  const udp = [[0x19, [17, 0, 0, 0]]]
  const first = await ask(socket, [address, 3478], 3, udp)
  assert.equal(first.type, 0x113)
  const [realm, nonce] = [first.found.get(0x14), first.found.get(0x15)]
  const named = (credential) => createHash('md5').update(`${relay.username}:${realm}:${credential}`).digest()
  const signed = [...udp, [6, relay.username], [0x14, realm], [0x15, nonce]]
  const wrong = await ask(socket, [address, 3478], 3, signed, named('guessed'))
  assert.deepEqual([wrong.type, wrong.found.get(9).subarray(2, 4).join('')], [0x113, '41'])
  const right = await ask(socket, [address, 3478], 3, signed, named(relay.credential))
  assert.equal(right.type, 0x103)
  assert.ok(right.found.has(0x16), 'a relayed address')
})

test('answers of a supernode are read with care', () => {
  const endpoint = (...values) => new Map(values.map((value, at) => [at, value]))
  const answer = (changes) => encode(new Map([...Object.entries({
    0: 'name', 1: 'word', 2: 2_000_000_000, 3: [endpoint(0, '192.0.2.1:3478')], 4: null, ...changes
  })].map(([key, value]) => [Number(key), value])))
  assert.deepEqual(decodeTurn(answer({})), {
    urls: ['turn:192.0.2.1:3478?transport=udp'], username: 'name', credential: 'word', expires: 2_000_000_000
  })
  const endpoints = [endpoint(1, '[2001:db8::1]:3478'), endpoint(2, '192.0.2.1:443', 'turn.example.org'), endpoint(9, 'x')]
  assert.deepEqual(decodeTurn(answer({ 3: endpoints })).urls,
    ['turn:[2001:db8::1]:3478?transport=tcp', 'turns:turn.example.org:443?transport=tcp'])
  assert.equal(decodeTurn(answer({ 4: 'unproven' })), undefined)
  assert.equal(decodeTurn(answer({ 3: [] })), undefined)
  for (const broken of [{ 0: '' }, { 0: 5 }, { 1: 'x'.repeat(257) }, { 2: 'soon' }, { 3: [endpoint(0, 'localhost:1')] },
    { 3: [endpoint(2, '192.0.2.1:443', 'a/b')] }, { 3: [endpoint('udp', '192.0.2.1:1')] }]) {
    assert.throws(() => decodeTurn(answer(broken)), JSON.stringify(broken))
  }
  assert.throws(() => decodeTurn(Uint8Array.of(0xff)))
})
