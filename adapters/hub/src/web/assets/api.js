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
 * ends it. `onGap` hears of what is missing. All that a tab follows comes over one connection: a browser opens six to a host, and all tabs share them.
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

function open() {
  source?.close();
  source = undefined;
  if (followed.size === 0 || document.hidden) return;
  const flows = [...followed];
  const url = new URL('/streams', location.origin);
  for (const { path, query, last } of flows) {
    url.searchParams.append('of', `${path}?${new URLSearchParams(last === undefined ? query : { ...query, after: last })}`);
  }
  const opened = new EventSource(url);
  source = opened;
  let flow;
  opened.onopen = () => setState('connected');
  opened.addEventListener('of', (event) => (flow = flows[event.data]));
  opened.onmessage = (event) => {
    flow.last = event.lastEventId;
    flow.onLine(JSON.parse(event.data));
  };
  opened.addEventListener('gap', (event) => {
    const { from, to } = JSON.parse(event.data).gap;
    flow.onGap(`${to - from + 1} are missing here: they are not kept any more`);
  });
  opened.addEventListener('restarted', () => {
    flow.last = undefined;
    flow.onGap('the hub was started again');
  });
  // The browser would reconnect with the cursor of one stream for all.
  opened.onerror = () => {
    opened.close();
    if (opened !== source) return;
    setState('away');
    reopen(1000);
  };
}

/** The rule book, read once. */
let book;
export async function rules() {
  book ??= get('/rules');
  return book;
}
