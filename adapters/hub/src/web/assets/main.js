// Finds the view that the address names.

import { signIn, watchState } from './api.js';
import { fill, h } from './dom.js';
import { devices } from './devices.js';
import { device } from './device.js';
import { hub } from './hub.js';
import { ruleBook } from './rules.js';

const main = document.getElementById('main');
const state = document.getElementById('state');
let leave = () => {};

const STATES = {
  connected: ['', 'connected'],
  away: ['bad', 'The hub does not answer. This page goes on when it does.'],
  signedOut: ['bad', 'Signed out. Open a new link: devicebound page'],
};

watchState((name) => {
  const [kind, text] = STATES[name];
  state.className = kind;
  fill(state, text);
});

function route() {
  const [view, ...rest] = location.hash.replace(/^#\/?/, '').split('/').map(decodeURIComponent);
  const views = { '': () => devices(main), device: () => device(main, rest[0]), hub: () => hub(main), rules: () => ruleBook(main, rest[0]) };
  leave();
  main.replaceChildren();
  for (const link of document.querySelectorAll('nav a')) {
    const own = link.getAttribute('href') === (view === '' || view === 'device' ? '#/' : `#/${view}`);
    if (own) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  leave = (views[view] ?? views[''])() ?? (() => {});
}

try {
  await signIn();
  route();
  addEventListener('hashchange', () => {
    route();
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  });
} catch (error) {
  fill(main, h('section', null, h('h2', null, 'Not signed in'), h('p', null, error.message)));
}
