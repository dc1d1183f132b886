// A hub, devices and a browser for the tests of the page.

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import mqtt from 'mqtt';
import { chromium } from 'playwright-core';

// An address of its own, so that a hub that runs already is not in the way.
const ADDRESS = '127.77.0.1';
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

/** A hub on one state folder, which can be stopped and started again. */
export class Hub {
  #program;
  #child;
  state = mkdtempSync(join(tmpdir(), 'devicebound-page-'));

  constructor(program) {
    this.#program = program;
  }

  async start() {
    const flags = ['hub', '--state', this.state, '--listen', ADDRESS, '--name', ADDRESS, '--json', '--quiet'];
    this.#child = spawn(this.#program, flags, { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines = createInterface({ input: this.#child.stdout });
    this.ready = JSON.parse(await new Promise((resolve, reject) => {
      lines.once('line', resolve);
      this.#child.once('exit', (code) => reject(new Error(`the hub ended with ${code}`)));
    }));
    this.ca = readFileSync(this.ready.ca);
  }

  async stop() {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGTERM');
    await ended;
  }

  async end() {
    await this.stop();
    rmSync(this.state, { recursive: true });
  }

  get pid() {
    return this.#child.pid;
  }

  /** Registers `many-000000` and so on, a hundred at a time, with the session of a page. */
  async register(page, count) {
    await page.evaluate(async (count) => {
      const post = async (from) => {
        const devices = Array.from({ length: Math.min(100, count - from) }, (_, index) => ({
          id: `many-${String(from + index).padStart(6, '0')}`, importMode: 'create', status: 'enabled', tags: { site: index % 10 === 0 ? 'Oslo' : 'Bergen' },
        }));
        const answer = await fetch('/devices?api-version=2021-04-12', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(devices) });
        if (!answer.ok) throw new Error(await answer.text());
      };
      for (let from = 0; from < count; from += 800) {
        await Promise.all(Array.from({ length: 8 }, (_, index) => from + index * 100).filter((begin) => begin < count).map(post));
      }
    }, count);
  }

  /** Connects the device that every hub starts with, or the one of another connection string. */
  device({ id = 'demo', clientId = id, connectionString = this.ready.connectionString } = {}) {
    const key = Buffer.from(connectionString.match(/SharedAccessKey=(.*)/)[1], 'base64');
    const resource = encodeURIComponent(`${ADDRESS}/devices/${id}`);
    const expiry = Math.floor(Date.now() / 1000) + 3600;
    const signature = createHmac('sha256', key).update(`${resource}\n${expiry}`).digest('base64');
    return mqtt.connect(`mqtts://${ADDRESS}:8883`, {
      clientId, username: `${ADDRESS}/${id}/?api-version=2021-04-12`, ca: this.ca, clean: true, reconnectPeriod: 0,
      password: `SharedAccessSignature sr=${resource}&sig=${encodeURIComponent(signature)}&se=${expiry}`,
      rejectUnauthorized: true, protocolVersion: 4,
    });
  }
}

/** A browser with a page that is signed in. The hub's own authority is not known to it. */
export async function open(hub, options = {}) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1200, height: 900 }, ...options });
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('dialog', (dialog) => dialog.accept());
  await page.goto(hub.ready.page);
  await page.getByRole('heading', { name: 'Devices' }).waitFor();
  return { browser, context, page, errors };
}

/** Goes to a view. */
export const show = (page, view) => page.evaluate((hash) => { location.hash = hash; }, view);
