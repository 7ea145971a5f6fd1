// The measure of voices is measured itself.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { correlation, fft, fromFloats, resampled, rms } from './audio.js'

/** Noise that is the same every time, low-passed a little, with pauses as speech has them. */
function voice (seconds, seed) {
  let state = seed
  let last = 0
  const samples = Float64Array.from({ length: seconds * 8000 }, (_, n) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    last = 0.7 * last + 0.3 * ((state >>> 8) / 2 ** 23 - 1)
    return n % 8000 < 6000 ? last : 0
  })
  return { rate: 8000, samples }
}

const delayed = ({ rate, samples }, ms, gain = 1) => {
  const by = Math.round((rate * ms) / 1000)
  const out = new Float64Array(samples.length + by)
  samples.forEach((x, n) => { out[n + by] = gain * x })
  return { rate, samples: out }
}

test('a copy is found wherever it begins, however loud it is', () => {
  const said = voice(4, 1)
  for (const ms of [0, 20, 500]) {
    const found = correlation(said, delayed(said, ms, 0.3))
    assert.ok(found.median > 0.999 && found.whole > 0.999 && found.above90 === 1, JSON.stringify(found))
    assert.ok(Math.abs(found.lagMs - ms) < 0.2, `${found.lagMs} ms of ${ms}`)
  }
  const late = { rate: 8000, samples: said.samples.subarray(4000) }
  assert.ok(Math.abs(correlation(said, late).lagMs + 500) < 0.2, 'the beginning is missing')
})

test('a jump in the middle is followed', () => {
  const said = voice(6, 2)
  const jumped = new Float64Array(said.samples.length + 800)
  jumped.set(said.samples.subarray(0, 24_000))
  jumped.set(said.samples.subarray(24_000), 24_800)
  const found = correlation(said, { rate: 8000, samples: jumped })
  assert.ok(found.median > 0.99 && found.above90 > 0.9, JSON.stringify(found))
})

test('another voice, noise and silence are not taken for it', () => {
  const said = voice(4, 3)
  for (const other of [voice(4, 99), { rate: 8000, samples: new Float64Array(32_000) }, { rate: 8000, samples: new Float64Array(0) }]) {
    assert.ok(correlation(said, other).median < 0.5)
  }
})

test('the rate does not matter', () => {
  const said = voice(3, 4)
  const up = resampled(said, 48_000)
  assert.equal(up.samples.length, 144_000)
  assert.ok(Math.abs(rms(up.samples) / rms(said.samples) - 1) < 0.02)
  assert.ok(correlation(said, delayed(up, 100.3)).median > 0.99)
  const floats = Float32Array.from(up.samples)
  assert.ok(correlation(said, fromFloats(Buffer.from(floats.buffer), 48_000)).median > 0.99)
})

test('the transform is the one of the definition', () => {
  const re = Float64Array.from([1, 2, 3, 4, 0, 0, 0, -1])
  const [x, im] = [Float64Array.from(re), new Float64Array(8)]
  fft(x, im)
  for (let k = 0; k < 8; k++) {
    const sum = (part) => re.reduce((total, value, n) => total + value * part((-2 * Math.PI * k * n) / 8), 0)
    assert.ok(Math.abs(x[k] - sum(Math.cos)) < 1e-9 && Math.abs(im[k] - sum(Math.sin)) < 1e-9)
  }
})
