// The hub as a whole: counters, what was refused and why, and what happens.

import { ask, follow, get } from './api.js';
import { action, batched, every, facts, field, fill, h, momentOf, note, section } from './dom.js';
import { link } from './devices.js';
import { ruleLink } from './rules.js';

const REFRESH = 2000; // milliseconds
const LINES = 300;
const IN_ORDER = 'MQTT-3.14.4-2'; // a DISCONNECT, which is no refusal

/** The samples of Prometheus' text: [name, labels, value]. */
export function samples(text) {
  return text.split('\n').filter((line) => line && !line.startsWith('#')).map((line) => {
    const [, name, labels = '', value] = line.match(/^(\w+)(?:\{(.*)\})? (\S+)/) ?? [];
    return [name, labels, Number(value)];
  }).filter(([name]) => name !== undefined);
}

/** All samples of a name, whatever their labels. */
const sum = ({ samples: all }, wanted) => all.reduce((total, [name, , value]) => (name === wanted ? total + value : total), 0);

/** A number of bytes as a person reads it. */
function bytes(number) {
  const units = ['bytes', 'KiB', 'MiB', 'GiB'];
  let unit = 0;
  for (; number >= 1024 && unit < units.length - 1; unit += 1) number /= 1024;
  return `${unit === 0 ? number : number.toFixed(1)} ${units[unit]}`;
}

export function hub(main) {
  const counters = h('div');
  const all = h('div');
  const ends = h('div');
  const events = h('ol', { class: 'lines', tabindex: '0', 'aria-label': 'Operations, newest first' });
  const byRule = new Map();
  const groups = consumerGroups();
  const failures = h('input', { type: 'checkbox' });
  fill(main, h('h2', null, 'Hub'),
    h('div', { class: 'columns' }, section('Now', counters, h('details', null, h('summary', null, 'all of /metrics'), all)), section('Connections refused or cut, by rule', ends)),
    h('div', { class: 'columns' }, groups.panel, certificates()), settings(), section('Operations', h('div', { class: 'bar' }, field('What goes wrong alone', failures, 'check')), events));

  const drawEnds = (counts) => {
    const rows = [...counts].filter(([rule, times]) => times > 0 && rule !== IN_ORDER).sort(([, one], [, other]) => other - one);
    // What somebody has opened is not drawn over.
    if (ends.querySelector('details[open]')) return;
    fill(ends, rows.length === 0 ? h('p', { class: 'quiet' }, 'none yet') : h('table', null,
      h('thead', null, h('tr', null, ['rule', 'times', 'who'].map((name) => h('th', { scope: 'col' }, name)))),
      h('tbody', null, rows.map(([rule, times]) => h('tr', null,
        h('td', null, ruleLink(rule)), h('td', null, times), h('td', null, who(byRule.get(rule))))))));
  };
  const told = (event) => {
    const fix = event.mend && h('div', { class: 'quiet' }, `fix: ${event.mend}`);
    return h('li', { class: event.level === 'Error' ? 'end' : undefined },
      h('time', null, momentOf(event.time)), event.deviceId && h('a', { href: link(event.deviceId) }, event.deviceId),
      ` ${event.category ?? ''} ${event.operationName ?? ''} ${event.statusType ?? ''} ${event.statusDescription ?? ''}`, fix);
  };
  const kept = [];
  const draw = batched((happened, missed) => {
    kept.unshift(...happened.reverse());
    kept.length = Math.min(kept.length, LINES);
    drawKept(missed);
  });
  const drawKept = (missed) => fill(events, missed > 0 && h('li', { class: 'quiet' }, `${missed} left out: more than can be read`),
    kept.filter(({ level }) => !failures.checked || level !== 'Information').map(told));
  failures.addEventListener('change', () => drawKept(0));
  const stopEvents = follow('/operations', {}, (event) => {
    if (event.rule) remember(byRule, event);
    draw(event);
  });

  let before;
  const count = async () => {
    const [{ totalDeviceCount, disabledDeviceCount }, { connectedDeviceCount }, text] = await Promise.all([
      get('/statistics/devices'), get('/statistics/service'), get('/metrics')]);
    const now = { time: performance.now(), samples: samples(text) };
    const earlier = before ?? now;
    before = now;
    const since = (name) => sum(now, name) - sum(earlier, name);
    const rate = (name) => Math.max(0, Math.round(since(name) / ((now.time - earlier.time) / 1000 || 1)));
    const mean = (name) => since(`${name}_count`) > 0 && `${((since(`${name}_sum`) / since(`${name}_count`)) * 1000).toFixed(1)} ms`;
    fill(counters, facts([
      ['devices', totalDeviceCount], ['of them disabled', disabledDeviceCount], ['connected', connectedDeviceCount],
      ['transports open', sum(now, 'devicebound_connections')], ['AMQP connections', sum(now, 'devicebound_amqp_connections')],
      ['messages a second', rate('devicebound_messages_total')],
      ['acknowledged after', mean('devicebound_acknowledgement_seconds') || 'nothing came'],
      ['written to the store in', mean('devicebound_store_write_seconds') || 'nothing written'],
      ['waits for the store', bytes(sum(now, 'devicebound_backlog_bytes'))],
      ['memory', bytes(sum(now, 'process_resident_memory_bytes'))],
      ['connections refused or cut by throttling', sum(now, 'devicebound_throttled_total')],
      ['TLS handshakes failed', sum(now, 'devicebound_tls_failed_total')],
    ]));
    drawEnds(endsByRule(now.samples));
    fill(all, facts(now.samples.filter(([name]) => !name.endsWith('_bucket')).map(([name, labels, value]) => [labels ? `${name}{${labels}}` : name, value])));
  };
  const stopCount = every(REFRESH, count, () => {});
  return () => {
    stopCount();
    groups.stop();
    stopEvents();
  };
}

