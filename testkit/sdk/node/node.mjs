// Driver of posthog-node.
import { setImmediate } from 'node:timers/promises'
import {
  announce, bulk, expectNoFlag, load, mode, scenario, tell, tellNameless, token, url, varied, version,
} from './script.mjs'

// The SDK reads its mode from the environment.
process.env.POSTHOG_CAPTURE_MODE = mode
const { PostHog } = load('posthog-node')
const major = Number(version.split('.')[0])
const users = ['ann', 'bob@example.com', 'zoë 漢', 'dan']

const client = new PostHog(token, {
  host: url,
  // Nothing is sent but by flush, and by shutdown.
  flushAt: 1000,
  maxBatchSize: 1000,
  flushInterval: 600_000,
  fetchRetryCount: 3,
  fetchRetryDelay: 200,
  // What a body limit counts is then what the script says.
  disableCompression: scenario === 'halving',
  personalApiKey: scenario === 'basic' ? 'phx_e2e' : undefined,
})
client.on('error', (error) => console.error(error))

const capture = (user, event, properties, more) =>
  client.capture({ distinctId: user, event, properties: { ...properties, ...tell(String(user), event) }, ...more })

// queued waits until capture, which goes on behind the caller's back, has come as far as the other calls, which do not.
const queued = () => setImmediate()

// captureException ends when the event is in the queue: version 4 reads the source of the stack first, and neither
// flush nor shutdown waits for that.
function captureException(user) {
  return new Promise((done) => {
    client.on('capture', ({ event }) => event === '$exception' && done())
    client.captureException(new Error('an error'), user, tell(user, '$exception'))
  })
}

async function flush() {
  await queued()
  await (major < 4 ? client.flushAsync() : client.flush())
}

const scenarios = {
  async basic() {
    for (let n = 0; n < 20; n++) {
      for (const user of users.slice(0, 3)) capture(user, `basic ${n % 4}`, varied(n))
      if (n % 5 === 4) await flush()
    }
    capture(12345, 'numeric user', varied(0))
    await queued()
    client.identify({
      distinctId: users[0],
      properties: { $set: { plan: 'free', ...tell(users[0], '$identify') }, $set_once: { first_seen: 'today' } },
    })
    tellNameless(users[0], '$create_alias')
    client.alias({ distinctId: users[0], alias: 'ann-before-login' })
    client.groupIdentify({
      groupType: 'company',
      groupKey: 'acme',
      distinctId: users[1],
      properties: { employees: 11, ...tell(users[1], '$groupidentify') },
    })
    capture(users[1], 'grouped', {}, { groups: { company: 'acme' } })
    capture(users[1], 'past', {}, { timestamp: new Date('2024-02-29T23:59:59.999Z') })
    if (major < 4) capture(users[1], '$exception', { $exception_message: 'an error', $exception_type: 'Error' })
    else await captureException(users[1])
    const generation = {
      $ai_model: 'some-model', $ai_provider: 'some-provider', $ai_trace_id: 'trace', $ai_input_tokens: 7,
    }
    capture(users[2], '$ai_generation', generation)
    if (major >= 5) {
      client.captureAi({
        distinctId: users[1],
        event: '$ai_generation',
        properties: { ...generation, ...tell(users[1], '$ai_generation') },
      })
    }
    await flush()
    expectNoFlag(await client.isFeatureEnabled('no-such-flag', users[0]))
    expectNoFlag(await client.getFeatureFlag('no-other-flag', users[0]))
    announce('$feature_flag_called')
  },

  async retry() {
    for (let n = 0; n < 40; n++) {
      capture(users[n % 4], 'retry', varied(n))
      if (n % 10 === 9) await flush()
    }
  },

  dropped: () => scenarios.retry(),

  async halving() {
    for (let n = 0; n < 64; n++) capture(users[n % 4], 'halving', { text: bulk(2000) })
    await flush()
  },
}

// In V1 mode the SDK waits for its next attempt with a timer that does not keep a process from ending, as a
// server's own sockets do.
const alive = setInterval(() => {}, 60_000)
await scenarios[scenario]()
await (major < 4 ? client.shutdownAsync() : client.shutdown())
clearInterval(alive)
