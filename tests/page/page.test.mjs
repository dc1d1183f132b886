// The page in a real browser: DEVICEBOUND_PROGRAM=… node --test
//
// Screenshots of each view go to the folder that SCREENSHOTS names.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { Hub, open, show } from './hub.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const hub = new Hub(process.env.DEVICEBOUND_PROGRAM);
let browser;
let context;
let page;
let errors;

before(async () => {
  await hub.start();
  ({ browser, context, page, errors } = await open(hub));
});
after(async () => {
  await browser?.close();
  await hub.end();
});

const once = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));
const section = (name) => page.getByRole('region', { name, exact: true });

test('the first visit leads to the first message', async () => {
  await page.getByText('Three steps to the first message').waitFor();
  await page.getByRole('link', { name: 'demo' }).first().click();
  const device = hub.device();
  await once(device, 'connect');
  await device.publishAsync('devices/demo/messages/events/site=Oslo', '{"temperature":21.5}', { qos: 1 });
  await section('Telemetry').getByText('"temperature": 21.5').waitFor();
  await section('Telemetry').getByText('site=Oslo').waitFor();
  await section('Timeline').getByText('PUBACK').first().waitFor();
  await section('State').getByText('online').waitFor();
  await device.endAsync();
});

test('a device that breaks a rule is told with the rule, the bytes and the fix', async () => {
  await show(page, '#/device/demo');
  const device = hub.device();
  device.on('error', () => {});
  await once(device, 'connect');
  device.publish('devices/other/messages/events/', 'x', { qos: 1 }, () => {});
  const line = section('Timeline').locator('li.end').filter({ hasText: 'HUB-TOPIC-IDENTITY' }).first();
  await line.waitFor();
  const text = await line.innerText();
  assert.match(text, /fix: .*own|fix: use the id/);
  assert.match(text, /bytes: 64 65 76/);
  await line.getByRole('link', { name: 'HUB-TOPIC-IDENTITY' }).click();
  await page.getByRole('heading', { name: 'HUB-TOPIC-IDENTITY' }).waitFor();
  device.end(true);
});

test('why a device was dropped is told after it has gone, and the hub counts it under the rule', async () => {
  await show(page, '#/device/demo');
  const past = section('Connections and errors');
  const line = past.locator('li.end').filter({ hasText: 'HUB-TOPIC-IDENTITY' }).first();
  await line.getByText('fix: ').waitFor();
  await past.getByText('connected', { exact: true }).first().waitFor();
  await show(page, '#/hub');
  const ends = section('Connections refused or cut, by rule');
  const row = ends.getByRole('row').filter({ hasText: 'HUB-TOPIC-IDENTITY' });
  await row.getByRole('link', { name: 'demo' }).waitFor();
});

test('a snippet of the page sends the first message of a device', async () => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await show(page, '#/device/demo');
  const panel = section('First message');
  await panel.getByLabel('With').selectOption('mosquitto_pub');
  await panel.getByRole('button', { name: 'Copy with the key' }).click();
  await panel.getByText('Copied.').waitFor();
  const snippet = await page.evaluate(() => navigator.clipboard.readText());
  const folder = mkdtempSync(join(tmpdir(), 'devicebound-snippet-'));
  writeFileSync(join(folder, 'ca.pem'), await page.evaluate(async () => (await fetch('/page/ca.pem')).text()));
  const before = await section('Telemetry').getByText('"temperature": 21.5').count();
  const PATH = `${dirname(process.env.DEVICEBOUND_PROGRAM)}:${process.env.PATH}`;
  execFileSync('sh', ['-ec', snippet], { cwd: folder, env: { ...process.env, PATH } });
  await section('Telemetry').getByText('"temperature": 21.5').nth(before).waitFor();
  rmSync(folder, { recursive: true });
});

test('an example of a query finds devices by a reported property', async () => {
  const device = hub.device();
  await once(device, 'connect');
  await device.subscribeAsync('$iothub/twin/res/#');
  const answered = once(device, 'message');
  await device.publishAsync('$iothub/twin/PATCH/properties/reported/?$rid=1', '{"firmware":"1.1"}');
  await answered;
  await show(page, '#/');
  await page.getByRole('button', { name: 'by a reported property' }).click();
  await page.getByText('1 device', { exact: true }).waitFor();
  await page.getByRole('list').getByRole('link', { name: 'demo' }).waitFor();
  await device.endAsync();
});

test('a device is added, found by a part of its id and deleted', async () => {
  await show(page, '#/');
  await page.getByLabel('Device id').fill('pump-17');
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByRole('link', { name: 'Open pump-17' }).waitFor();
  await page.getByLabel('Search').fill('mp-1');
  await page.getByRole('list').getByRole('link', { name: 'pump-17' }).click();
  await section('Credential').getByRole('button', { name: 'Delete' }).click();
  await page.getByRole('heading', { name: 'Devices' }).waitFor();
  await page.getByLabel('Search').fill('pump');
  await page.getByText('0 devices').waitFor();
});

