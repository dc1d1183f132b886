'use strict';
// A hub as a child process: started, asked and stopped from a test.

const { spawn } = require('node:child_process');
const { createHmac } = require('node:crypto');
const { readFileSync } = require('node:fs');
const https = require('node:https');
const { createInterface } = require('node:readline');

const READY_TIME = 30_000; // ready in under 0.1 s; on a machine that is busy with other tests, later
const STOP_TIME = 10_000;
const TOKEN_LIFE = 3600; // seconds
const API_VERSION = '2021-04-12';

/** The program that came with this package; DEVICEBOUND_PROGRAM names another one. */
function program() {
  if (process.env.DEVICEBOUND_PROGRAM) return process.env.DEVICEBOUND_PROGRAM;
  const platform = `@devicebound/${process.platform}-${process.arch}`;
  const name = process.platform === 'win32' ? 'devicebound.exe' : 'devicebound';
  try {
    return require.resolve(`${platform}/bin/${name}`);
  } catch {
    throw new Error(
      `the package ${platform} is not there: install without --omit=optional, or name a program in DEVICEBOUND_PROGRAM`,
    );
  }
}

/** Starts a hub at a loopback address of its own, and waits until it is ready. */
async function startHub({ args = [] } = {}) {
  const command = ['hub', '--isolated', '--json', '--quiet', ...args];
  const child = spawn(program(), command, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ready = await readyLine(child);
  return new Hub(child, ready);
}

function readyLine(child) {
  return new Promise((resolve, reject) => {
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text) => (said += text));
    const timer = setTimeout(() => child.kill('SIGKILL'), READY_TIME);
    child.once('error', reject);
    child.once('close', () => {
      clearTimeout(timer);
      reject(new Error(`the hub did not start: ${said.trim() || `not ready after ${READY_TIME / 1000} s`}`));
    });
    createInterface({ input: child.stdout }).once('line', (line) => {
      clearTimeout(timer);
      resolve(JSON.parse(line));
    });
  });
}

class Hub {
  #child;
  #ready;
  #ca;

  constructor(child, ready) {
    this.#child = child;
    this.#ready = ready;
    this.#ca = readFileSync(ready.ca, 'utf8');
  }

  /** The hub's address, which is its host name, too. */
  get host() {
    return this.#ready.host;
  }

  /** The path of the certificate that signed the hub's. */
  get caPath() {
    return this.#ready.ca;
  }

  /** The certificate itself, for `client.setOptions({ ca })`. */
  get ca() {
    return this.#ca;
  }

  /** The variables from which SDKs read their CA. Node reads its own when it starts: for child processes. */
  get environ() {
    return { ...this.#ready.environment };
  }

  /** Of the device `demo`, which every hub starts with. */
  get deviceConnectionString() {
    return this.#ready.connectionString;
  }

  get serviceConnectionString() {
    return this.#ready.serviceConnectionString;
  }

  /** Event Hubs-compatible. */
  get eventHubConnectionString() {
    return this.#ready.eventHubConnectionString;
  }

  /** Registers a device with keys. */
  async addDevice(deviceId) {
    const identity = await this.request('PUT', `/devices/${encodeURIComponent(deviceId)}`, { deviceId });
    const primaryKey = identity.authentication.symmetricKey.primaryKey;
    const connectionString = `HostName=${this.host};DeviceId=${deviceId};SharedAccessKey=${primaryKey}`;
    return { deviceId, primaryKey, connectionString };
  }

  /** Asks the service API, for example `hub.request('GET', '/twins/demo')`. */
  async request(method, path, body) {
    const response = await this.#open(method, path, body);
    let text = '';
    for await (const part of response.setEncoding('utf8')) text += part;
    if (response.statusCode >= 400) throw new Error(`${method} ${path}: ${response.statusCode} ${text}`);
    return text === '' ? undefined : JSON.parse(text);
  }

  /** What devices sent, from the first message behind `after`, without end. */
  async *telemetry({ after = 0 } = {}) {
    const response = await this.#open('GET', `/messages/events?from=${after + 1}`);
    if (response.statusCode >= 400) throw new Error(`GET /messages/events: ${response.statusCode}`);
    try {
      for await (const line of createInterface({ input: response })) {
        const message = JSON.parse(line);
        if (message.cursor !== undefined) yield { ...message, body: Buffer.from(message.body, 'base64') };
      }
    } finally {
      response.destroy();
    }
  }

  /** Ends the hub. What it kept is gone. */
  async stop() {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIME);
    await ended;
    clearTimeout(timer);
  }

  async [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    await this.stop();
  }

  #open(method, path, body) {
    const url = new URL(path, `https://${this.#ready.https}`);
    url.searchParams.set('api-version', API_VERSION);
    const headers = { Authorization: this.#token(), 'Content-Type': 'application/json' };
    return new Promise((resolve, reject) => {
      const request = https.request(url, { method, headers, ca: this.#ca, agent: false }, resolve);
      request.once('error', reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  #token() {
    const parts = this.serviceConnectionString.split(';').map((part) => part.split(/=(.*)/s).slice(0, 2));
    const { HostName, SharedAccessKeyName, SharedAccessKey } = Object.fromEntries(parts);
    const resource = encodeURIComponent(HostName);
    const expiry = Math.floor(Date.now() / 1000) + TOKEN_LIFE;
    const key = Buffer.from(SharedAccessKey, 'base64');
    const signature = createHmac('sha256', key).update(`${resource}\n${expiry}`).digest('base64');
    return `SharedAccessSignature sr=${resource}&sig=${encodeURIComponent(signature)}&se=${expiry}&skn=${SharedAccessKeyName}`;
  }
}

module.exports = { startHub };
