// All devices: searched by the hub, a page at a time, and only the rows in sight are in the document.

import { ask, follow, get } from './api.js';
import { action, field, fill, h, isChange, note, section } from './dom.js';

const ROW = 34; // pixels, as the style sheet has it
const PAGE = 200; // rows that are asked for at a time
const REFRESH = 2000; // milliseconds
/** Conditions that show what the query language can do; each is taken by a click, and can be changed. */
const EXAMPLES = [
  ['offline', "WHERE connectionState = 'Disconnected'"],
  ['disabled', "WHERE status = 'disabled'"],
  ['by a tag', "WHERE tags.site = 'Oslo'"],
  ['by a reported property', "WHERE properties.reported.firmware = '1.1'"],
];
const COLUMNS = 'deviceId, status, connectionState, authenticationType, lastActivityTime';

export const link = (id) => `#/device/${encodeURIComponent(id)}`;

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

/** The condition for what was typed: part of an id, or the query language as it is. */
export function condition(text) {
  if (text === '') return '';
  return /^where\s/i.test(text) ? text : `WHERE CONTAINS(deviceId, ${quoted(text)})`;
}

export function devices(main) {
  const search = h('input', { type: 'search', id: 'search', placeholder: "part of an id, or WHERE tags.site = 'Oslo'" });
  const says = note();
  const count = h('p', { class: 'quiet', role: 'status' });
  const rows = h('div', { class: 'rows', role: 'list' });
  const scroller = h('div', { class: 'scroller', tabindex: '0', role: 'region', 'aria-label': 'Devices' }, rows);
  const list = { found: [], more: null, query: '', isLoading: false, round: 0 };

  const draw = () => {
    const from = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 10);
    const to = Math.min(list.found.length, from + Math.ceil(scroller.clientHeight / ROW) + 20);
    rows.style.height = `${list.found.length * ROW}px`;
    fill(rows, list.found.slice(from, to).map((device, index) => {
      const row = h('div', { class: 'row', role: 'listitem' },
        h('a', { href: link(device.deviceId), title: device.deviceId }, device.deviceId),
        h('span', { class: device.connectionState === 'Connected' ? 'good' : 'quiet' }, device.connectionState === 'Connected' ? 'online' : 'offline'),
        h('span', { class: device.status === 'enabled' ? 'quiet' : 'warn' }, device.status),
        h('span', { class: 'quiet' }, device.authenticationType ?? ''));
      row.style.top = `${(from + index) * ROW}px`;
      return row;
    }));
    fill(count, `${list.found.length}${list.more ? ' and more' : ''} ${list.found.length === 1 ? 'device' : 'devices'}`);
    if (list.more && to + 50 > list.found.length) load(list.round);
  };

  const load = async (round) => {
    if (list.isLoading) return;
    list.isLoading = true;
    try {
      const headers = { 'x-ms-max-item-count': String(PAGE), ...(list.more ? { 'x-ms-continuation': list.more } : {}) };
      const body = { query: `SELECT ${COLUMNS} FROM devices ${list.query}` };
      const { value, headers: answer } = await ask('POST', '/devices/query', { body, headers });
      if (round !== list.round) return;
      list.found.push(...value);
      list.more = answer.get('x-ms-continuation');
      says.quiet('');
    } catch (error) {
      if (round === list.round) says.bad(error.message);
      list.more = null;
    } finally {
      list.isLoading = false;
    }
    if (round === list.round) draw();
    else start();
  };

  const start = () => {
    Object.assign(list, { found: [], more: null, query: condition(search.value.trim()), round: list.round + 1 });
    load(list.round);
  };

  let typing;
  search.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(start, 200);
  });
  scroller.addEventListener('scroll', draw);
  // Asked anew when something changed, and at most so often; not under somebody who reads further down.
  let isStale = false;
  const stop = follow('/operations', { after: 'newest' }, (event) => (isStale ||= isChange(event)));
  const refresh = setInterval(() => {
    // What happened while nobody looked was not heard.
    isStale ||= document.hidden;
    if (!isStale || scroller.scrollTop > 0 || document.hidden || list.found.length > PAGE) return;
    isStale = false;
    start();
  }, REFRESH);

  const welcome = h('div');
  fill(main,
    h('h2', null, 'Devices'), welcome,
    h('div', { class: 'bar' }, field('Search: part of an id, or a condition of the query language', search, 'wide')),
    h('div', { class: 'choices', role: 'group', 'aria-label': 'Examples' }, EXAMPLES.map(([name, text]) => h('button', {
      type: 'button', title: text, click: () => {
        search.value = text;
        search.focus();
        start();
      },
    }, name))), says.line, count, scroller, add(start));
  start();
  firstSteps(welcome);
  return () => {
    clearInterval(refresh);
    stop();
  };
}

/** Registers a device. */
function add(done) {
  const id = h('input', { id: 'new-device', autocomplete: 'off' });
  const kind = h('select', null,
    h('option', { value: 'sas' }, 'SAS: keys are made'),
    h('option', { value: 'selfSigned' }, 'X.509: a certificate by its thumbprint'),
    h('option', { value: 'certificateAuthority' }, 'X.509: signed by an authority'));
  const print = h('input', { placeholder: 'SHA-1 or SHA-256, hexadecimal' });
  const says = note();
  const button = action(h('button', { class: 'main', type: 'button' }, 'Add'), says, async () => {
    const type = kind.value;
    const authentication = type === 'selfSigned' ? { type, x509Thumbprint: { primaryThumbprint: print.value.trim() } } : { type };
    const deviceId = id.value.trim();
    await ask('PUT', `/devices/${encodeURIComponent(deviceId)}`, { body: { deviceId, authentication } });
    fill(says.line, h('span', { class: 'good' }, 'Added. '), h('a', { href: link(deviceId) }, `Open ${deviceId}`));
    id.value = '';
    done();
  });
  const shownPrint = field('Thumbprint', print, 'wide');
  shownPrint.hidden = true;
  kind.addEventListener('change', () => (shownPrint.hidden = kind.value !== 'selfSigned'));
  return section('Add a device', h('div', { class: 'bar' }, field('Device id', id, 'wide'), field('Credential', kind), shownPrint, button), says.line);
}

/** Three steps for a hub that has heard of nobody yet. */
async function firstSteps(welcome) {
  const { totalDeviceCount } = await get('/statistics/devices');
  if (totalDeviceCount > 1) return;
  const { connectedDeviceCount } = await get('/statistics/service');
  if (connectedDeviceCount > 0) return;
  fill(welcome, section('Three steps to the first message',
    h('ol', { class: 'steps' },
      h('li', null, 'Open the device ', h('a', { href: link('demo') }, 'demo'), ', which is there already, or add one below.'),
      h('li', null, 'Copy one of the snippets under First message, and save ca.pem beside it.'),
      h('li', null, 'Run the snippet: the message is on the page of the device as it comes, and whatever goes wrong says why.'))));
}
