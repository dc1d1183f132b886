// What a back end does to one device: twin, methods, cloud messages, credentials, faults.

import { ask, get } from './api.js';
import { action, field, fill, h, note, pretty, section } from './dom.js';

const encoded = encodeURIComponent;

/** What has to be sent so that `from` becomes `to`: changed members, and null for what is gone. */
export function difference(from, to) {
  const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
  const patch = {};
  for (const name of new Set([...Object.keys(from), ...Object.keys(to)])) {
    if (name.startsWith('$')) continue;
    if (!(name in to)) patch[name] = null;
    else if (isObject(from[name]) && isObject(to[name])) {
      const inner = difference(from[name], to[name]);
      if (Object.keys(inner).length > 0) patch[name] = inner;
    } else if (JSON.stringify(from[name]) !== JSON.stringify(to[name])) patch[name] = to[name];
  }
  return patch;
}

const plain = (part) => Object.fromEntries(Object.entries(part ?? {}).filter(([name]) => !name.startsWith('$')));

export function twin(id) {
  const path = `/twins/${encoded(id)}`;
  // Nothing can be typed before the twin is there: its text would take the place of what was typed.
  const [desired, tags] = ['desired', 'tags'].map(() => h('textarea', { spellcheck: 'false', disabled: true }));
  const reported = h('pre', null);
  const preview = h('pre', { class: 'quiet', role: 'status', 'aria-label': 'What will be sent' });
  const says = note();
  let read = { properties: { desired: {}, reported: {} }, tags: {} };

  const show = async () => {
    read = await get(path);
    desired.value = pretty(plain(read.properties.desired));
    tags.value = pretty(read.tags ?? {});
    desired.disabled = tags.disabled = false;
    fill(reported, pretty(plain(read.properties.reported)));
    fill(preview, '');
  };
  const parsed = (name, text) => {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`${name} is not JSON: ${error.message}`);
    }
  };
  const patch = () => {
    const change = {
      tags: difference(read.tags ?? {}, parsed('tags', tags.value)),
      properties: { desired: difference(plain(read.properties.desired), parsed('desired', desired.value)) },
    };
    if (Object.keys(change.tags).length === 0) delete change.tags;
    if (Object.keys(change.properties.desired).length === 0) delete change.properties;
    return change;
  };
  const preview_ = () => {
    try {
      const change = patch();
      fill(preview, Object.keys(change).length === 0 ? '' : `will be sent: ${pretty(change)}`);
    } catch (error) {
      fill(preview, error.message);
    }
  };
  desired.addEventListener('input', preview_);
  tags.addEventListener('input', preview_);
  const send = action(h('button', { class: 'main', type: 'button' }, 'Send the difference'), says, async () => {
    try {
      await ask('PATCH', path, { body: patch(), headers: { 'If-Match': `"${read.etag}"` } });
      await show();
      says.good('Done.');
    } catch (error) {
      if (error.status !== 412) throw error;
      throw new Error('Somebody was faster: the twin has changed since it was read. Read it again, and make the change anew.');
    }
  });
  const again = action(h('button', { type: 'button' }, 'Read again'), says, async () => {
    await show();
    says.quiet('Read.');
  });
  show().catch((error) => says.bad(error.message));
  return section('Twin',
    h('div', { class: 'columns' }, field('desired', desired, 'wide'), h('div', null, h('p', { class: 'quiet' }, 'reported'), reported), field('tags', tags, 'wide')),
    preview, h('div', { class: 'bar' }, send, again), says.line);
}

export function methods(id) {
  const name = h('input', { value: 'reboot' });
  const payload = h('textarea', { spellcheck: 'false' });
  payload.value = '{}';
  const [response, connect] = [30, 0].map((value) => h('input', { type: 'number', min: '0', max: '300', value }));
  const says = note();
  const answer = h('pre', { role: 'status', 'aria-label': 'Answer' });
  const call = action(h('button', { class: 'main', type: 'button' }, 'Call'), says, async () => {
    fill(answer, '');
    const began = performance.now();
    says.quiet('Waiting for the device …');
    const body = {
      methodName: name.value, payload: payload.value.trim() === '' ? null : JSON.parse(payload.value),
      responseTimeoutInSeconds: Number(response.value), connectTimeoutInSeconds: Number(connect.value),
    };
    const { value } = await ask('POST', `/twins/${encoded(id)}/methods`, { body });
    says.good(`Status ${value.status} after ${Math.round(performance.now() - began)} ms`);
    fill(answer, pretty(value.payload));
  });
  return section('Method', h('div', { class: 'bar' }, field('Name', name), field('Answer within, s', response), field('Connect within, s', connect)),
    field('Payload, JSON', payload, 'wide'), h('div', { class: 'bar' }, call), says.line, answer);
}

