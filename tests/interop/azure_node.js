// Azure's device, service and Event Hubs SDKs for Node under remote control. NODE_EXTRA_CA_CERTS names the hub's CA.
//
// The argument says as JSON how to connect: `{"events", "service", "transport"}`, the two connection strings, and `tls` or
// `websocket`. Then a command per line from stdin, each answered with `{"event": "done", "result"}` or with
// `{"event": "failed", "error": CLASS, "text"}`:
//
// * `{"do": "hub"}`: name and partitions. `{"do": "partition", "id"}`: properties.
// * `{"do": "receive", "partition", "count", "position", "group"}`: so many events.
// * `{"do": "open"}`: the service client, with a receiver of feedback and one of file notifications; each batch of feedback is
//   told: `{"event": "feedback", "reports"}`.
// * `{"do": "upload", "device", "name", "size", "settle"}`: a device, by its connection string, uploads so many bytes, and the
//   notifications that follow are settled so: a list of `complete` and `abandon`. `{"do": "notified"}`: the next of them.
// * `{"do": "send", "device", "body", "messageId", "ack", "properties"}`: a cloud-to-device message.
'use strict';

const path = require('path');
const readline = require('readline');
const { Readable } = require('stream');
const { createRequire } = require('module');
const { promisify } = require('util');

// The packages are beside the environment, not beside this script.
const load = createRequire(path.join(process.cwd(), 'package.json'));
const { Client } = load('azure-iothub');
const { Client: DeviceClient } = load('azure-iot-device');
const { Mqtt } = load('azure-iot-device-mqtt');
const { Amqp } = load('azure-iothub/dist/amqp.js');
const { AmqpWs } = load('azure-iothub/dist/amqp_ws.js');
const { Message } = load('azure-iothub/dist/common-core/message.js');
const { EventHubConsumerClient, earliestEventPosition } = load('@azure/event-hubs');

const config = JSON.parse(process.argv[2]);
const isWebSocket = config.transport === 'websocket';

function tell(event, details) {
  process.stdout.write(JSON.stringify({ event, ...details }) + '\n');
}

const consumer = (group) =>
  new EventHubConsumerClient(group || '$Default', config.events, {
    retryOptions: { maxRetries: 0 },
    ...(isWebSocket ? { webSocketOptions: { webSocket: load('ws') } } : {}),
  });

let service;
let notifications;
const settlements = [];
const arrived = [];
let arrival;

const commands = {
  async hub() {
    const client = consumer();
    const { name, partitionIds } = await client.getEventHubProperties();
    await client.close();
    return { name, partitions: partitionIds };
  },

  async partition({ id }) {
    const client = consumer();
    const properties = await client.getPartitionProperties(id);
    await client.close();
    return properties;
  },

  async receive({ partition, count, position, group }) {
    const client = consumer(group);
    const events = [];
    try {
      await new Promise((resolve, reject) => {
        client.subscribe(
          partition,
          {
            processEvents: async (batch) => {
              events.push(...batch);
              if (events.length >= count) resolve();
            },
            processError: async (error) => reject(error),
          },
          { startPosition: position || earliestEventPosition, maxBatchSize: 10, maxWaitTimeInSeconds: 1 },
        );
      });
    } finally {
      await client.close();
    }
    return events.slice(0, count).map((event) => ({
      sequence: event.sequenceNumber,
      offset: event.offset,
      body: event.body,
      system: event.systemProperties,
      properties: event.properties,
    }));
  },

  async open() {
    service = Client.fromConnectionString(config.service, isWebSocket ? AmqpWs : Amqp);
    await service.open();
    // By callbacks: the promises give the receiver wrapped into an HTTP response that there is not.
    const receiver = (method) => promisify(service[method].bind(service))();
    const feedback = await receiver('getFeedbackReceiver');
    feedback.on('message', (message) => tell('feedback', { reports: JSON.parse(message.data.toString()) }));
    notifications = await receiver('getFileNotificationReceiver');
    // Settled here and now: the SDK accepts what its listener leaves open.
    notifications.on('message', (message) => {
      notifications[settlements.shift() ?? 'complete'](message, () => {});
      arrived.push(JSON.parse(message.data.toString()));
      arrival?.();
    });
  },

  async upload({ device, name, size, settle }) {
    settlements.push(...settle);
    const client = DeviceClient.fromConnectionString(device, Mqtt);
    const chunk = Buffer.alloc(64 * 1024, 'x');
    const chunks = function* () {
      for (let left = size; left > 0; left -= chunk.length) yield left < chunk.length ? chunk.subarray(0, left) : chunk;
    };
    await client.uploadToBlob(name, Readable.from(chunks()), size);
  },

  async notified() {
    while (arrived.length === 0) await new Promise((resolve) => (arrival = resolve));
    return arrived.shift();
  },

  async send({ device, body, messageId, ack, properties }) {
    const message = new Message(body);
    message.messageId = messageId;
    message.ack = ack;
    for (const [name, value] of Object.entries(properties || {})) message.properties.add(name, value);
    await service.send(device, message);
  },

  async close() {
    await service.close();
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: name, ...command } = JSON.parse(line);
    try {
      const result = await commands[name](command);
      tell('done', { result: result === undefined ? null : result });
    } catch (error) {
      tell('failed', { error: error.name, text: error.message });
    }
  }
  tell('end');
  process.exit(0);
}

main();
