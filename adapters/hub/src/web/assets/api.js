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

/**
 * Follows a stream of JSON lines; goes on without a gap when the hub was away. Gives what ends it.
 * The browser reconnects by itself with the last cursor, but gives up when it is refused.
 */
export function follow(path, query, onLine) {
  let source;
  let timer;
  let last;
  const open = () => {
    const url = new URL(path, location.origin);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    if (last !== undefined) url.searchParams.set('after', last);
    source = new EventSource(url);
    source.onopen = () => setState('connected');
    source.onmessage = (event) => {
      last = event.lastEventId;
      onLine(JSON.parse(event.data));
    };
    source.addEventListener('gap', (event) => onLine({ event: 'gap', ...JSON.parse(event.data).gap }));
    source.onerror = () => {
      setState('away');
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, 1000);
    };
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}

/** The rule book, read once. */
let book;
export async function rules() {
  book ??= get('/rules');
  return book;
}
