// The program of the page under test: what the site of a customer would call, for every version of posthog-js.
// The driver calls the functions of `site` one after another and moves the mouse in between. `told` is the driver's:
// it writes the line of an event, and is always awaited before posthog-js hears of that event.

const user = () => String(posthog.get_distinct_id())

// capture tells posthog-js to send an event that carries its own id.
async function capture(event, properties = {}, options = undefined) {
  const id = crypto.randomUUID()
  await told(user(), event, id)
  posthog.capture(event, { ...properties, e2e_id: id }, options)
}

// Values that have to survive the way into Kafka, one set an event.
const varied = [
  { plain: 'text', number: 42, float: 0.1, negative: -7, big: Number.MAX_SAFE_INTEGER },
  { unicode: 'größer, 日本語, العربية, ไทย', combining: 'e\u0301' },
  { emoji: '🦔👩‍👩‍👧‍👦🇩🇪', 'key with 🙂': true },
  { surrogate: 'cut inside an emoji: \ud83d', other_half: '\ude00 and on' },
  { nested: { list: [1, 'two', { three: [4, [5]] }], empty: {}, nothing: [] } },
  { nothing: null, yes: true, no: false, empty: '' },
  { not_a_number: NaN, infinite: -Infinity, tiny: 5e-324, huge: 1.7e308 },
  { control: 'a\u0000b\u001fc\u2028d', quotes: '"\\"</script>&=+%25' },
  { long: 'lorem ipsum '.repeat(400) },
  { date: new Date(1700000000000), form: 'a=b&data=c+d' },
]

const site = {
  // start gives posthog-js its options; without `user` it begins with an anonymous id of its own.
  start({ url, token, everything, user }) {
    const off = { autocapture: false, capture_pageview: false, capture_pageleave: false, disable_session_recording: true }
    const on = {
      capture_heatmaps: true,
      enable_heatmaps: true,
      capture_exceptions: true,
      capture_dead_clicks: true,
      capture_performance: { web_vitals: true, network_timing: false },
      session_recording: { recorderVersion: 'v2' },
    }
    posthog.init(token, {
      api_host: url,
      opt_out_useragent_filter: true,
      ...(everything ? on : off),
      ...(user && { bootstrap: { distinctID: user, isIdentifiedID: true } }),
    })
  },

  async visit() {
    for (let i = 0; i < 3; i++) await capture('page visited', { visit: i })
  },

  async identify(id) {
    await told(String(id), '$identify', '')
    posthog.identify(id, { plan: 'größer 🦔' }, { first_seen: 'today' })
  },

  async captureVaried() {
    for (const properties of varied) await capture('button pressed', properties)
  },

  // captureLate sends an event with a time of its own; posthog-js sends such a call at once and alone.
  async captureLate() {
    await capture('imported', { source: 'import' }, { timestamp: new Date(Date.now() - 3 * 24 * 3600 * 1000) })
  },

  async captureFew(event, count) {
    for (let i = 0; i < count; i++) await capture(event, { index: i })
  },

  // setPerson goes to /engage/ in the old versions, where it is an $identify without a name, and is a $set in the others.
  async setPerson(event) {
    await told(user(), event, '')
    posthog.people.set({ company: 'Acme', emoji: '🦔' })
  },

  async group() {
    await told(user(), '$groupidentify', '')
    posthog.group('company', 'acme', { employees: 12 })
  },

  async alias(alias) {
    await told(user(), '$create_alias', '')
    posthog.alias(alias)
  },

  reset() {
    posthog.reset()
  },

  askFlags() {
    const answers = [posthog.getFeatureFlag('no-such-flag'), posthog.isFeatureEnabled('no-such-flag')]
    if (answers.some(Boolean)) throw new Error(`a flag that does not exist is on: ${JSON.stringify(answers)}`)
  },

  async captureException() {
    const id = crypto.randomUUID()
    await told(user(), '$exception', id)
    posthog.captureException(new TypeError('told: größer 🦔'), { e2e_id: id })
  },

  async captureGeneration() {
    await capture('$ai_generation', { $ai_model: 'test-model', $ai_input: [{ role: 'user', content: 'héllo' }], $ai_input_tokens: 3 })
  },

  // fail makes two errors that nobody catches.
  fail() {
    setTimeout(() => { throw new RangeError('thrown: größer 🦔') })
    Promise.reject(new Error('rejected'))
  },

  changePage() {
    const list = document.querySelector('#list')
    for (let i = 0; i < 20; i++) {
      const item = document.createElement('li')
      item.textContent = `entry ${i} größer 🦔 ${'x'.repeat(100)}`
      list.append(item)
    }
  },
}

for (const button of document.querySelectorAll('button')) {
  button.onclick = () => { document.querySelector('#clicks').textContent += '*' }
}
