// A driver of the SDK end-to-end test: performs a known script with one version of posthog-js in headless Chromium
// and writes one line of JSON for every event it told posthog-js to send, and one for what posthog-js sends by itself.
//
// CAPTURE_URL, CAPTURE_TOKEN, CAPTURE_SCENARIO (basic | retry | dropped), CAPTURE_SDK_VERSION (a key of `versions`),
// CAPTURE_CHROMIUM (the browser, /usr/bin/chromium if unset). Exits 0 once the last request has been answered.
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { chromium } from 'playwright-core'

// What each version has: `bundle` is the file of its dist folder that a site would load, `setPerson` the event that
// people.set() becomes, `auto` the fewest events of each name that it sends by itself during the basic script.
const versions = {
  '1.449.2': {
    bundle: 'array.full.js',
    setPerson: '$set',
    groups: true,
    flags: true,
    exceptions: true,
    retries: true,
    auto: {
      $pageview: 1, $autocapture: 5, $rageclick: 1, $dead_click: 1, $exception: 2, $$heatmap: 1, $web_vitals: 1,
      $feature_flag_called: 1, $snapshot_items: 3, $pageleave: 1,
    },
  },
  '1.200.2': {
    bundle: 'array.full.js',
    setPerson: '$set',
    groups: true,
    flags: true,
    exceptions: true,
    retries: true,
    auto: {
      $pageview: 1, $autocapture: 5, $rageclick: 1, $dead_click: 1, $exception: 2, $$heatmap: 1, $web_vitals: 1,
      $feature_flag_called: 1, $snapshot_items: 3, $pageleave: 1,
    },
  },
  '1.57.4': {
    bundle: 'array.full.js',
    setPerson: '$identify',
    groups: true,
    flags: true,
    retries: true,
    auto: { $pageview: 1, $autocapture: 5, $rageclick: 1, $feature_flag_called: 1, $snapshot_items: 3, $pageleave: 1 },
  },
  '1.0.6': {
    bundle: 'array.js',
    setPerson: '$identify',
    auto: { $pageview: 1, $autocapture: 5, $pageleave: 1 },
  },
}

const scenarios = { basic, retry: deliver, dropped: deliver }

// The whole run ends by itself, whatever hangs.
const runLimit = 75_000
// posthog-js sends its queue every 3 s: a queue that was not sent within this time was empty.
const queueTime = 4_000
// A failed request is sent again after 3 to 9 s.
const retryTime = 30_000

const url = setting('CAPTURE_URL')
const token = setting('CAPTURE_TOKEN')
const version = setting('CAPTURE_SDK_VERSION')
const scenario = setting('CAPTURE_SCENARIO')
const executablePath = process.env.CAPTURE_CHROMIUM || '/usr/bin/chromium'
const sdk = versions[version] ?? stop(`CAPTURE_SDK_VERSION: no posthog-js ${version} here, there are ${Object.keys(versions).join(', ')}`)
const dist = new URL(`node_modules/posthog-js-${version}/dist/`, import.meta.url)

if (!scenarios[scenario]) stop(`CAPTURE_SCENARIO: no ${scenario} here, there are ${Object.keys(scenarios).join(', ')}`)
if (scenario !== 'basic' && !sdk.retries) stop(`posthog-js ${version} never sends a failed request again: it has no ${scenario}`)
if (!existsSync(executablePath)) stop(`no Chromium at ${executablePath}: install it or set CAPTURE_CHROMIUM`)
if (!existsSync(new URL(sdk.bundle, dist))) stop(`no posthog-js ${version}: run npm install in this folder`)
setTimeout(() => stop(`not finished after ${runLimit} ms`), runLimit).unref()

const site = await serveSite()
const browser = await chromium.launch({
  executablePath,
  args: [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--no-proxy-server', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
  ],
})
// basic is the full script: everything that this version can send, as three people and one visitor.
async function basic() {
  for (const [name, min] of Object.entries(sdk.auto)) print({ auto: name, min })
  const visitor = await open()
  await visitor.call('start', { url, token, everything: true })
  // Until the configuration is there, posthog-js sends elsewhere and records nothing.
  await visitor.flushed()
  await visitor.call('visit')
  await interact(visitor)
  await visitor.flushed()

  await visitor.call('identify', 'user-1')
  await visitor.quiet()
  await visitor.call('captureVaried')
  if (sdk.groups) await visitor.call('group')
  await visitor.flushed()
  await visitor.call('setPerson', sdk.setPerson)
  await visitor.flushed()

  await visitor.call('reset')
  await visitor.call('identify', 'größer 🦔')
  await visitor.quiet()
  await visitor.call('captureLate')
  await visitor.quiet()
  await visitor.call('captureVaried')
  if (sdk.flags) await visitor.call('askFlags')
  await visitor.call('captureGeneration')
  await visitor.flushed()
  if (sdk.exceptions) await visitor.call('captureException')
  await visitor.flushed()

  await visitor.call('reset')
  await visitor.call('identify', 12345)
  await visitor.quiet()
  await visitor.call('captureVaried')
  await visitor.flushed()
  // What is still queued when the page goes away travels in its beacons.
  await visitor.call('captureFew', 'about to leave', 3)
  await visitor.leave()
}

// deliver is four people, each in a browser of their own, who send ten events in two rounds. A second round only starts
// when the first has arrived, because posthog-js would not keep them in order.
async function deliver() {
  await Promise.all([1, 2, 3, 4].map(async (number) => {
    const visitor = await open()
    await visitor.call('start', { url, token, everything: false, user: `user-${number}` })
    await visitor.quiet()
    for (const event of ['first round', 'second round']) {
      await visitor.call('captureFew', event, 5)
      await visitor.delivered()
    }
    await visitor.leave()
  }))
}

