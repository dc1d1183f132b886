// The rule book: the same text as devicebound explain.

import { rules } from './api.js';
import { facts, field, fill, h } from './dom.js';

export const ruleLink = (id) => h('a', { href: `#/rules/${encodeURIComponent(id)}` }, id);

export function ruleBook(main, wanted) {
  const search = h('input', { type: 'search', placeholder: 'an id, or a word' });
  const list = h('div');
  const draw = (all) => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (rule) => words.every((word) => Object.values(rule).join(' ').toLowerCase().includes(word));
    fill(list, all.filter(fits).map((rule) => h('section', { id: `rule-${rule.id}`, tabindex: '-1' },
      h('h3', null, rule.id), facts([['says', rule.says], ['fix', rule.fix], ['source', rule.source]]))));
  };
  fill(main, h('h2', null, 'Rules'), h('div', { class: 'bar' }, field('Search', search, 'wide')), list);
  rules().then((all) => {
    search.addEventListener('input', () => draw(all));
    draw(all);
    const target = wanted && document.getElementById(`rule-${wanted}`);
    if (target) {
      target.scrollIntoView();
      target.focus();
    }
  }, (error) => fill(list, h('p', { class: 'bad' }, error.message)));
}
