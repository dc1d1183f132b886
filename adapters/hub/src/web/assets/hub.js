// The hub as a whole: counters, what was refused and why, and what happens.

import { ask, follow, get } from './api.js';
import { action, every, facts, field, fill, h, note, section, timeOf } from './dom.js';
import { link } from './devices.js';
import { ruleLink } from './rules.js';

const REFRESH = 2000; // milliseconds
const LINES = 300;

/** The samples of Prometheus' text: [name, labels, value]. */
export function samples(text) {
  return text.split('\n').filter((line) => line && !line.startsWith('#')).map((line) => {
    const [, name, labels = '', value] = line.match(/^(\w+)(?:\{(.*)\})? (\S+)/) ?? [];
    return [name, labels, Number(value)];
  }).filter(([name]) => name !== undefined);
}

export function hub(main) {
  const counters = h('div');
  const ends = h('div');
  const events = h('ol', { class: 'lines', tabindex: '0', 'aria-label': 'Operations, newest first' });
  const byRule = new Map();
  const groups = consumerGroups();
  fill(main, h('h2', null, 'Hub'),
    h('div', { class: 'columns' }, section('Now', counters), section('Connections that ended, by rule', ends)),
    groups.panel, section('Operations', events));

  const drawEnds = () => {
    const rows = [...byRule].sort(([, a], [, b]) => b.count - a.count);
    fill(ends, rows.length === 0 ? h('p', { class: 'quiet' }, 'none yet') : h('table', null,
      h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'rule'), h('th', { scope: 'col' }, 'times'), h('th', { scope: 'col' }, 'last of'))),
      h('tbody', null, rows.map(([rule, { count, device, time }]) => h('tr', null,
        h('td', null, ruleLink(rule)), h('td', null, count),
        h('td', null, device ? h('a', { href: link(device.split('/')[0]) }, device) : 'a stranger', ` ${timeOf(time)}`))))));
  };
  drawEnds();
  const stopEnds = follow('/timeline', {}, (line) => {
    if (line.event !== 'closed') return;
    const known = byRule.get(line.rule) ?? { count: 0 };
    byRule.set(line.rule, { count: known.count + 1, device: line.device, time: line.time });
    drawEnds();
  });
  const stopEvents = follow('/operations', {}, (event) => {
    const fix = event.mend && h('div', { class: 'quiet' }, `fix: ${event.mend}`);
    events.prepend(h('li', { class: event.level === 'Error' ? 'end' : undefined },
      h('time', null, timeOf(event.time)), `${event.deviceId ?? ''} ${event.category ?? ''} ${event.operationName ?? ''} ${event.statusType ?? ''} ${event.statusDescription ?? ''}`, fix));
    while (events.children.length > LINES) events.lastChild.remove();
  });

  let before;
  const count = async () => {
    const [{ totalDeviceCount, disabledDeviceCount }, { connectedDeviceCount }, text] = await Promise.all([
      get('/statistics/devices'), get('/statistics/service'), get('/metrics')]);
    const now = samples(text);
    const sum = (part) => now.filter(([name]) => name.includes(part)).reduce((all, [, , value]) => all + value, 0);
    const messages = sum('messages_total');
    const rate = before === undefined ? '' : Math.max(0, Math.round((messages - before.messages) / ((performance.now() - before.time) / 1000)));
    before = { messages, time: performance.now() };
    fill(counters, facts([
      ['devices', totalDeviceCount], ['of them disabled', disabledDeviceCount], ['connected', connectedDeviceCount],
      ['messages a second', rate],
      ...now.filter(([name, labels]) => labels === '' && !name.endsWith('_bucket')).map(([name, , value]) => [name.replace(/^devicebound_|_total$/g, '').replaceAll('_', ' '), value]),
    ]));
  };
  const stopCount = every(REFRESH, count, () => {});
  return () => {
    stopCount();
    groups.stop();
    stopEnds();
    stopEvents();
  };
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