/** How many connections each rule has ended or refused since the hub was started. */
function endsByRule(now) {
  const counts = new Map();
  for (const [name, labels, value] of now) {
    const rule = labels.match(/^rule="([^"]*)"$/)?.[1];
    if (rule && /^devicebound_connections_(refused|closed)_total$/.test(name)) counts.set(rule, (counts.get(rule) ?? 0) + value);
  }
  return counts;
}

const DEVICES = 20; // those that are remembered for a rule, the last ones

function remember(byRule, { rule, deviceId, time }) {
  const known = byRule.get(rule) ?? new Map();
  byRule.set(rule, known);
  known.delete(deviceId ?? '');
  known.set(deviceId ?? '', time);
  if (known.size > DEVICES) known.delete(known.keys().next().value);
}

/** The last one, and on a click those before. */
function who(known) {
  if (known === undefined) return 'longer ago than is kept';
  const line = ([device, time]) => [device === '' ? 'a stranger' : h('a', { href: link(device) }, device), ` ${momentOf(time)}`];
  const [last, ...others] = [...known].reverse();
  return [line(last), others.length > 0 && h('details', null, h('summary', null, `${others.length} more`), h('ul', null, others.map((other) => h('li', null, line(other)))))];
}

const NOTICE = 30 * 24 * 3600 * 1000; // milliseconds before the end of a certificate that it is warned of

/** The certificates of the hub, with their dates. */
function certificates() {
  const rows = h('div');
  const draw = (all) => fill(rows, h('table', null,
    h('thead', null, h('tr', null, ['for', 'subject', 'good until'].map((name) => h('th', { scope: 'col' }, name)))),
    h('tbody', null, all.map(({ use, subject, issuer, thumbprint, notAfter }) => h('tr', { title: `${issuer}\nSHA-256 ${thumbprint}` },
      h('td', null, use === 'server' ? 'clients' : 'devices'), h('td', null, subject),
      h('td', { class: new Date(notAfter) - Date.now() < NOTICE ? 'bad' : undefined }, notAfter.slice(0, 10)))))));
  get('/certificates').then(draw, (error) => fill(rows, h('p', { class: 'bad' }, error.message)));
  return section('Certificates', rows);
}

/** What the hub was started with; what nobody has set comes last. */
function settings() {
  const rows = h('div');
  const draw = (all) => {
    const set = all.filter(({ values }) => values.length > 0).sort((one, other) => (one.source === 'default') - (other.source === 'default'));
    fill(rows, h('table', null, h('thead', null, h('tr', null, ['setting', 'value', 'from'].map((name) => h('th', { scope: 'col' }, name)))),
      h('tbody', null, set.map(({ key, values, source }) => h('tr', null, h('td', null, h('code', null, key)), h('td', null, values.join(', ')), h('td', { class: 'quiet' }, source))))));
  };
  get('/settings').then(draw, (error) => fill(rows, h('p', { class: 'bad' }, error.message)));
  return section('Settings', h('details', null, h('summary', null, 'what the hub was started with'), rows));
}

/** The consumer groups of the Event Hubs-compatible endpoint. */
function consumerGroups() {
  const path = '/eventHubEndpoints/events/ConsumerGroups';
  const list = h('div');
  const name = h('input', { autocomplete: 'off' });
  const says = note();
  const draw = async () => {
    const { value } = await get(path);
    fill(list, h('ul', null, value.map((group) => h('li', null, `${group.name} `,
      group.name !== '$Default' && action(h('button', { class: 'bad', type: 'button', 'aria-label': `Delete group ${group.name}` }, 'Delete'), says, async () => {
        await ask('DELETE', `${path}/${encodeURIComponent(group.name)}`);
        await draw();
      })))));
  };
  const add = action(h('button', { type: 'button' }, 'Add group'), says, async () => {
    await ask('PUT', `${path}/${encodeURIComponent(name.value.trim())}`);
    says.good(`Added ${name.value.trim()}.`);
    name.value = '';
    await draw();
  });
  const stop = every(5000, draw, (error) => says.bad(error.message));
  return { panel: section('Consumer groups', list, h('div', { class: 'bar' }, field('Name', name, 'wide'), add), says.line), stop };
}
