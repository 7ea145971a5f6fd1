/**
 * Something was refused or has failed. `reason` is one of a closed set of names, those that the
 * nodes of the overlay count by where they know the same case.
 */
export class CausewayError extends Error {
  /**
   * @param {string} reason
   * @param {string} [message]
   */
  constructor (reason, message = reason) {
    super(message)
    this.name = 'CausewayError'
    this.reason = reason
  }
}

/**
 * Throws unless a condition holds.
 *
 * @param {unknown} condition
 * @param {string} reason
 * @param {string} [message]
 * @returns {asserts condition}
 */
export function check (condition, reason, message) {
  if (!condition) throw new CausewayError(reason, message)
}
