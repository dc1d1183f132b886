// What the page costs: bash .ci/page PROGRAM --figures [MINUTES]
//
// | figure | how |
// |---|---|
// | message on the screen | from PUBACK at the device until the text is in the document, 200 messages |
// | input delay | Event Timing of key presses while a device sends 5,000 messages/s |
// | memory of a tab | JavaScript heap after a collection, at the beginning and at the end of the minutes under that load |
// | cost of ten tabs | CPU of the hub at 1,000 messages/s with ten tabs, less that with none |

import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { Hub, open, show } from './hub.mjs';

const minutes = Number(process.argv[2] ?? 2);
const TICKS = 100; // of /proc/PID/stat in a second, on Linux

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const once = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));
const quantile = (values, part) => values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) * part)];

/** Seconds of CPU that a process has used. */
function cpuOf(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** Sends at a rate for so long, and gives the rate that came of it. */
async function load(hub, rate, seconds) {
  const device = hub.device();
  await once(device, 'connect');
  let sent = 0;
  let acknowledged = 0;
  const began = performance.now();
  while (performance.now() - began < seconds * 1000) {
    const due = Math.floor(((performance.now() - began) / 1000) * rate);
    for (; sent < due; sent += 1) {
      device.publish('devices/demo/messages/events/', `{"temperature":${20 + (sent % 50) / 10}}`, { qos: 1 }, () => (acknowledged += 1));
    }
    await sleep(5);
  }
  const took = (performance.now() - began) / 1000;
  await device.endAsync(true);
  return acknowledged / took;
}

async function latency(hub, page) {
  await page.evaluate(() => {
    window.seen = {};
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) {
        for (const node of addedNodes) {
          const number = node.textContent.match(/"number": (\d+)/)?.[1];
          if (number) window.seen[number] ??= Date.now();
        }
      }
    }).observe(document.querySelector('[aria-label="Telemetry, newest first"]'), { childList: true });
  });
  const device = hub.device();
  await once(device, 'connect');
  const acknowledged = [];
  for (let number = 0; number < 200; number += 1) {
    await device.publishAsync('devices/demo/messages/events/', `{"number":${number}}`, { qos: 1 });
    acknowledged.push(Date.now());
    await sleep(30);
  }
  await sleep(500);
  await device.endAsync();
  const seen = await page.evaluate(() => window.seen);
  return acknowledged.map((time, number) => seen[number] - time);
}

async function heap(session) {
  await session.send('HeapProfiler.collectGarbage');
  const { usedSize } = await session.send('Runtime.getHeapUsage');
  return usedSize / 1024 / 1024;
}

const hub = new Hub(process.env.DEVICEBOUND_PROGRAM);
await hub.start();
const { browser, context, page } = await open(hub);
try {
  await show(page, '#/device/demo');
  await page.getByRole('region', { name: 'Telemetry', exact: true }).waitFor();
  const shown = await latency(hub, page);
  console.log(`message on the screen after its PUBACK: median ${quantile(shown, 0.5)} ms, 99 % ${quantile(shown, 0.99)} ms (100)`);

  const session = await context.newCDPSession(page);
  const before = await heap(session);
  await page.evaluate(() => {
    window.delays = [];
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => entry.name === 'keydown' && window.delays.push(entry.processingStart - entry.startTime)))
      .observe({ type: 'event', durationThreshold: 16 });
  });
  const loading = load(hub, 5000, minutes * 60);
  await page.getByRole('region', { name: 'Method', exact: true }).getByLabel('Name').focus();
  for (let press = 0; press < minutes * 60 - 2; press += 1) {
    await page.keyboard.press('a');
    await sleep(1000);
  }
  const rate = await loading;
  const delays = await page.evaluate(() => window.delays);
  console.log(`input delay at ${Math.round(rate)} messages/s: longest of ${minutes * 60 - 2} key presses ${Math.round(Math.max(0, ...delays))} ms (100)`);
  console.log(`memory of the tab: ${before.toFixed(1)} MiB before, ${(await heap(session)).toFixed(1)} MiB after ${minutes} minutes of that (100)`);

  const costs = [];
  for (const tabs of [0, 10]) {
    const opened = await Promise.all(Array.from({ length: tabs }, async () => {
      const tab = await context.newPage();
      await tab.goto(new URL(hub.ready.page).origin + '/#/device/demo');
      return tab;
    }));
    if (tabs === 0) await show(page, '#/rules');
    const began = cpuOf(hub.pid);
    const loaded = await load(hub, 1000, 20);
    costs.push((cpuOf(hub.pid) - began) / 20);
    console.log(`CPU of the hub at ${Math.round(loaded)} messages/s with ${tabs} tabs: ${(costs.at(-1) * 100).toFixed(1)} % of a core`);
    await Promise.all(opened.map((tab) => tab.close()));
  }
  console.log(`ten tabs cost ${((costs[1] - costs[0]) * 100).toFixed(1)} % of a core (2)`);
} finally {
  await browser.close();
  await hub.end();
}
