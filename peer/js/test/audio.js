// Sound as samples, and how alike what was heard is to what was said.
import { readFileSync } from 'node:fs'

/** Codecs delay by fractions of a sample of telephone sound, so waveforms are compared on a finer grid. */
const COARSE = 8_000
const SCALE = 4
const FINE = COARSE * SCALE
/** A block of 125 ms. */
const BLOCK = FINE / 8
/** How far around the lag of the block before a block is looked for: 1.25 ms. */
const NEAR = FINE / 800
/** How far a jitter buffer may have moved the sound, in samples of the coarse grid: 750 ms. */
const FAR = (COARSE * 3) / 4
/** Blocks this much quieter than the whole (-30 dB) are pauses; they hold nothing to compare. */
const PAUSE = 0.0316
/** Zero crossings of the interpolating filter on each side. */
const CROSSINGS = 16

/** Reads a wav file: 16 bit, one channel. @param {string} path */
export function readWav (path) {
  const bytes = readFileSync(path)
  const rate = bytes.readUInt32LE(24)
  const at = bytes.indexOf('data') + 8
  const samples = new Float64Array((bytes.length - at) >> 1)
  for (let n = 0; n < samples.length; n++) samples[n] = bytes.readInt16LE(at + 2 * n) / 32768
  return { rate, samples }
}

/** Takes 32-bit floating point samples. @param {Buffer} bytes @param {number} rate */
export function fromFloats (bytes, rate) {
  const samples = new Float64Array(bytes.length >> 2)
  for (let n = 0; n < samples.length; n++) samples[n] = bytes.readFloatLE(4 * n)
  return { rate, samples }
}

/** The same sound at another rate: what both can hold, by windowed sinc. */
export function resampled ({ rate, samples }, to) {
  if (rate === to) return { rate, samples }
  const cutoff = Math.min(1, to / rate)
  const reach = CROSSINGS / cutoff
  const out = new Float64Array(Math.floor((samples.length * to) / rate))
  for (let n = 0; n < out.length; n++) {
    const at = (n * rate) / to
    let sum = 0
    for (let k = Math.max(0, Math.ceil(at - reach)); k <= Math.min(samples.length - 1, at + reach); k++) {
      const x = Math.PI * cutoff * (at - k)
      const window = 0.5 + 0.5 * Math.cos((Math.PI * (at - k)) / reach)
      sum += samples[k] * window * (x === 0 ? 1 : Math.sin(x) / x)
    }
    out[n] = sum * cutoff
  }
  return { rate: to, samples: out }
}

/**
 * Finds what was said in what was heard and says how well it survived.
 *
 * @returns {{ whole: number, lagMs: number, median: number, above90: number, blocks: number }} the
 *   normalised correlation of the whole overlap at the best lag; the median over blocks of 125 ms,
 *   following drift and jumps of the lag; the share of blocks above 0.9
 */
export function correlation (said, heard) {
  const coarse = [said, heard].map((audio) => resampled(audio, COARSE))
  const [a, b] = coarse.map((audio) => resampled(audio, FINE).samples)
  const lag = bestLag(coarse[0].samples, coarse[1].samples) * SCALE
  const search = { a, b, coarse: coarse.map(({ samples }) => samples), lag: nearest(a, b, lag) }
  const loud = rms(a) * PAUSE
  const blocks = []
  for (let at = 0; at + BLOCK <= a.length; at += BLOCK) {
    const inside = at + search.lag >= 0 && at + search.lag + BLOCK <= b.length
    if (inside && rms(a.subarray(at, at + BLOCK)) > loud) blocks.push(block(search, at))
  }
  blocks.sort((x, y) => x - y)
  return {
    whole: overlap(a, b, search.lag),
    lagMs: (lag * 1000) / FINE,
    median: blocks[blocks.length >> 1] ?? 0,
    above90: blocks.filter((value) => value > 0.9).length / Math.max(1, blocks.length),
    blocks: blocks.length
  }
}

