// Certificates and keys, against those that the reference implementation writes.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { firstPem, toHex } from '../src/bytes.js'
import { HandleCertificate, NodeChain, decodeCredential } from '../src/credential.js'
import { Identity } from '../src/identity.js'
import { NodeKey } from '../src/key.js'
import { Revocations, Trust } from '../src/trust.js'
import { Certificate, writeRequest } from '../src/x509.js'
import { NOW, bent, vector, vectors } from './vectors.js'

const trust = await Trust.fromPem(vectors.root)
const none = new Revocations()
const user = HandleCertificate.fromPem(vectors.user_certificate)
const gateway = new NodeChain(vector('gateway_chain'))
const key = await NodeKey.fromPem(vectors.user_key)

test('a key has the peer id and the PEM of the reference', async () => {
  assert.equal(key.peerId.toString(), vectors.user_peer)
  assert.equal(key.toPem(), vectors.user_key)
  const fresh = await NodeKey.generate()
  const again = await NodeKey.fromPem(fresh.toPem())
  assert.equal(again.public.hex, fresh.public.hex)
  assert.notEqual(fresh.public.hex, key.public.hex)
})

test('a request is the very one that the reference writes', async () => {
  assert.equal(await writeRequest('alice', key), vectors.user_request)
  await assert.rejects(writeRequest('', key), { reason: 'invalid_claim' })
  await assert.rejects(writeRequest('a\u0007', key), { reason: 'invalid_claim' })
})

test('a handle certificate is read and verified', async () => {
  await user.verify(trust, none, NOW)
  assert.equal(user.handle, 'alice')
  assert.deepEqual(user.numbers, ['+442079460018'])
  assert.equal(user.serial, 2001n)
  assert.equal(user.toPem(), vectors.user_certificate)
  assert.ok(user.keyOf(key.peerId))
  assert.ok(user.mayCallAs('alice') && user.mayCallAs('+442079460018') && !user.mayCallAs('+442079460019'))
})

test('a chain is read and verified', async () => {
  await gateway.verify(trust, none, NOW)
  assert.equal(gateway.key.peerId.toString(), vectors.gateway_peer)
  assert.deepEqual(gateway.claims, { role: 'gateway', prefixes: ['44', '1555'], numberPrefixes: ['44', '1555'], rate: undefined })
  const supernode = await new NodeChain(vector('supernode_chain')).verify(trust, none, NOW)
  assert.deepEqual([supernode.name, supernode.claims.role], ['node-5', 'supernode'])
  assert.ok(decodeCredential(user.bytes) instanceof HandleCertificate)
  assert.ok(decodeCredential(gateway.bytes) instanceof NodeChain)
})

test('an authority that assigns numbers certifies nobody', async () => {
  const forged = new HandleCertificate(vector('user_of_numbers'))
  await assert.rejects(forged.verify(trust, none, NOW), { reason: 'outside_issuer_limits' })
})

test('time, revocation and another root void a certificate', async () => {
  const year = 366 * 86_400
  await assert.rejects(user.verify(trust, none, NOW - year), { reason: 'certificate_not_yet_valid' })
  await assert.rejects(user.verify(trust, none, NOW + 40 * 86_400), { reason: 'certificate_expired' })
  await assert.rejects(gateway.verify(trust, none, NOW + 40 * 86_400), { reason: 'certificate_expired' })
  const revocations = await Revocations.fromPem(vectors.revocations, trust, NOW)
  const revoked = new NodeChain(vector('revoked_chain'))
  await revoked.verify(trust, none, NOW)
  await assert.rejects(revoked.verify(trust, revocations, NOW), { reason: 'revoked' })
  await gateway.verify(trust, revocations, NOW)
  assert.deepEqual(revocations.held().map(({ version }) => version), [1n])
  assert.equal(revocations.toPem(), vectors.revocations)
})

test('every byte of a certificate counts', async () => {
  for (const [original, read] of [[user.bytes, (bytes) => new HandleCertificate(bytes)], [gateway.bytes, (bytes) => new NodeChain(bytes)]]) {
    for (let at = 0; at < original.length; at++) {
      const act = async () => await read(bent(original, at)).verify(trust, none, NOW)
      await assert.rejects(act, (error) => error.name === 'CausewayError', `byte ${at}`)
    }
  }
})

test('every byte of a revocation list counts', async () => {
  const list = firstPem(vectors.revocations, 'CAUSEWAY REVOCATION LIST')
  for (let at = 0; at < list.length; at++) {
    const merged = new Revocations()
    await assert.rejects(merged.apply(bent(list, at), trust, NOW), { name: 'CausewayError' }, `byte ${at}`)
    assert.deepEqual(merged.held(), [])
  }
  const merged = new Revocations()
  assert.equal(await merged.apply(list, trust, NOW), true)
  assert.equal(await merged.apply(list, trust, NOW), false, 'the very list that is held is no news')
})

test('what is cut short or too long is refused', async () => {
  for (let length = 0; length < user.bytes.length; length++) {
    assert.throws(() => new HandleCertificate(user.bytes.subarray(0, length)), { name: 'CausewayError' })
  }
  assert.throws(() => decodeCredential(new Uint8Array(5000)), { reason: 'identity_oversize' })
  assert.throws(() => new Certificate(new Uint8Array(3000)), { reason: 'identity_oversize' })
  const longer = Uint8Array.from([...user.bytes, 0])
  assert.throws(() => new HandleCertificate(longer), { name: 'CausewayError' })
})

test('an authority that may not issue is none', async () => {
  // The enrolment authority in the place of a root: its path has no room for another.
  const pem = new Trust([gateway.enrolment]).toPem()
  await assert.rejects(Trust.fromPem(pem), { reason: 'not_authority' })
  await assert.rejects(gateway.leaf.checkIssuedBy(gateway.leaf, 0), { reason: 'not_authority' })
  await assert.rejects(Trust.fromPem(''), { reason: 'pem_missing' })
  // A node in the place of an enrolment authority.
  const wrong = new NodeChain(gateway.bytes)
  wrong.enrolment = gateway.leaf
  await assert.rejects(wrong.verify(trust, none, NOW), { name: 'CausewayError' })
})

test('an identity is put together of parts that fit', async () => {
  const parts = { key: vectors.user_key, certificate: vectors.user_certificate, root: vectors.root }
  const identity = await Identity.load(parts, NOW)
  assert.equal(identity.handle, 'alice')
  const other = await NodeKey.generate()
  await assert.rejects(Identity.load({ ...parts, key: other }, NOW), { reason: 'wrong_key' })
  await assert.rejects(Identity.load({ ...parts, key: 'nothing' }, NOW), { reason: 'pem_missing' })
  await assert.rejects(Identity.load(parts, NOW + 100 * 86_400), { reason: 'certificate_expired' })
  assert.equal(toHex(identity.key.public.bytes), key.public.hex)
})
