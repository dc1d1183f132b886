// One device: what it says and hears as it happens, and why it was dropped.

import { follow, get } from './api.js';
import { batched, decoded, every, facts, field, fill, folded, h, isChange, momentOf, section, timeOf } from './dom.js';
import { modules, queue } from './look.js';
import { Series } from './chart.js';
import { cloudMessages, credentials, faults, methods, twin } from './panels.js';
import { ruleLink } from './rules.js';
import { snippets } from './snippets.js';

const LINES = 500; // lines that are kept in the document

export function device(main, id) {
  const head = h('div');
  const [past, lines, messages, waiting, own] = [history(changed), timeline(), telemetry(), queue(id), modules(id)];

  fill(main, h('h2', null, id), h('div', { class: 'columns' }, head, past.panel),
    h('div', { class: 'columns' }, lines.panel, messages.panel),
    twin(id), h('div', { class: 'columns' }, methods(id), cloudMessages(id), waiting.panel, credentials(id), snippets(id), own.panel, faults(id)));

  // A look at a connection leaves no trace among the operations; a look at the identity does, so it is taken when it changes.
  const path = encodeURIComponent(id);
  let identity;
  const describe = async () => {
    identity ??= await get(`/devices/${path}`);
    const live = await get(`/connections/${path}`);
    fill(head, section('State', facts([
      ['connection', live.connectionState === 'Connected' ? 'online' : 'offline'],
      ['since', live.since], ['last activity', live.lastActivityTime],
      ['address', live.address], ['protocol', live.protocol], ['SDK', live.sdk], ['api-version', live.apiVersion],
      ['proved itself with', live.credential], ['which expires', live.credentialExpires],
      ['session', live.cleanSession === false && 'outlives the connection (CleanSession 0)'],
      ['subscribed to', live.subscriptions?.join(', ')],
      ['status', identity.status], ['reason', identity.statusReason],
      ['credential', identity.authentication?.type],
      ['generation', identity.generationId]])));
  };
  const state = every(3000, describe, (error) => fill(head, h('p', { class: 'bad' }, error.message)));
  return () => [past, lines, messages, waiting, { stop: state }].forEach(({ stop }) => stop());

  /** Something was said of the device or of a module: what is shown of them may be old. */
  function changed() {
    identity = undefined;
    own.draw();
  }

  /** When it came, went and was refused, and why: what is kept of it for longest. */
  function history(changed) {
    const list = h('ol', { class: 'lines', tabindex: '0', 'aria-label': 'Connections and errors, newest first' });
    const none = h('p', { class: 'quiet' }, 'None since the hub was started.');
    const feed = batched((events, missed) => {
      const wanted = events.filter(({ category, level }) => category === 'Connections' || level !== 'Information');
      if (events.some(isChange)) changed();
      list.prepend(...wanted.reverse().map(happened));
      if (missed) list.prepend(h('li', { class: 'quiet' }, `${missed} left out: more than can be read`));
      while (list.children.length > LINES / 5) list.lastChild.remove();
      none.hidden = list.children.length > 0;
    });
    return { panel: section('Connections and errors', none, list), stop: follow('/operations', { deviceId: id }, feed) };
  }

  /** The packets in the words of the live view, and each end with rule, bytes and fix. */
  function timeline() {
    const list = h('ol', { class: 'lines', tabindex: '0', 'aria-label': 'Timeline, newest first' });
    const kind = h('select', null, ['everything', 'ends and refusals', 'to the hub', 'to the device'].map((name) => h('option', null, name)));
    const pause = h('input', { type: 'checkbox' });
    const left = h('p', { class: 'quiet', role: 'status' });
    const wanted = (line) => ({
      'everything': true, 'ends and refusals': line.event !== 'packet',
      'to the hub': line.direction === 'toHub', 'to the device': line.direction === 'toDevice',
    })[kind.value];
    const feed = batched((lines, missed) => {
      if (pause.checked) return;
      list.prepend(...lines.filter(wanted).reverse().map(told));
      while (list.children.length > LINES) list.lastChild.remove();
      fill(left, missed ? `${missed} lines left out: more than can be read` : '');
    });
    const stop = follow('/timeline', { deviceId: id }, feed, (text) => list.prepend(h('li', { class: 'warn' }, text)));
    const panel = section('Timeline', h('div', { class: 'bar' }, field('Show', kind), field('Pause', pause, 'check')), left, list);
    return { panel, stop };
  }

  /** Messages with their bodies, and a chart of a number in them. */
  function telemetry() {
    const list = h('ol', { class: 'lines', tabindex: '0', 'aria-label': 'Telemetry, newest first' });
    const series = new Series();
    const name = h('select', null);
    const chart = h('div');
    const drawChart = () => {
      if (name.children.length !== series.names.length) {
        const chosen = name.value;
        fill(name, series.names.map((known) => h('option', { selected: known === chosen }, known)));
      }
      const { svg, label } = series.draw(name.value);
      fill(chart, svg, h('p', { class: 'quiet' }, label));
    };
    name.addEventListener('change', drawChart);
    const feed = batched((lines, missed) => {
      list.prepend(...lines.reverse().map((message) => {
        const { text, json } = decoded(message.body);
        if (json !== undefined) series.add(new Date(message.enqueuedTime).getTime(), json);
        const properties = Object.entries(message.properties ?? {});
        return h('li', null, h('time', null, timeOf(message.enqueuedTime)),
          properties.map(([key, value]) => h('span', { class: 'mark' }, `${key}=${value}`, ' ')), folded(text),
          h('details', null, h('summary', null, 'system properties'), h('pre', null, JSON.stringify(message.systemProperties, null, 2))));
      }));
      while (list.children.length > LINES / 5) list.lastChild.remove();
      if (missed) list.prepend(h('li', { class: 'quiet' }, `${missed} messages left out: more than can be read`));
      drawChart();
    });
    drawChart();
    const stop = follow('/messages/events', { deviceId: id }, feed, (text) => list.prepend(h('li', { class: 'warn' }, text)));
    const panel = section('Telemetry', h('div', { class: 'bar' }, field('Chart of', name)), chart, list);
    return { panel, stop };
  }
}

