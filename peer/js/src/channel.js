import { CausewayError } from './errors.js'

/**
 * A stream of call signalling that is read by one after the other: first for what it is for, then
 * by the call. What comes in between is kept.
 */
export class Channel {
  #stream
  #iterator

  /** @param {import('@libp2p/interface').Stream} stream */
  constructor (stream) {
    this.#stream = stream
    this.#iterator = stream[Symbol.asyncIterator]()
  }

  /** Leaving the loop closes nothing. */
  [Symbol.asyncIterator] () {
    return {
      next: async () => {
        const { done, value } = await this.#iterator.next()
        return { done, value: value?.subarray() }
      }
    }
  }

  /** Sends bytes; throws where the stream is closed. @param {Uint8Array} bytes */
  send (bytes) {
    this.#stream.send(bytes)
  }

  /** Ends this side once everything is sent; a far end that does not take it is not waited for. */
  async close () {
    try {
      await this.#stream.close({ signal: AbortSignal.timeout(2_000) })
    } catch {
      this.abort()
    }
  }

  /** Drops the stream. */
  abort () {
    if (this.#stream.status === 'open' || this.#stream.status === 'closing') {
      this.#stream.abort(new CausewayError('done'))
    }
  }
}
