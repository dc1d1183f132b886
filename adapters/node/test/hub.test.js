'use strict';
// What the package promises, with Azure's own SDK.

const assert = require('node:assert/strict');
const { after, before, test } = require('node:test');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { startHub } = require('..');

let hub;
before(async () => (hub = await startHub()));
after(() => hub.stop());

test('telemetry of the device SDK is read back', async () => {
  const device = await hub.addDevice('thermostat');
  const client = Client.fromConnectionString(device.connectionString, Mqtt);
  await client.setOptions({ ca: hub.ca });
  await client.sendEvent(new Message('{"temperature":21.5}'));
  for await (const message of hub.telemetry()) {
    assert.equal(message.deviceId, 'thermostat');
    assert.deepEqual(JSON.parse(message.body), { temperature: 21.5 });
    break;
  }
  await client.close();
});

test('two hubs run side by side', async () => {
  const other = await startHub();
  try {
    assert.notEqual(other.host, hub.host);
    await other.addDevice('only-here');
    await assert.rejects(hub.request('GET', '/devices/only-here'), /DeviceNotFound/);
  } finally {
    await other.stop();
  }
});

test('a hub that cannot start says why', async () => {
  await assert.rejects(startHub({ args: ['--no-such-flag'] }), /--no-such-flag/);
});
