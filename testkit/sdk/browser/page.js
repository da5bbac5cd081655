// What the site of a customer would run: it starts posthog-js as the snippet in the manuals does, and has a function
// for everything that the driver has it tell posthog-js. The driver provides `options`, what posthog-js is started
// with, and `told`, which announces an event and is awaited before posthog-js hears of it.

window.posthog = []
posthog._i = [options]
posthog.__SV = 1

// tell announces an event of the current user and returns the property that goes with it.
async function tell(event, user = String(posthog.get_distinct_id())) {
  const id = crypto.randomUUID()
  await told(user, event, id)
  return { e2e_id: id }
}

// tellNameless announces an event whose call takes no properties.
const tellNameless = (event, user = String(posthog.get_distinct_id())) => told(user, event, '')

// Values that have to survive the way into Kafka.
const varied = [
  { plain: 'text', number: 42, float: 0.1, negative: -7, big: Number.MAX_SAFE_INTEGER },
  { unicode: 'größer, 日本語, العربية, ไทย', combining: 'e\u0301' },
  { emoji: '🦔👩‍👩‍👧‍👦🇩🇪', 'key with 🙂': true },
  // As texts that were cut inside an emoji.
  { cut: 'cut \ud83d', rest: '\ude00 rest' },
  { nested: { list: [1, 'two', { three: [4, [5]] }], empty: {}, nothing: [] } },
  { nothing: null, gone: undefined, yes: true, no: false, empty: '' },
  { not_a_number: NaN, infinite: -Infinity, tiny: 5e-324, huge: 1.7e308 },
  { control: 'a\u0000b\u001fc\u2028d', escapes: '"\\</script>&=+%25' },
  { long: 'lorem ipsum '.repeat(400) },
  { date: new Date(1700000000000), form: 'a=b&data=c+d' },
]

const calls = {
  // watches says whether the page is being recorded and errors are caught, as far as the version does that.
  watches() {
    const records = !posthog.sessionRecordingStarted || posthog.sessionRecordingStarted()
    const catches = !posthog.captureException || Boolean(window.onerror?.__POSTHOG_INSTRUMENTED__)
    return records && catches
  },

  // capture captures all at once, so that they leave in one request.
  async capture(event, count) {
    const ids = []
    while (ids.length < count) ids.push(await tell(event))
    ids.forEach((id, index) => posthog.capture(event, { index, ...id }))
  },

  async captureVaried(event) {
    for (const properties of varied) posthog.capture(event, { ...properties, ...await tell(event) })
  },

  async capturePast(event) {
    posthog.capture(event, await tell(event), { timestamp: new Date('2024-02-29T23:59:59.999Z') })
  },

  async captureGeneration() {
    const generation = {
      $ai_model: 'some-model', $ai_provider: 'some-provider', $ai_trace_id: 'trace', $ai_input_tokens: 7,
    }
    posthog.capture('$ai_generation', { ...generation, ...await tell('$ai_generation') })
  },

  // captureException has no id, since 1.200 forgets the properties that are given to it.
  async captureException() {
    await tellNameless('$exception')
    posthog.captureException(new TypeError('größer 🦔'))
  },

  async identify(user) {
    posthog.identify(user, { plan: 'free', ...await tell('$identify', String(user)) }, { first_seen: 'today' })
  },

  async identifyNameless(user) {
    await tellNameless('$identify', String(user))
    posthog.identify(user)
  },

  async setPerson(event) {
    posthog.people.set({ company: 'Größer 🦔', ...await tell(event) })
  },

  async group() {
    posthog.group('company', 'acme', { employees: 12, ...await tell('$groupidentify') })
  },

  async alias(alias) {
    await tellNameless('$create_alias')
    posthog.alias(alias)
  },

  reset() {
    posthog.reset()
  },

  askFlags() {
    for (const value of [posthog.getFeatureFlag('no-such-flag'), posthog.isFeatureEnabled('no-such-flag')]) {
      if (value !== false && value !== undefined)
        throw new Error(`a flag that does not exist is ${JSON.stringify(value)}`)
    }
  },

  // fail makes two errors that nobody catches.
  fail() {
    setTimeout(() => { throw new RangeError('größer 🦔') })
    Promise.reject(new Error('rejected'))
  },

  change() {
    for (let index = 0; index < 20; index++) {
      const item = document.createElement('li')
      item.textContent = `größer 🦔 ${index} ${'x'.repeat(100)}`
      document.querySelector('#list').append(item)
    }
  },
}
