// What the package brings along: licences that deny.toml would take, and nothing of one registry.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'

const read = (name) => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8')
const { packages } = JSON.parse(read('package-lock.json'))
const own = JSON.parse(read('package.json'))

test('every dependency has a licence that may be passed on', () => {
  const allowed = ['MIT', 'Apache-2.0', 'Apache-2.0 OR MIT', 'MIT OR Apache-2.0', 'ISC', 'BSD-2-Clause', 'BSD-3-Clause', '0BSD']
  const all = Object.entries(packages).filter(([name]) => name !== '')
  assert.ok(all.length > 50)
  for (const [name, { license }] of all) assert.ok(allowed.includes(license), `${name}: ${license}`)
})

test('dependencies are pinned, whole, and from wherever npm is set to fetch them', () => {
  for (const [name, version] of Object.entries({ ...own.dependencies, ...own.devDependencies })) {
    assert.match(version, /^\d+\.\d+\.\d+$/, name)
    assert.equal(packages[`node_modules/${name}`].version, version)
  }
  for (const [name, { integrity, resolved }] of Object.entries(packages)) {
    assert.ok(name === '' || integrity?.startsWith('sha512-'), `${name} has no checksum`)
    assert.ok(resolved === undefined || resolved.startsWith('https://registry.npmjs.org/'), `${name}: ${resolved}`)
  }
})
