// Follows the link of a letter in Chromium, as a person does, and prints as JSON what was to be seen.
// Reads from its standard input what to do:
//
//   { "base": "http://127.0.0.1:8080",
//     "token": "fhs_…",              without it, the page is opened without a token
//     "presses": [                   the button, so many times
//       { "fill": { "password": "…", "slug": "…", "name": "…" },
//         "twice": true,             a double click
//         "keys": true } ],          no pointer: Tab, typing and Enter
//     "then": "fhp_…",               another link, opened afterwards in the same tab
//     "offline": true,               the network is gone when the button is first pressed
//     "look": { "dark": true, "width": 360, "pictures": "/folder/name" } }
//
// and prints
//
//   { "views": [ { "title", "text", "fields": [ { "name", "label", "type", "autocomplete", "error" } ],
//                  "button", "focus", "address" } ],
//                                    what was there at first, after each press, and after `then`
//     "requests": [ "POST /v1/links/inspect 200" ],
//     "faults": [] }
//
// Ends with code 1 if there is a fault: an error of the page or in its console, a breach of its
// policy, a token where logs could hold it, a page wider than its window. Code 2 is wrong usage.

import { existsSync } from 'node:fs'
import process from 'node:process'
import { setTimeout } from 'node:timers'
import { chromium } from 'playwright-core'

const RUN_MS_MAX = 60_000
const STEP_MS_MAX = 15_000

const NAMES = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome', 'chrome']
const MAC = [
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]

function browserProgram() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM
  const folders = (process.env.PATH ?? '').split(':')
  const candidates = [...NAMES.flatMap((name) => folders.map((folder) => `${folder}/${name}`)), ...MAC]
  return candidates.find((path) => existsSync(path)) ?? giveUp('there is no Chromium; set CHROMIUM to its program')
}

function giveUp(why) {
  console.error(why)
  process.exit(2)
}

async function input() {
  let text = ''
  for await (const part of process.stdin) text += part
  try {
    const plan = JSON.parse(text)
    if (plan.base) return plan
  } catch {
    // Said below.
  }
  return giveUp('standard input must be a JSON object with a `base`; this file says what else')
}

/** What is on the page for whoever looks at it. Runs in the page. */
function whatIsSeen() {
  const visible = (element) => element.checkVisibility()
  const text = (id) => document.getElementById(id)?.textContent ?? ''
  const inputs = [...document.querySelectorAll('input')].filter(visible)
  const buttons = [...document.querySelectorAll('button')].filter(visible)
  const focus = document.activeElement
  return {
    title: document.querySelector('h1').innerText,
    text: document.querySelector('main').innerText,
    fields: inputs.map((input) => ({
      name: input.id,
      label: [...input.labels].map((label) => label.innerText.trim()).join(' '),
      type: input.type,
      autocomplete: input.autocomplete,
      error: text(`${input.id}-error`),
      ...(input.type === 'password' ? {} : { value: input.value }),
    })),
    button: buttons.map((button) => button.innerText).join(', '),
    focus: focus?.id || focus?.localName || '',
    address: location.href,
    tooWide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
  }
}

