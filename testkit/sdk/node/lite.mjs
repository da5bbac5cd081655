// Driver of posthog-js-lite, outside a browser. One user at a time, since it is an SDK for clients.
import {
  announce, bulk, expectNoFlag, load, mode, scenario, tell, tellNameless, token, url, varied,
} from './script.mjs'

const { PostHog } = load('posthog-js-lite')

const client = new PostHog(token, {
  host: url,
  persistence: 'memory',
  preloadFeatureFlags: false,
  // Only version 3 knows it.
  captureMode: mode === 'form' ? 'form' : 'json',
  // Nothing is sent but by flush, and by shutdown.
  flushAt: 1000,
  maxBatchSize: 1000,
  flushInterval: 600_000,
  fetchRetryCount: 3,
  fetchRetryDelay: 200,
  // What a body limit counts is then what the script says.
  disableCompression: scenario === 'halving',
})
client.on('error', (error) => console.error(error))

const capture = (event, properties, options) =>
  client.capture(event, { ...properties, ...tell(client.getDistinctId(), event) }, options)

function login(user) {
  client.reset()
  client.identify(user, { name: user, ...tell(user, '$identify') })
}

const scenarios = {
  async basic() {
    capture('before login', {})
    for (const user of ['ann', 'bob@example.com', 'zoë 漢']) {
      login(user)
      for (let n = 0; n < 20; n++) capture(`basic ${n % 4}`, varied(n))
      await client.flush()
    }
    const user = client.getDistinctId()
    tellNameless(user, '$create_alias')
    client.alias('zoë-before-login')
    client.group('company', 'acme', { employees: 11, ...tell(user, '$groupidentify') })
    capture('past', {}, { timestamp: new Date('2024-02-29T23:59:59.999Z') })
    capture('$exception', { $exception_message: 'an error', $exception_type: 'Error' })
    capture('$ai_generation', { $ai_model: 'some-model', $ai_provider: 'some-provider', $ai_trace_id: 'trace' })
    await client.reloadFeatureFlagsAsync()
    expectNoFlag(client.isFeatureEnabled('no-such-flag'))
    expectNoFlag(client.getFeatureFlag('no-other-flag'))
    announce('$feature_flag_called')
  },

  async retry() {
    for (const user of ['ann', 'bob@example.com', 'zoë 漢', 'dan']) {
      login(user)
      for (let n = 0; n < 10; n++) capture('retry', varied(n))
      await client.flush()
    }
  },

  dropped: () => scenarios.retry(),

  async halving() {
    login('ann')
    for (let n = 0; n < 64; n++) capture('halving', { text: bulk(2000) })
    await client.flush()
  },
}

await scenarios[scenario]()
await client.shutdown()
