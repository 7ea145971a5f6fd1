// The types say what the library has: every export, and every method and property of its classes.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import * as library from '../src/index.js'

const types = readFileSync(new URL('../types/index.d.ts', import.meta.url), 'utf8')

test('every export has a type, and the other way round', () => {
  const typed = [...types.matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name)
  assert.deepEqual(typed.sort(), Object.keys(library).sort())
})

test('what the types say of a class is there', () => {
  for (const [, name, body] of types.matchAll(/^export class (\w+)[^{]*\{\n([\s\S]*?)\n\}/gm)) {
    const methods = [...body.matchAll(/^ {2}(static )?(\w+)\(/gm)].filter(([, , method]) => method !== 'constructor')
    for (const [, isStatic, method] of methods) {
      const owner = isStatic ? library[name] : library[name].prototype
      assert.equal(typeof owner[method], 'function', `${name}.${method}`)
    }
  }
})
