// What the scripts of the driver do in a browser: Chromium, a site with posthog-js in it, and the
// requests of its visitors.
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'

// posthog-js sends its queue every 3 s: where nothing was sent within this time, nothing was queued.
const queueTime = 10_000
// The beacons of a page that has gone come one after the other, within this time.
const beaconTime = 3_000

// launch starts Chromium with a fresh profile. It reaches nothing but this machine.
export const launch = (chromium, executablePath, timeout) =>
  chromium.launch({
    executablePath,
    timeout,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--no-proxy-server',
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
    ],
  })

// serveSite serves the page and posthog-js on a free port, which is another origin than the service's.
export async function serveSite(bundle) {
  const files = {
    '/': ['text/html', readFileSync(new URL('index.html', import.meta.url))],
    '/page.js': ['text/javascript', readFileSync(new URL('page.js', import.meta.url))],
    '/posthog.js': ['text/javascript', readFileSync(bundle)],
    '/elsewhere': ['text/html', '<!doctype html><title>Another page</title><link rel="icon" href="data:,">'],
  }
  const server = createServer((request, response) => {
    const [type, body] = files[request.url] ?? []
    response.writeHead(body ? 200 : 404, { 'Content-Type': `${type ?? 'text/plain'}; charset=utf-8` }).end(body)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${server.address().port}`
}

// Visitor is somebody on the site: a page in a browser context of its own.
export class Visitor {
  #context
  #site
  #url
  // The requests to the service that have no answer yet, how many have brought events, and the last
  // answer to one of those.
  #running = new Set()
  #sent = 0
  #status = 0

  // Whatever has to happen may take this long, in milliseconds.
  #patience

  // open loads the page, where posthog-js starts with the options and sends to url; told hears what is told to it, and
  // dist has the files of its package.
  static async open({ browser, site, url, token, options, dist, patience, told }) {
    const visitor = new Visitor()
    visitor.#patience = patience
    visitor.#site = site
    visitor.#url = url
    visitor.#context = await browser.newContext({
      viewport: { width: 1280, height: 800 },
      userAgent:
        'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36',
    })
    visitor.#context.setDefaultTimeout(patience)
    visitor.#watch()
    visitor.page = await visitor.#context.newPage()
    visitor.page.on('console', (message) => console.error(`${message.type()}: ${message.text()}`))
    visitor.page.on('pageerror', (error) => console.error(`not caught: ${error.message}`))
    await visitor.#serveAssets(dist)
    await visitor.page.exposeFunction('told', told)
    const init = [token, { api_host: url, opt_out_useragent_filter: true, ...options }, 'posthog']
    await visitor.page.addInitScript((init) => { window.options = init }, init)
    await visitor.page.goto(site)
    return visitor
  }

  // call has the page perform one of its calls.
  call(name, ...args) {
    return this.page.evaluate(([name, args]) => calls[name](...args), [name, args])
  }

  // watched waits until posthog-js has its configuration and watches the page: before, it also sends to another path.
  // Where it never does, its own events will be missing.
  async watched() {
    await this.quiet()
    await this.page
      .waitForFunction(() => calls.watches())
      .catch((error) => console.error(error.message))
    await this.quiet()
  }

  // quiet waits until every request has been answered for a moment.
  async quiet() {
    let busy = Date.now()
    await until(this.#patience, () => {
      if (this.#running.size > 0) busy = Date.now()
      return Date.now() - busy > 300
    })
    for (const request of this.#running) console.error(`not answered: ${request.method()} ${request.url()}`)
  }

  // flushed waits until posthog-js has sent its queue and was answered.
  async flushed() {
    const before = this.#sent
    await until(queueTime, () => this.#sent > before)
    await this.quiet()
  }

  // delivered waits until posthog-js has sent its queue, again where that has failed, and the answer is a good one.
  // What is captured is queued: the request comes after the call.
  async delivered() {
    const before = this.#sent
    const sent = await until(this.#patience, () => this.#sent > before)
    const delivered = await until(this.#patience, () => this.#running.size === 0 && this.#status === 200)
    if (!sent || !delivered) throw new Error('not delivered')
  }

  // leave goes to another page, at which posthog-js sends what it still has. Nobody in the browser is told what becomes
  // of the beacons of a page that has gone, so the proxy is asked for them.
  async leave({ beacons = false } = {}) {
    const before = await this.#ended()
    await this.page.goto(`${this.#site}/elsewhere`)
    let [seen, changed] = [before, Date.now()]
    await until(this.#patience, async () => {
      const now = await this.#ended()
      if (now !== seen) [seen, changed] = [now, Date.now()]
      return (seen > before || !beacons) && Date.now() - changed > beaconTime
    })
    await this.#context.close()
  }

  // ended returns how many requests with events have come to their end, by all visitors.
  async #ended() {
    return Number(await (await fetch(`${this.#url}/e2e/ended`)).text())
  }

  #watch() {
    const bringsEvents = (request) =>
      request.url().startsWith(this.#url) && /^\/(e|i\/v0\/e|engage|s)\/?$/.test(new URL(request.url()).pathname)
    const ended = (request, status) => {
      this.#running.delete(request)
      if (bringsEvents(request)) this.#status = status
    }
    this.#context.on('request', (request) => {
      if (request.url().startsWith(this.#url)) this.#running.add(request)
      if (bringsEvents(request)) this.#sent++
    })
    this.#context.on('requestfinished', async (request) => ended(request, (await request.response()).status()))
    this.#context.on('requestfailed', (request) => ended(request, 0))
  }

  // serveAssets answers requests for /static/ of the service with the files of the package, as the CDN of an
  // installation of PostHog does. Chromium itself is asked for these alone: routes of Playwright would
  // answer CORS preflights, too.
  async #serveAssets(dist) {
    const devtools = await this.#context.newCDPSession(this.page)
    devtools.on('Fetch.requestPaused', ({ requestId, request }) => {
      const file = new URL(new URL(request.url).pathname.split('/').pop(), dist)
      const found = existsSync(file)
      if (!found) console.error(`not in the package: ${request.url}`)
      return devtools.send('Fetch.fulfillRequest', {
        requestId,
        responseCode: found ? 200 : 404,
        responseHeaders: [
          { name: 'Content-Type', value: 'text/javascript' },
          { name: 'Access-Control-Allow-Origin', value: '*' },
        ],
        body: found ? readFileSync(file).toString('base64') : '',
      })
    })
    await devtools.send('Fetch.enable', { patterns: [{ urlPattern: `${this.#url}/static/*` }] })
  }
}

// until polls for a condition and says whether it came true in time.
async function until(milliseconds, condition) {
  for (const end = Date.now() + milliseconds; !await condition(); await sleep(20)) {
    if (Date.now() > end) return false
  }
  return true
}