export function cloudMessages(id) {
  const path = `/devices/${encoded(id)}/messages/deviceBound`;
  const text = h('textarea', { spellcheck: 'false' });
  const properties = h('input', { placeholder: 'name=value, name=value' });
  const acknowledge = h('select', null, ['none', 'positive', 'negative', 'full'].map((kind) => h('option', null, kind)));
  const minutes = h('input', { type: 'number', min: '1', value: 60 });
  const says = note();
  const feedback = h('ul', { class: 'quiet' });
  const send = action(h('button', { class: 'main', type: 'button' }, 'Send'), says, async () => {
    const messageId = crypto.randomUUID();
    const headers = { 'iothub-messageid': messageId, 'iothub-ack': acknowledge.value, 'iothub-expiry': new Date(Date.now() + minutes.value * 60_000).toISOString() };
    for (const pair of properties.value.split(',').map((pair) => pair.trim()).filter(Boolean)) {
      const [name, ...value] = pair.split('=');
      headers[`iothub-app-${name}`] = value.join('=');
    }
    const url = new URL(path, location.origin);
    url.searchParams.set('api-version', '2021-04-12');
    const response = await fetch(url, { method: 'POST', body: text.value, headers });
    if (!response.ok) throw new Error((await response.json()).Message);
    says.good(`Queued as ${messageId}.`);
    if (acknowledge.value !== 'none') watch(messageId);
  });
  const watch = async (messageId) => {
    for (let tries = 0; tries < 120; tries += 1) {
      const { value, headers } = await ask('GET', '/messages/serviceBound/feedback').catch(() => ({}));
      const own = (value ?? []).filter((report) => report.originalMessageId === messageId);
      const lock = headers?.get('etag')?.replaceAll('"', '');
      if (lock) await ask(own.length > 0 && own.length === value.length ? 'DELETE' : 'POST', `/messages/serviceBound/feedback/${lock}${own.length > 0 && own.length === value.length ? '' : '/abandon'}`).catch(() => {});
      for (const report of own) feedback.prepend(h('li', null, `${report.originalMessageId}: ${report.statusCode ?? report.description}`));
      if (own.length > 0 || !feedback.isConnected) return;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  };
  const purge = action(h('button', { class: 'bad', type: 'button' }, 'Empty the queue'), says, async () => {
    const { value } = await ask('DELETE', `/devices/${encoded(id)}/commands`);
    says.good(`${value?.totalMessagesPurged ?? 'All'} messages removed.`);
  });
  return section('Cloud-to-device message', field('Body', text, 'wide'),
    h('div', { class: 'bar' }, field('Properties', properties, 'wide'), field('Feedback', acknowledge), field('Good for, minutes', minutes)),
    h('div', { class: 'bar' }, send, purge), says.line, feedback);
}

export function credentials(id) {
  const path = `/devices/${encoded(id)}`;
  const says = note();
  const shown = h('div');
  const buttons = h('div', { class: 'bar' });
  const copy = (what, text) => action(h('button', { type: 'button' }, `Copy ${what}`), says, async () => {
    await navigator.clipboard.writeText(text);
    says.good('Copied.');
  });
  const show = async () => {
    const identity = await get(path);
    const { primaryKey, secondaryKey } = identity.authentication?.symmetricKey ?? {};
    const own = (key) => `HostName=${location.hostname};DeviceId=${id};SharedAccessKey=${key}`;
    fill(shown, primaryKey ? h('p', null, h('code', null, own('…'))) : h('p', null, identity.authentication?.type));
    fill(buttons,
      primaryKey && copy('connection string', own(primaryKey)), secondaryKey && copy('with secondary key', own(secondaryKey)),
      change(identity.status === 'enabled' ? 'Disable' : 'Enable', 'status', () => ({ ...identity, status: identity.status === 'enabled' ? 'disabled' : 'enabled' })),
      primaryKey && change('Swap keys', 'keys', () => ({ ...identity, authentication: { ...identity.authentication, symmetricKey: { primaryKey: secondaryKey, secondaryKey: primaryKey } } })),
      action(h('button', { class: 'bad', type: 'button' }, 'Delete'), says, async () => {
        if (!confirm(`Delete ${id}? Its twin and its queue go with it.`)) return;
        await ask('DELETE', path, { headers: { 'If-Match': '*' } });
        location.hash = '#/';
      }));
  };
  const change = (label, what, made) => action(h('button', { type: 'button' }, label), says, async () => {
    await ask('PUT', path, { body: made(), headers: { 'If-Match': '*' } });
    await show();
    says.good(`Changed the ${what}.`);
  });
  show().catch((error) => says.bad(error.message));
  return section('Credential', shown, buttons, says.line);
}

const FAULTS = [['kill-tcp', 'cut the connection'], ['slow', 'slow answers'], ['throttle', 'throttle'], ['quota', 'daily quota used up'], ['expire-sas', 'expire the token'], ['takeover', 'take the connection over']];

export function faults(id) {
  const says = note();
  return section('Faults, on purpose', h('p', { class: 'quiet' }, 'Something goes wrong for this device, marked as HUB-FAULT in its timeline.'),
    h('div', { class: 'bar' }, FAULTS.map(([kind, label]) => action(h('button', { type: 'button' }, label), says, async () => {
      await ask('POST', `/faults/${encoded(id)}`, { body: { fault: kind } });
      says.good(`Done: ${label}.`);
    }))), says.line);
}
