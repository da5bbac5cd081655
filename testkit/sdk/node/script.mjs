// What the drivers of the SDKs for Node.js share: the environment, and what is told and how it is announced.
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { randomBytes } from 'node:crypto'

export const {
  CAPTURE_URL: url, CAPTURE_TOKEN: token, CAPTURE_SCENARIO: scenario, CAPTURE_SDK_VERSION: version, CAPTURE_MODE: mode,
} =
  process.env

// load returns the SDK of that version; the packages are installed outside the checkout.
export const load = (sdk) => createRequire(join(process.env.CAPTURE_SDK_MODULES, 'package.json'))(`${sdk}-${version}`)

const print = (line) => process.stdout.write(JSON.stringify(line) + '\n')

let ids = 0

// tell announces an event and returns the property that the SDK gets with it.
export function tell(user, event) {
  const id = String(++ids)
  print({ user, event, id })
  return { e2e_id: id }
}

// tellNameless announces an event whose call takes no properties.
export const tellNameless = (user, event) => print({ user, event, id: '' })

// announce says that the SDK sends at least one such event of its own accord.
export const announce = (event) => print({ auto: event, min: 1 })

// varied returns properties that are different in kind from one event to the next.
export function varied(n) {
  const kinds = [
    { text: 'plain', empty: '', number: n, negative: -0.5, large: 12345678901234567890, nothing: null },
    { greeting: 'Grüße aus Zürich', han: '漢字かな', rtl: 'שלום', emoji: '👩‍👩‍👧‍👦🇨🇭', line: 'a\nb\tc\u2028d' },
    { nested: { a: { b: { c: [1, 'two', { three: [] }] } } }, list: [[], {}, [null, true]] },
    { not_a_number: NaN, infinite: -Infinity, gone: undefined, when: new Date(0) },
    // As a text that was cut inside an emoji.
    { cut: '👍'.slice(0, 1), escapes: '"\\/\b\f\r\u0001', html: '<script>&amp;</script>' },
  ]
  return kinds[n % kinds.length]
}

// bulk returns so many characters that do not compress well.
export const bulk = (characters) => randomBytes(characters).toString('base64').slice(0, characters)

// expectNoFlag fails the script if a flag that does not exist has a value.
export function expectNoFlag(value) {
  if (value !== false && value !== undefined) throw new Error(`a flag that does not exist is ${JSON.stringify(value)}`)
}
