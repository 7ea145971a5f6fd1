/**
 * The other devices of the own handle: whoever writes the location record speaks for all of them.
 * One that has been silent for the life of a record is no longer named.
 */
export class Siblings {
  /** Each as it was last described, and when it last spoke for itself, in Unix seconds. */
  #heard = new Map()

  /**
   * Learns from the record that is stored.
   *
   * @param {{ devices: Array<any>, writer: string, expires: number, holder: any }} held
   * @param {string} me
   * @param {number} life in seconds
   */
  learn (held, me, life) {
    for (const peer of this.#heard.keys()) {
      if (!held.holder.keyOf(peer)) this.#heard.delete(peer)
    }
    for (const device of held.devices) {
      if (device.peer === me) continue
      // A device that was first heard of from another counts from then on.
      if (held.writer === device.peer || !this.#heard.has(device.peer)) {
        this.#heard.set(device.peer, { device, written: held.expires - life })
      }
    }
  }

  /** The devices that have spoken within `life` seconds. @param {number} unix @param {number} life */
  alive (unix, life) {
    const alive = [...this.#heard.values()].filter(({ written }) => written + life > unix)
    return alive.map(({ device }) => device).sort((a, b) => (a.peer < b.peer ? -1 : 1)).slice(0, 7)
  }
}