test('a device that was added connects, and a second one with its id takes the connection over', async () => {
  await show(page, '#/');
  await page.getByLabel('Device id').fill('pump-18');
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByRole('link', { name: 'Open pump-18' }).click();
  const identity = await page.evaluate(async () => (await fetch('/devices/pump-18?api-version=2021-04-12')).json());
  const connectionString = `SharedAccessKey=${identity.authentication.symmetricKey.primaryKey}`;
  const first = hub.device({ id: 'pump-18', connectionString });
  first.on('error', () => {});
  await once(first, 'connect');
  await section('State').getByText('online').waitFor();
  await section('State').getByText('token by the primary key').waitFor();
  await section('State').getByText('MQTT', { exact: true }).waitFor();
  const ended = once(first, 'close');
  const second = hub.device({ id: 'pump-18', connectionString });
  await once(second, 'connect');
  await ended;
  await section('Timeline').locator('li.end').filter({ hasText: 'HUB-TAKEOVER' }).first().waitFor();
  await second.endAsync();
});

test('the queue shows what waits, and a module is added and deleted', async () => {
  await show(page, '#/device/demo');
  const panel = section('Cloud-to-device message');
  await panel.getByLabel('Body').fill('for later');
  await panel.getByRole('button', { name: 'Send' }).click();
  await section('Queue').getByText('for later').waitFor();
  await panel.getByRole('button', { name: 'Empty the queue' }).click();
  await section('Queue').getByText('No message waits.').waitFor();
  await section('Modules').getByLabel('Module id').fill('camera');
  await section('Modules').getByRole('button', { name: 'Add module' }).click();
  await section('Modules').getByRole('button', { name: 'Delete module camera' }).click();
  await section('Modules').getByText('none').waitFor();
});

test('the hub shows until when its certificates are good', async () => {
  await show(page, '#/hub');
  const rows = section('Certificates').getByRole('row');
  await rows.filter({ hasText: 'devices' }).getByText(/^20\d\d-\d\d-\d\d$/).waitFor();
  assert.ok(await rows.filter({ hasText: 'clients' }).count() >= 2);
});

test('the hub shows what it was started with', async () => {
  await show(page, '#/hub');
  await section('Settings').getByText('what the hub was started with').click();
  const row = section('Settings').getByRole('row').filter({ hasText: 'listen' });
  await row.getByText('flag').waitFor();
});

test('a consumer group is added and deleted', async () => {
  await show(page, '#/hub');
  const groups = section('Consumer groups');
  await groups.getByText('$Default').waitFor();
  await groups.getByLabel('Name').fill('dashboards');
  await groups.getByRole('button', { name: 'Add group' }).click();
  await groups.getByRole('button', { name: 'Delete group dashboards' }).click();
  await groups.getByRole('button', { name: 'Delete group dashboards' }).waitFor({ state: 'detached' });
});

test('a change of a twin is shown as a difference, and who is too late hears so', async () => {
  await show(page, '#/device/demo');
  const desired = section('Twin').getByLabel('desired');
  await desired.fill('{"interval": 5}');
  await section('Twin').getByText('will be sent').waitFor();
  await section('Twin').getByRole('button', { name: 'Send the difference' }).click();
  await section('Twin').getByText('Done.').waitFor();
  const status = await page.evaluate(async () => (await fetch('/twins/demo?api-version=2021-04-12', {
    method: 'PATCH', headers: { 'Content-Type': 'application/json' }, body: '{"tags":{"site":"Oslo"}}',
  })).status);
  assert.equal(status, 200);
  await desired.fill('{"interval": 6}');
  await section('Twin').getByRole('button', { name: 'Send the difference' }).click();
  await section('Twin').getByText('Somebody was faster').waitFor();
});

test('a method and a cloud message reach the device, and its answers come back', async () => {
  await show(page, '#/device/demo');
  const device = hub.device();
  await once(device, 'connect');
  await device.subscribeAsync(['$iothub/methods/POST/#', 'devices/demo/messages/devicebound/#']);
  const messages = [];
  device.on('message', (topic, body) => {
    messages.push([topic, body.toString()]);
    const rid = topic.match(/\$rid=(.*)$/)?.[1];
    if (rid) device.publish(`$iothub/methods/res/200/?$rid=${rid}`, '{"done":true}');
  });
  await section('Method').getByRole('button', { name: 'Call' }).click();
  await section('Method').getByText('Status 200').waitFor();
  await section('Method').getByText('"done": true').waitFor();
  const panel = section('Cloud-to-device message');
  await panel.getByLabel('Body').fill('hi there');
  await panel.getByLabel('Feedback').selectOption('full');
  await panel.getByRole('button', { name: 'Send' }).click();
  await panel.getByText('Success').waitFor();
  assert.ok(messages.some(([, body]) => body === 'hi there'));
  await device.endAsync();
});

