// Elements from values. What a device said becomes text and nothing else.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** Text with characters that are not seen, or that turn the line around, shown by their number. */
export function shown(text) {
  return String(text).replace(HIDDEN, (c) => `\u27e8U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}\u27e9`);
}

/** An element: h('p', { class: 'quiet' }, 'text', other). Functions are listeners; children that are text stay text. */
export function h(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(name, value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : shown(child));
  }
}

/** Puts these children in the place of all that is there. */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** A labelled control. */
export function field(label, control, kind) {
  return h('label', { class: kind }, label, control);
}

/** A list of names and values. */
export function facts(pairs) {
  return h('dl', null, pairs.filter(([, value]) => value !== undefined && value !== null && value !== false && value !== '')
    .map(([name, value]) => [h('dt', null, name), h('dd', null, value)]));
}

/** Does something now and every so many milliseconds while the page is in sight; gives what ends it. */
export function every(milliseconds, act, onError) {
  const run = () => act().catch(onError);
  run();
  const timer = setInterval(() => !document.hidden && run(), milliseconds);
  return () => clearInterval(timer);
}

/** Text that may be long: folded, with its beginning and its length in sight. */
export function folded(text) {
  const pre = h('pre', null, text);
  return text.length <= 1500 ? pre : h('details', null, h('summary', null, `${text.slice(0, 120)} …, ${text.length} characters`), pre);
}

/** A section with a heading. */
export function section(title, ...children) {
  return h('section', { 'aria-label': title }, h('h3', null, title), children);
}

/** A line for what became of an action, read out when it changes. */
export function note() {
  const line = h('p', { class: 'note', role: 'status' });
  const say = (kind) => (text) => {
    line.className = `note ${kind}`;
    fill(line, text);
  };
  return { line, good: say('good'), bad: say('bad'), quiet: say('quiet') };
}

/** Runs an action of a button: it cannot be started twice, and what goes wrong is said. */
export function action(button, says, act) {
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      await act();
    } catch (error) {
      says.bad(error.message);
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

/** The time of day of a timestamp, here. */
export function timeOf(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleTimeString([], { hour12: false }) + `.${String(time.getMilliseconds()).padStart(3, '0')}`;
}

/** The same with the day, where that is another one. */
export function momentOf(text) {
  const time = new Date(text);
  const isToday = time.toDateString() === new Date().toDateString();
  return isToday || Number.isNaN(time.getTime()) ? timeOf(text) : `${time.toLocaleDateString()} ${timeOf(text)}`;
}

export const pretty = (value) => JSON.stringify(value, null, 2);

/** Text for a body: JSON folded out, text as it is, bytes in hexadecimal. */
export function decoded(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    try {
      const json = JSON.parse(text);
      return { text: text.length < 4096 ? JSON.stringify(json, null, 1) : cut(text), json };
    } catch {
      return { text: cut(text) };
    }
  } catch {
    return { text: cut([...bytes.slice(0, 1400)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')) };
  }
}

const cut = (text) => (text.length > 4096 ? `${text.slice(0, 4096)} … ${text.length} characters` : text);

const PER_FRAME = 40; // lines that are drawn at a time; more are counted

/** Gathers what comes and draws once a frame: the newest of them, and how many were left out. */
export function batched(draw) {
  let waiting = [];
  let missed = 0;
  let isScheduled = false;
  return (line) => {
    waiting.push(line);
    if (waiting.length > PER_FRAME) {
      waiting.shift();
      missed += 1;
    }
    if (isScheduled) return;
    isScheduled = true;
    setTimeout(() => requestAnimationFrame(() => {
      isScheduled = false;
      const [lines, left] = [waiting, missed];
      [waiting, missed] = [[], 0];
      draw(lines, left);
    }), 40);
  };
}

/** Whether an event of operations monitoring says that connections or identities are other than before. */
export const isChange = ({ category, operationName }) => category === 'Connections' || (category === 'DeviceIdentityOperations' && operationName !== 'get');
