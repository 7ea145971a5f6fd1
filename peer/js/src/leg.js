// A session on its stream: bytes in and out, its timer, and another stream where one is lost.

/** Wait before a lost stream is opened again, after the first attempt failed. */
const RETRY_MS = 500

/** Drives one call session. */
export class Leg {
  #emit
  #reopen
  #stream
  #timer
  #resuming = false
  #disposed = false

  /**
   * @param {import('./session.js').CallSession} session
   * @param {(event: { type: string } & Record<string, any>) => void} emit takes the events of the session
   * @param {() => Promise<any>} [reopen] opens another stream to the device: the caller's alone
   */
  constructor (session, emit, reopen) {
    this.session = session
    this.#emit = emit
    this.#reopen = reopen
  }

  /**
   * Puts the session on a stream. The one before is dropped.
   *
   * @param {import('./channel.js').Channel} stream
   * @param {Uint8Array} [first] bytes of it that were read already
   */
  attach (stream, first) {
    const old = this.#stream
    this.#stream = stream
    if (old !== stream) old?.abort()
    if (first?.length > 0) this.session.handleBytes(Date.now(), first)
    this.pump()
    this.#read(stream)
  }

  /** Drops the stream and waits for nothing any more. */
  dispose () {
    this.#disposed = true
    clearTimeout(this.#timer)
    this.#stream?.abort()
    this.#stream = undefined
  }

  /** Carries out a command. @param {{ type: string } & Record<string, any>} command */
  command (command) {
    this.session.handleCommand(Date.now(), command)
    this.pump()
  }

  async #read (stream) {
    try {
      for await (const part of stream) {
        if (this.#stream !== stream) return
        this.session.handleBytes(Date.now(), part)
        this.pump()
      }
    } catch {
      // A stream that was reset is as closed as one that has ended.
    }
    if (this.#stream !== stream) return
    this.#stream = undefined
    this.session.handleClosed(Date.now())
    this.pump()
  }

  /** Sends what is to be sent, tells what has happened, and waits for what is due next. */
  pump () {
    const { session } = this
    while (session.transmit.length > 0 && this.#stream) {
      try {
        this.#stream.send(session.transmit.shift())
      } catch {
        this.#stream = undefined
        session.handleClosed(Date.now())
      }
    }
    while (session.events.length > 0) this.#emit(session.events.shift())
    if (session.state === 'done' && this.#stream) {
      this.#stream.close()
      this.#stream = undefined
    }
    clearTimeout(this.#timer)
    if (this.#disposed) return
    const due = session.nextTimeout
    if (due !== undefined) {
      this.#timer = setTimeout(() => {
        session.handleTimeout(Date.now())
        if (!session.attached && this.#stream) {
          this.#stream.abort()
          this.#stream = undefined
        }
        this.pump()
      }, Math.max(0, due - Date.now()))
    }
    if (session.wantsResume && !this.#resuming) this.#resume()
  }

  async #resume () {
    if (!this.#reopen) return
    this.#resuming = true
    while (this.session.wantsResume && !this.#disposed) {
      try {
        const stream = await this.#reopen()
        if (!this.session.wantsResume || this.#disposed) {
          stream.abort()
          break
        }
        this.session.resume(Date.now())
        this.attach(stream)
      } catch {
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
      }
    }
    this.#resuming = false
  }
}