// interact is what a person does on the page: moves, clicks, types, and runs into errors.
async function interact({ page, call }) {
  await page.mouse.move(100, 100)
  await page.mouse.move(300, 250, { steps: 20 })
  await page.click('#buy')
  await page.click('#details')
  await page.fill('#name', 'Ada')
  await page.click('#terms')
  for (let i = 0; i < 4; i++) await page.click('#buy')
  await call('changePage')
  await call('fail')
  await page.mouse.wheel(0, 200)
  await page.mouse.move(320, 260)
  await page.waitForTimeout(4_000)
  await page.click('#dead')
  await page.waitForTimeout(4_000)
}

// open loads the page in a browser context of its own and gives what the scripts need of it.
async function open() {
  const context = await browser.newContext({
    userAgent: 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36',
    viewport: { width: 1280, height: 800 },
  })
  const page = await context.newPage()
  page.on('console', (message) => console.error(`console.${message.type()}: ${message.text()}`))
  page.on('pageerror', (error) => console.error(`uncaught: ${error.message}`))
  await context.exposeFunction('told', (user, event, id) => print({ user, event, id }))
  await serveAssets(context, page)
  const traffic = new Traffic(context)
  await page.goto(site)
  return {
    page,
    call: (name, ...args) => page.evaluate(([name, args]) => site[name](...args), [name, args]),
    quiet: () => traffic.quiet(),
    // flushed waits until posthog-js has sent its queue and was answered.
    async flushed() {
      const sent = traffic.events
      await until(() => traffic.events > sent, queueTime)
      await traffic.quiet()
    },
    // delivered waits until posthog-js has sent its queue and the last answer was a good one.
    async delivered() {
      const sent = traffic.events
      if (!await until(() => traffic.events > sent, queueTime)) throw new Error('nothing was sent')
      if (!await until(() => traffic.running.size === 0 && traffic.lastStatus === 200, retryTime)) throw new Error('not delivered')
    },
    // leave goes to another page and waits for the answers to the beacons of the one that was left.
    async leave() {
      await page.goto(new URL('/bye', site).href)
      await page.waitForTimeout(500)
      await traffic.quiet()
      await context.close()
    },
  }
}

// Traffic knows which requests to the service are running.
class Traffic {
  running = new Set()
  events = 0
  lastStatus = 0

  constructor(context) {
    context.on('request', (request) => {
      if (!request.url().startsWith(url)) return
      this.running.add(request)
      if (isEvents(request)) this.events++
    })
    context.on('response', (response) => this.#note(response.request(), response.status()))
    context.on('requestfailed', (request) => {
      this.#note(request, 0)
      this.running.delete(request)
    })
    context.on('requestfinished', (request) => this.running.delete(request))
  }

  #note(request, status) {
    if (isEvents(request)) this.lastStatus = status
  }

  // quiet waits until no request has been running for a moment.
  async quiet() {
    let since = Date.now()
    await until(() => {
      if (this.running.size > 0) since = Date.now()
      return Date.now() - since > 300
    }, 10_000)
    for (const request of this.running) console.error(`still running: ${request.method()} ${request.url()}`)
  }
}

function isEvents(request) {
  return request.url().startsWith(url) && /^\/(e|i\/v0\/e|engage|s)\/?$/.test(new URL(request.url()).pathname)
}

// serveAssets answers requests for /static/ of the service with the files of the npm package, as the CDN of a self-hosted
// installation does. It asks Chromium itself for those requests alone: routes of Playwright would answer CORS preflights.
async function serveAssets(context, page) {
  const devtools = await context.newCDPSession(page)
  devtools.on('Fetch.requestPaused', async ({ requestId, request }) => {
    const file = new URL(new URL(request.url).pathname.split('/').pop(), dist)
    const found = existsSync(file)
    if (!found) console.error(`no such asset: ${request.url}`)
    await devtools.send('Fetch.fulfillRequest', {
      requestId,
      responseCode: found ? 200 : 404,
      responseHeaders: [
        { name: 'Content-Type', value: 'application/javascript' },
        { name: 'Access-Control-Allow-Origin', value: '*' },
      ],
      body: found ? readFileSync(file).toString('base64') : '',
    })
  })
  await devtools.send('Fetch.enable', { patterns: [{ urlPattern: `${url}/static/*` }] })
}

// serveSite serves the page and posthog-js on a free port: another origin than the service's.
async function serveSite() {
  const files = {
    '/': ['text/html', readFileSync(new URL('index.html', import.meta.url))],
    '/page.js': ['application/javascript', readFileSync(new URL('page.js', import.meta.url))],
    '/sdk.js': ['application/javascript', readFileSync(new URL(sdk.bundle, dist))],
    '/bye': ['text/html', '<!doctype html><title>Bye</title>'],
  }
  const server = createServer((request, response) => {
    const [type, body] = files[request.url] ?? []
    response.writeHead(body ? 200 : 404, { 'Content-Type': `${type ?? 'text/plain'}; charset=utf-8` }).end(body)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${server.address().port}/`
}

// until polls for a condition and says whether it came true in time.
async function until(condition, milliseconds) {
  for (const end = Date.now() + milliseconds; !condition();) {
    if (Date.now() > end) return false
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  return true
}

function print(line) {
  process.stdout.write(JSON.stringify(line) + '\n')
}

function setting(name) {
  return process.env[name] || stop(`${name} is not set`)
}

function stop(message) {
  console.error(message)
  process.exit(1)
}

await scenarios[scenario]()
await browser.close()
process.exit(0)
