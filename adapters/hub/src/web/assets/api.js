// The public REST API and its streams: what this page can do, a program can.

const VERSION = '2021-04-12';

/** What the hub said no with. */
export class Refusal extends Error {
  constructor(status, body) {
    super(body?.Message ?? body?.message ?? `the hub answered ${status}`);
    this.status = status;
  }
}

const watchers = new Set();
let state = 'connected';

/** Calls `watcher` with `connected`, `away` or `signedOut` when that changes. */
export function watchState(watcher) {
  watchers.add(watcher);
  watcher(state);
}

function setState(next) {
  if (state === next) return;
  state = next;
  watchers.forEach((watcher) => watcher(next));
}

/** Asks the hub; gives the JSON of the answer and its headers. */
export async function ask(method, path, { body, headers, query } = {}) {
  const url = new URL(path, location.origin);
  url.searchParams.set('api-version', VERSION);
  for (const [name, value] of Object.entries(query ?? {})) url.searchParams.set(name, value);
  let response;
  try {
    response = await fetch(url, {
      method,
      headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    setState('away');
    throw new Refusal(0, { Message: 'the hub cannot be reached; is it running?' });
  }
  const text = await response.text();
  let value;
  try {
    value = text === '' ? undefined : JSON.parse(text);
  } catch {
    value = text;
  }
  if (response.status === 401) setState('signedOut');
  else setState('connected');
  if (!response.ok) throw new Refusal(response.status, value);
  return { value, headers: response.headers };
}

export const get = async (path, options) => (await ask('GET', path, options)).value;

/** Turns the code of the link into a session, and takes it out of the address. */
export async function signIn() {
  const code = new URLSearchParams(location.hash.slice(1)).get('code');
  if (code === null) return;
  history.replaceState(null, '', location.pathname);
  await ask('POST', '/page/session', { body: { code } });
}

const followed = new Set();
let source;
let timer;

/**
 * Follows a stream of JSON lines; goes on without a gap when the hub, or whoever looks at this tab, was away. Gives what
 * ends it. `onGap` hears of what is missing. All that a tab follows comes over one connection, where there is one left.
 */
export function follow(path, query, onLine, onGap = () => {}) {
  const flow = { path, query, onLine, onGap, last: undefined };
  followed.add(flow);
  reopen(0);
  return () => {
    followed.delete(flow);
    reopen(0);
  };
}

document.addEventListener('visibilitychange', () => reopen(0));

/** Opens the connection anew, for all that is followed by then. */
function reopen(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(open, milliseconds);
}

const SLOTS = 4; // connections that streams may hold, of the six that a browser opens to a host
const POLL = 1000; // milliseconds between looks of a tab that has none of them
let giveBack; // the slot of this tab, if it has one
let round = 0; // of opening: what an earlier one still waits for is of no use any more

/** Takes one of the slots that all tabs share; false where there is none left. */
async function takeSlot() {
  for (let slot = 0; slot < SLOTS && !giveBack; slot += 1) {
    await new Promise((taken) => navigator.locks.request(`stream-${slot}`, { ifAvailable: true }, (lock) => {
      taken();
      return lock && new Promise((release) => (giveBack = release));
    }));
  }
  return giveBack !== undefined;
}

async function open() {
  const own = (round += 1);
  source?.close();
  source = undefined;
  if (followed.size === 0 || document.hidden) {
    giveBack?.();
    giveBack = undefined;
    return;
  }
  const hasSlot = await takeSlot();
  if (own !== round) return;
  if (hasSlot) listen();
  else await look(own);
}

/** The streams of all that is followed, from where each was left. */
function streams(flows, more) {
  const url = new URL('/streams', location.origin);
  for (const { path, query, last } of flows) {
    url.searchParams.append('of', `${path}?${new URLSearchParams({ ...query, ...(last === undefined ? {} : { after: last }), ...more })}`);
  }
  return url;
}

/** Turns events into lines; the last event `of` says whose they are. */
function receiver(flows) {
  let flow;
  return {
    of: (event) => (flow = flows[event.data]),
    message: (event) => {
      flow.last = event.lastEventId;
      flow.onLine(JSON.parse(event.data));
    },
    gap: (event) => {
      const { from, to } = JSON.parse(event.data).gap;
      flow.onGap(`${to - from + 1} are missing here: they are not kept any more`);
    },
    restarted: () => {
      flow.last = undefined;
      flow.onGap('the hub was started again');
    },
  };
}

/** Hears of everything as it comes. */
function listen() {
  const flows = [...followed];
  source?.close();
  const opened = new EventSource(streams(flows, {}));
  source = opened;
  opened.onopen = () => setState('connected');
  for (const [name, take] of Object.entries(receiver(flows))) opened.addEventListener(name, take);
  // The browser would reconnect with the cursor of one stream for all.
  opened.onerror = () => {
    opened.close();
    if (opened !== source) return;
    setState('away');
    reopen(1000);
  };
}

/** Looks what has come, and again a second later: other tabs have the connections that wait. */
async function look(own) {
  const flows = [...followed];
  const takes = receiver(flows);
  try {
    const answer = await fetch(streams(flows, { follow: 'false' }), { headers: { Accept: 'text/event-stream' } });
    const text = await answer.text();
    if (own !== round) return;
    for (const block of text.split('\n\n')) {
      const fields = Object.fromEntries(block.split('\n').map((line) => line.split(/: (.*)/s, 2)));
      if (fields.data !== undefined) takes[fields.event ?? 'message']?.({ data: fields.data, lastEventId: fields.id });
    }
    setState('connected');
  } catch {
    setState('away');
  }
  if (own === round) reopen(POLL);
}

/** The rule book, read once. */
let book;
export async function rules() {
  book ??= get('/rules');
  return book;
}