/** The correlation of one block, looked for where the block before was found, and farther away if it is not there. */
function block (search, at) {
  const { a, b } = search
  const part = a.subarray(at, at + BLOCK)
  const around = (lag) => {
    let best = [-1, lag]
    for (let near = lag - NEAR; near <= lag + NEAR; near++) {
      const value = at + near >= 0 && at + near + BLOCK <= b.length ? normalised(part, b.subarray(at + near, at + near + BLOCK)) : -1
      if (value > best[0]) best = [value, near]
    }
    return best
  }
  let [value, lag] = around(search.lag)
  if (value < 0.9) {
    const [other, far] = around(wide(search, at / SCALE) * SCALE)
    if (other > value) [value, lag] = [other, far]
  }
  if (value > 0.9) search.lag = lag
  return Math.max(0, value)
}

function wide ({ coarse: [a, b], lag }, at) {
  const part = a.subarray(at, at + BLOCK / SCALE)
  const middle = Math.round(lag / SCALE)
  let best = [-1, middle]
  for (let far = middle - FAR; far <= middle + FAR; far++) {
    if (at + far < 0 || at + far + part.length > b.length) continue
    const value = normalised(part, b.subarray(at + far, at + far + part.length))
    if (value > best[0]) best = [value, far]
  }
  return best[1]
}

/** The lag near another at which the whole fits best. */
function nearest (a, b, lag) {
  let best = [-1, lag]
  for (let near = lag - SCALE; near <= lag + SCALE; near++) {
    const value = overlap(a, b, near)
    if (value > best[0]) best = [value, near]
  }
  return best[1]
}

function overlap (a, b, lag) {
  const from = Math.max(0, -lag)
  const length = Math.min(a.length - from, b.length - from - lag)
  return length > 0 ? normalised(a.subarray(from, from + length), b.subarray(from + lag, from + lag + length)) : 0
}

/** The lag at which `b` fits `a` best: the peak of their cross-correlation, by FFT. */
function bestLag (a, b) {
  const size = 2 ** Math.ceil(Math.log2(a.length + b.length + 1))
  const spectrum = (samples) => {
    const parts = [new Float64Array(size), new Float64Array(size)]
    parts[0].set(samples)
    fft(...parts)
    return parts
  }
  const [[re, im], [otherRe, otherIm]] = [spectrum(a), spectrum(b)]
  for (let n = 0; n < size; n++) {
    // The conjugate of the product with the conjugate: its transform is the inverse, mirrored.
    const real = otherRe[n] * re[n] + otherIm[n] * im[n]
    im[n] = -(otherIm[n] * re[n] - otherRe[n] * im[n])
    re[n] = real
  }
  fft(re, im)
  let peak = 0
  for (let n = 1; n < size; n++) {
    if (re[n] > re[peak]) peak = n
  }
  return peak > size / 2 ? peak - size : peak
}

/** The discrete Fourier transform in place; the length is a power of two. */
export function fft (re, im) {
  const n = re.length
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1
    for (; j & bit; bit >>= 1) j ^= bit
    j ^= bit
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]]
    }
  }
  for (let length = 2; length <= n; length *= 2) {
    const half = length / 2
    for (let k = 0; k < half; k++) {
      const [c, s] = [Math.cos((-2 * Math.PI * k) / length), Math.sin((-2 * Math.PI * k) / length)]
      for (let i = k; i < n; i += length) {
        const [x, y] = [re[i + half] * c - im[i + half] * s, re[i + half] * s + im[i + half] * c]
        re[i + half] = re[i] - x
        im[i + half] = im[i] - y
        re[i] += x
        im[i] += y
      }
    }
  }
}

function normalised (a, b) {
  let [dot, aa, bb] = [0, 0, 0]
  for (let n = 0; n < a.length; n++) {
    dot += a[n] * b[n]
    aa += a[n] * a[n]
    bb += b[n] * b[n]
  }
  return aa * bb > 1e-18 ? dot / Math.sqrt(aa * bb) : 0
}

/** Root mean square amplitude. */
export const rms = (samples) => Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / Math.max(1, samples.length))
