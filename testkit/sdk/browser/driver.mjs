// Driver of posthog-js, which runs in headless Chromium.
//
// Beside what every driver is told, its environment has CAPTURE_SDK_MODULES, the directory with the node_modules that
// package.json names, and may have CAPTURE_SDK_CHROMIUM, the browser.
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { launch, serveSite, Visitor } from './visitor.mjs'

const { CAPTURE_URL: url, CAPTURE_TOKEN: token, CAPTURE_SCENARIO: scenario, CAPTURE_SDK_VERSION: version } = process.env
const modules = process.env.CAPTURE_SDK_MODULES
const executable = process.env.CAPTURE_SDK_CHROMIUM || '/usr/bin/chromium'

// The run ends by itself, whatever hangs.
const patience = 600_000

// The events that posthog-js sends of its own accord while the basic script runs, each with the
// least number of messages.
const plain = { $pageview: 1, $autocapture: 5, $pageleave: 1 }
const recorded = { ...plain, $rageclick: 1, $feature_flag_called: 1, $snapshot: 1 }
const observed = { ...recorded, $exception: 2, $dead_click: 1, $$heatmap: 1, $web_vitals: 1 }

// `bundle` is the file that a site loads, `has` what else than capture() and identify() can be called, and `person` the
// event that people.set() becomes: in the old versions an object for /engage/, which is an $identify.
const versions = {
  '1.449.2': {
    bundle: 'array.full.js', has: ['person properties', 'groups', 'flags', 'exceptions', 'retries'],
    person: '$set', auto: observed,
  },
  '1.200.2': {
    bundle: 'array.full.js', has: ['person properties', 'groups', 'flags', 'exceptions', 'retries'],
    person: '$set', auto: observed,
  },
  '1.57.4': {
    bundle: 'array.full.js', has: ['person properties', 'groups', 'flags', 'retries'],
    person: '$identify', auto: recorded,
  },
  '1.0.6': { bundle: 'array.js', has: [], person: '$identify', auto: plain },
}

const scenarios = { basic, retry: deliver, dropped: deliver }

const sdk = versions[version] ?? fail(`posthog-js ${version} is none of ${Object.keys(versions)}`)
const play = scenarios[scenario] ?? fail(`the scenario ${scenario} is none of ${Object.keys(scenarios)}`)
const has = (feature) => sdk.has.includes(feature)
if (play === deliver && !has('retries'))
  fail(`posthog-js ${version} sends nothing again, so it has no scenario ${scenario}`)
if (!modules) fail('CAPTURE_SDK_MODULES is not set')
if (!existsSync(executable))
  fail(`there is no Chromium at ${executable}: install it, or name it in CAPTURE_SDK_CHROMIUM`)
setTimeout(() => fail(`not finished within ${patience} ms`), patience)

const { chromium } = createRequire(join(modules, 'package.json'))('playwright-core')
const dist = pathToFileURL(join(modules, 'node_modules', `posthog-js-${version}`, 'dist', '/'))
const site = await serveSite(new URL(sdk.bundle, dist))
const browser = await launch(chromium, executable, patience)
await play()
await browser.close()
process.exit()

// open lets somebody visit the site.
function open(options) {
  return Visitor.open({
    browser, site, url, token, options, dist, patience, told: (user, event, id) => print({ user, event, id }),
  })
}

// basic is one browser that three people use one after another. What posthog-js sends at once, and not with its queue,
// is told when nothing is queued or on its way: it would overtake.
async function basic() {
  for (const [auto, min] of Object.entries(sdk.auto)) print({ auto, min })
  const visitor = await open({
    capture_heatmaps: true,
    capture_dead_clicks: true,
    capture_exceptions: true,
    capture_performance: { web_vitals: true, network_timing: false },
    session_recording: { recorderVersion: 'v2' },
  })
  await visitor.watched()
  await visitor.call('capture', 'visited', 3)
  await interact(visitor)
  await visitor.quiet()

  for (const [round, user] of ['ann', 'zoë 漢字', 12345].entries()) {
    if (round > 0) await visitor.call('reset')
    await visitor.call(has('person properties') ? 'identify' : 'identifyNameless', user)
    await visitor.quiet()
    await visitor.call('captureVaried', 'varied')
    if (round === 0 && has('groups')) {
      await visitor.call('group')
      await visitor.call('alias', 'ann-before-login')
    }
    if (round === 1) {
      await visitor.call('captureGeneration')
      if (has('flags')) await visitor.call('askFlags')
    }
    await visitor.flushed()
    if (round === 0) await visitor.call('setPerson', sdk.person)
    if (round === 1) await visitor.call('capturePast', 'past')
    if (round === 2 && has('exceptions')) await visitor.call('captureException')
    await visitor.flushed()
  }
  // What is queued when the page goes away is sent by a beacon.
  await visitor.call('capture', 'leaving', 3)
  await visitor.leave({ beacons: true })
}

// interact does what a person does: moves, clicks, types, and meets errors.
async function interact(visitor) {
  const { page } = visitor
  await page.mouse.move(100, 100)
  await page.mouse.move(300, 250, { steps: 20 })
  await page.click('#details')
  await page.fill('#name', 'Ada')
  await page.click('#terms')
  // These clicks follow one another at once, however busy the machine is: otherwise they are no rage.
  await page.click('#buy', { clickCount: 4 })
  await visitor.call('change')
  await visitor.call('fail')
  // A click is dead if it is followed by no change for 3 s, and the page is to have come to rest before.
  await sleep(2_000)
  await page.click('#dead')
  await sleep(10_000)
}

// deliver is four people who use a browser each, and send ten events in two rounds. The second one begins when the
// first has arrived: posthog-js does not hold back what was captured after a request that has failed.
async function deliver() {
  const options = {
    autocapture: false,
    capture_pageview: false,
    capture_pageleave: false,
    capture_heatmaps: false,
    capture_dead_clicks: false,
    capture_exceptions: false,
    capture_performance: { web_vitals: false, network_timing: false },
    disable_session_recording: true,
  }
  await Promise.all(['ann', 'bob@example.com', 'zoë 漢字', 'dan'].map(async (user) => {
    const visitor = await open({ ...options, bootstrap: { distinctID: user, isIdentifiedID: true } })
    await visitor.quiet()
    for (const round of ['first round', 'second round']) {
      await visitor.call('capture', round, 5)
      await visitor.delivered()
    }
    await visitor.leave()
  }))
}

function print(line) {
  process.stdout.write(JSON.stringify(line) + '\n')
}

function fail(message) {
  console.error(message)
  process.exit(1)
}
