// Drives a Chromium for the tests: an order a line comes in, an answer a line goes out.
//
// TEST_PACKAGES=… node driver.mjs CHROMIUM PROFILE LIMIT_MS

import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';

const require = createRequire(`${process.env.TEST_PACKAGES}/`);
const { chromium } = require('playwright-core');
const [executablePath, profile, limit] = process.argv.slice(2);
const axe = require.resolve('axe-core/axe.min.js');
const complaints = [];

const context = await chromium.launchPersistentContext(profile, {
  executablePath,
  headless: true,
  chromiumSandbox: false,
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
  ],
  timezoneId: 'Europe/Berlin',
  locale: 'en-GB',
});
context.setDefaultTimeout(Number(limit));
await context.addInitScript({ path: axe });
const page = context.pages()[0] ?? await context.newPage();
page.on('pageerror', (error) => complaints.push(`exception: ${error.message}`));
page.on('dialog', (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
page.on('console', (message) => { if (message.type() === 'error') complaints.push(`console: ${message.text()}`); });
page.on('request', (request) => {
  const { origin } = new URL(request.url());
  if (page.url() !== 'about:blank' && origin !== new URL(page.url()).origin) complaints.push(`elsewhere: ${request.url()}`);
});

const seen = ({ on, text }) => page.locator(on).filter({ visible: true, ...(text === undefined ? {} : { hasText: text }) }).first();
const orders = {
  async open({ url, width, height }) {
    await page.setViewportSize({ width, height });
    await page.goto(url);
  },
  sees: (it) => seen(it).waitFor(),
  misses: ({ on }) => page.locator(on).filter({ visible: true }).first().waitFor({ state: 'hidden' }),
  click: (it) => seen(it).click(),
  fill: ({ on, text }) => seen({ on }).fill(text),
  press: ({ key }) => page.keyboard.press(key),
  value: ({ expression }) => page.evaluate(expression),
  // asked from here, since the page's policy lets nothing evaluate text in it
  async holds({ expression }) {
    const until = Date.now() + Number(limit);
    while (!await page.evaluate(expression)) {
      if (until < Date.now()) throw new Error('it does not become true');
      await page.waitForTimeout(30);
    }
  },
  async goes({ url }) {
    await page.goto('about:blank');
    await page.goto(url);
  },
  back: async () => { await page.goBack(); },
  resize: ({ width, height }) => page.setViewportSize({ width, height }),
  prefers: ({ colours }) => page.emulateMedia({ colorScheme: colours }),
  offline: ({ is }) => context.setOffline(is),
  axe: () => page.evaluate(async () => {
    const { violations } = await globalThis.axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] });
    return violations.flatMap(({ id, nodes }) => nodes.map((it) => `${id}: ${it.target.join(' ')}: ${it.failureSummary}`));
  }),
  complaints: () => complaints,
  shoot: async ({ path }) => { await page.screenshot({ path }); },
};

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (order.do === 'end') break;
  try {
    const value = await orders[order.do](order);
    console.log(JSON.stringify({ value: value ?? null, error: null }));
  } catch (error) {
    const text = await page.locator('body').innerText({ timeout: 1000 }).catch(() => '');
    console.log(JSON.stringify({ value: null, error: `${error.message}\n\nthe page:\n${text}\n\n${complaints.join('\n')}` }));
  }
}
await context.close();
console.log(JSON.stringify({ value: null, error: null }));
process.exit(0);