test('what a device says is text, whatever it says', async () => {
  await show(page, '#/device/demo');
  const device = hub.device();
  await once(device, 'connect');
  const hostile = '<img src=x onerror="document.title=1"><script>document.title=2</script>\u202egnp.exe\u0007';
  await device.publishAsync('devices/demo/messages/events/', hostile, { qos: 1 });
  await device.publishAsync('devices/demo/messages/events/', JSON.stringify({ long: 'x'.repeat(200_000) }), { qos: 1 });
  await section('Telemetry').getByText('⟨U+202E⟩gnp.exe⟨U+7⟩'.replace('U+7', 'U+0007')).waitFor();
  await section('Telemetry').getByText('characters').first().waitFor();
  assert.equal(await page.title(), 'devicebound');
  assert.equal(await page.locator('main img, main script').count(), 0);
  await device.endAsync();
});

test('the page goes on without a gap when the hub has started again', async () => {
  await show(page, '#/device/demo');
  await section('Telemetry').waitFor();
  await hub.stop();
  await page.getByText('The hub does not answer').waitFor();
  await hub.start();
  const device = hub.device();
  await once(device, 'connect');
  await device.publishAsync('devices/demo/messages/events/', '{"after":"restart"}', { qos: 1 });
  await section('Telemetry').getByText('"after": "restart"').waitFor();
  await page.locator('#state').getByText('connected', { exact: true }).waitFor();
  await device.endAsync();
});

test('a link works once, and nothing is shown without a session', async () => {
  const stranger = await browser.newContext({ ignoreHTTPSErrors: true });
  const other = await stranger.newPage();
  const used = new URL(hub.ready.page);
  await other.goto(used.origin + '/#code=1.2.3');
  await other.getByText('Not signed in').waitFor();
  await other.getByText('devicebound page').first().waitFor();
  assert.equal((await other.request.get(used.origin + '/devices?api-version=2021-04-12')).status(), 401);
  await stranger.close();
});

test('a hundred thousand devices are scrolled and searched with few rows in the document', async () => {
  await show(page, '#/rules');
  await hub.register(page, 100_000);
  await show(page, '#/');
  await page.getByText('200 and more devices').waitFor();
  const scroller = page.getByRole('region', { name: 'Devices' });
  for (let loaded = 400; loaded <= 2000; loaded += 200) {
    await scroller.evaluate((element) => (element.scrollTop = element.scrollHeight));
    await page.getByText(`${loaded} and more devices`).waitFor();
  }
  assert.ok(await page.getByRole('listitem').count() < 100);
  await page.getByLabel('Search').fill('many-09999');
  await page.getByText('10 devices').waitFor();
  await page.getByLabel('Search').fill("WHERE tags.site = 'Oslo' AND CONTAINS(deviceId, '99990')");
  await page.getByText('1 device', { exact: true }).waitFor();
});

test('eight tabs in sight follow their device at a time', async () => {
  const tabs = await Promise.all(Array.from({ length: 8 }, async () => {
    const tab = await context.newPage();
    await tab.goto(new URL(hub.ready.page).origin + '/#/device/demo');
    return tab;
  }));
  const device = hub.device();
  await once(device, 'connect');
  await device.publishAsync('devices/demo/messages/events/', '{"for":"all tabs"}', { qos: 1 });
  for (const tab of tabs) await tab.getByText('"for": "all tabs"').waitFor();
  await device.endAsync();
  await Promise.all(tabs.map((tab) => tab.close()));
});

test('every view is accessible, in light, dark and at 360 pixels', async () => {
  for (const [name, size, colorScheme] of [['light', 1200, 'light'], ['dark', 1200, 'dark'], ['narrow', 360, 'light']]) {
    await page.setViewportSize({ width: size, height: 900 });
    await page.emulateMedia({ colorScheme });
    for (const view of ['', 'device/demo', 'hub', 'rules']) {
      await show(page, `#/${view}`);
      await page.locator('main section').first().waitFor();
      const session = await context.newCDPSession(page);
      await session.send('Runtime.evaluate', { expression: axe });
      const expression = 'axe.run().then((found) => JSON.stringify(found.violations.map(({ id, nodes }) => [id, nodes[0].html])))';
      const { result } = await session.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
      assert.equal(result.value, '[]', `${view} ${name}`);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${view} ${name} is ${overflow} pixels too wide`);
      if (process.env.SCREENSHOTS) {
        await page.screenshot({ path: join(process.env.SCREENSHOTS, `${view.replace('/', '-') || 'devices'}-${name}.png`) });
      }
    }
  }
  assert.deepEqual(errors, []);
});
