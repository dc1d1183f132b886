// What the hub has of one device besides its packets: the messages that wait, and its modules.

import { ask, get } from './api.js';
import { action, decoded, every, field, fill, h, note, section, timeOf } from './dom.js';

const REFRESH = 3000; // milliseconds
const encoded = encodeURIComponent;

/** The queue of cloud-to-device messages, oldest first. */
export function queue(id) {
  const rows = h('div');
  const draw = async () => {
    const messages = await get(`/queues/${encoded(id)}`);
    fill(rows, messages.length === 0 ? h('p', { class: 'quiet' }, 'No message waits.') : h('table', null,
      h('thead', null, h('tr', null, ['number', 'message', 'enqueued', 'expires', 'feedback', 'deliveries', ''].map((name) => h('th', { scope: 'col' }, name)))),
      h('tbody', null, messages.map((message) => h('tr', null,
        h('td', null, message.sequenceNumber),
        h('td', null, message.messageId && h('span', { class: 'quiet' }, `${message.messageId} `), decoded(message.body).text.slice(0, 80)),
        h('td', null, timeOf(message.enqueuedTime)), h('td', null, timeOf(message.expiryTime)),
        h('td', null, message.ack), h('td', null, message.deliveryCount),
        h('td', { class: 'warn' }, message.locked ? 'locked' : ''))))));
  };
  const stop = every(REFRESH, draw, (error) => fill(rows, h('p', { class: 'bad' }, error.message)));
  return { panel: section('Queue', rows), stop };
}

/** The modules of the device; each can be added and deleted. `draw` looks at them again. */
export function modules(id) {
  const path = `/devices/${encoded(id)}/modules`;
  const rows = h('div');
  const name = h('input', { autocomplete: 'off' });
  const says = note();
  const draw = async () => {
    const known = await get(path);
    fill(rows, known.length === 0 ? h('p', { class: 'quiet' }, 'none') : h('ul', null, known.map((module) => h('li', null,
      `${module.moduleId} `, h('span', { class: module.connectionState === 'Connected' ? 'good' : 'quiet' }, module.connectionState === 'Connected' ? 'online ' : 'offline '),
      action(h('button', { class: 'bad', type: 'button', 'aria-label': `Delete module ${module.moduleId}` }, 'Delete'), says, async () => {
        if (!confirm(`Delete the module ${module.moduleId}? Its twin goes with it.`)) return;
        await ask('DELETE', `${path}/${encoded(module.moduleId)}`, { headers: { 'If-Match': '*' } });
        await draw();
      })))));
  };
  const add = action(h('button', { type: 'button' }, 'Add module'), says, async () => {
    const moduleId = name.value.trim();
    await ask('PUT', `${path}/${encoded(moduleId)}`, { body: { deviceId: id, moduleId, authentication: { type: 'sas' } } });
    says.good(`Added ${moduleId}.`);
    name.value = '';
    await draw();
  });
  const again = () => draw().catch((error) => says.bad(error.message));
  again();
  return { panel: section('Modules', rows, h('div', { class: 'bar' }, field('Module id', name, 'wide'), add), says.line), draw: again };
}