/** What an event of operations monitoring says to a reader. */
function happened(event) {
  const kind = { Error: 'end', Warning: 'end' }[event.level];
  const time = h('time', null, momentOf(event.time));
  const what = { deviceConnect: 'connected', deviceDisconnect: 'disconnected' }[event.operationName] ?? event.operationName;
  if (kind === undefined) return h('li', null, time, h('span', null, what));
  return h('li', { class: kind }, time, h('strong', { class: event.level === 'Error' ? 'bad' : 'warn' }, event.operationName), ' ', event.rule && ruleLink(event.rule),
    h('div', null, event.statusDescription), event.received && h('div', { class: 'quiet' }, `received ${event.received}, expected ${event.expected}`),
    event.mend && h('div', null, `fix: ${event.mend}`));
}

function told(line) {
  if (line.event === 'packet') {
    return h('li', null, h('time', null, timeOf(line.time)), line.direction === 'toHub' ? '──▶ ' : '◀── ', line.text);
  }
  if (line.event !== 'closed') return h('li', { class: 'warn' }, line.time && h('time', null, timeOf(line.time)), line.text ?? JSON.stringify(line));
  const isCalm = line.rule === 'MQTT-3.14.4-2';
  return h('li', { class: isCalm ? 'end calm' : 'end' },
    h('time', null, timeOf(line.time)), h('strong', { class: isCalm ? undefined : 'bad' }, line.reason), ' ', ruleLink(line.rule),
    h('div', null, line.says),
    line.received && h('div', { class: 'quiet' }, `received ${line.received}, expected ${line.expected}`),
    line.bytes && h('div', { class: 'quiet' }, `bytes: ${line.bytes}`),
    !isCalm && h('div', null, `fix: ${line.mend}`));
}