async function follow(plan, browser) {
  const { base, token, presses = [], look = {} } = plan
  const context = await browser.newContext({
    colorScheme: look.dark ? 'dark' : 'light',
    viewport: { width: look.width ?? 1024, height: look.height ?? 768 },
    timezoneId: 'UTC',
  })
  context.setDefaultTimeout(STEP_MS_MAX)
  const page = await context.newPage()
  const result = { views: [], requests: [], faults: [] }
  const { views, requests, faults } = result
  const secrets = [token, plan.then].filter(Boolean)

  page.on('pageerror', (error) => faults.push(`error: ${error.message}`))
  page.on('console', (message) => {
    if (message.type() !== 'error' && message.type() !== 'warning') return
    // Chromium's own remark that a call was refused or not answered, which the page has to bear.
    const isRefusal = message.text().startsWith('Failed to load resource') &&
      new URL(message.location().url).pathname.includes('/v1/')
    if (!isRefusal) faults.push(`console: ${message.text()}`)
  })
  await page.exposeFunction('tellBreach', (what) => faults.push(`policy: ${what}`))
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (breach) => {
      globalThis.tellBreach(`${breach.violatedDirective} ${breach.blockedURI}`)
    })
  })
  page.on('request', (request) => {
    const { pathname, search } = new URL(request.url())
    const logged = pathname + search + JSON.stringify(request.headers())
    if (secrets.some((secret) => logged.includes(secret))) faults.push(`the token is shown to logs: ${pathname}`)
  })
  const known = new Set()
  const answered = (request, status) => {
    // One whose body breaks off has an answer and fails.
    if (known.has(request)) return
    known.add(request)
    const { pathname } = new URL(request.url())
    if (request.resourceType() === 'fetch') requests.push(`${request.method()} ${pathname} ${status}`)
    else if (status >= 400) faults.push(`${pathname} was answered ${status}`)
  }
  page.on('response', (response) => answered(response.request(), response.status()))
  page.on('requestfailed', (request) => answered(request, 0))

  const settled = () => page.locator('main[aria-busy="false"]').waitFor()
  const see = async () => {
    await settled()
    const { tooWide, ...view } = await page.evaluate(whatIsSeen)
    if (tooWide) faults.push(`the page is wider than its window: ${view.title}`)
    if (secrets.some((secret) => view.address.includes(secret))) faults.push('the token stays in the address bar')
    if (look.pictures) await page.screenshot({ path: `${look.pictures}-${views.length}.png`, fullPage: true })
    views.push(view)
  }
  /** Goes on by Tab until an element has the focus, however often that takes within reason. */
  const tabTo = async (id) => {
    for (let n = 0; n < 20; n += 1) {
      if (await page.evaluate((wanted) => document.activeElement?.id === wanted, id)) return
      await page.keyboard.press('Tab')
    }
    faults.push(`Tab does not lead to ${id}`)
  }

  const open = (which) => `${base}/confirm${which ? `#${which}` : ''}`
  await page.goto(open(token))
  await see()
  for (const [at, { fill = {}, twice, keys }] of presses.entries()) {
    if (plan.offline) await context.setOffline(at === 0)
    for (const [name, value] of Object.entries(fill)) {
      if (keys) {
        await tabTo(name)
        await page.keyboard.press('ControlOrMeta+A')
        await page.keyboard.type(value)
      } else {
        await page.locator(`#${name}`).fill(value)
      }
    }
    const button = page.locator('#send:visible, #again:visible')
    if (keys) {
      await tabTo(await button.getAttribute('id'))
      await page.keyboard.press('Enter')
    } else {
      await button.click({ clickCount: twice ? 2 : 1 })
    }
    await see()
  }
  if (plan.then) {
    // By its script, as the address bar would: a `goto` with another fragment is the same page.
    const loaded = page.waitForResponse((response) => response.url().endsWith('/v1/links/inspect'))
    await page.goto(open(plan.then))
    await loaded
    await see()
  }
  return result
}

const plan = await input()
const executablePath = browserProgram()
// A profile of its own, which Playwright removes, and nothing said to anybody but the service.
// Without Chromium's sandbox, which wants rights that containers do not give; it opens our page only.
const browser = await chromium.launch({
  executablePath,
  headless: true,
  chromiumSandbox: false,
  args: [
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
})
const late = setTimeout(() => {
  console.error(`not done within ${RUN_MS_MAX} ms`)
  process.exitCode = 1
  browser.close()
}, RUN_MS_MAX)
try {
  const result = await follow(plan, browser)
  console.log(JSON.stringify(result, null, 2))
  if (result.faults.length > 0) process.exitCode = 1
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
} finally {
  clearTimeout(late)
  await browser.close()
}
