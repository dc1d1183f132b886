// A line for the numbers of one field over the last minutes.

const SVG = 'http://www.w3.org/2000/svg';
const KEPT = 600;

/** The numeric fields of a JSON body, by their path. */
export function numbers(value, path = '', found = {}) {
  if (typeof value === 'number') found[path || 'value'] = value;
  else if (value && typeof value === 'object' && Object.keys(found).length < 20) {
    for (const [name, inner] of Object.entries(value)) numbers(inner, path ? `${path}.${name}` : name, found);
  }
  return found;
}

/** What was seen of each field; at most so many points of each. */
export class Series {
  #fields = new Map();

  add(time, body) {
    for (const [path, value] of Object.entries(numbers(body))) {
      const points = this.#fields.get(path) ?? [];
      if (this.#fields.size >= 20 && points.length === 0) continue;
      points.push([time, value]);
      if (points.length > KEPT) points.shift();
      this.#fields.set(path, points);
    }
  }

  get names() {
    return [...this.#fields.keys()];
  }

  draw(name) {
    const svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('class', 'chart');
    svg.setAttribute('viewBox', '0 0 100 100');
    svg.setAttribute('preserveAspectRatio', 'none');
    svg.setAttribute('role', 'img');
    const points = this.#fields.get(name) ?? [];
    const values = points.map(([, value]) => value);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    svg.setAttribute('aria-label', points.length ? `${name}: ${points.length} values from ${low} to ${high}` : 'no numbers yet');
    const [first, last] = [points[0]?.[0] ?? 0, points.at(-1)?.[0] ?? 1];
    const line = document.createElementNS(SVG, 'polyline');
    line.setAttribute('points', points.map(([time, value]) =>
      `${((time - first) / (last - first || 1)) * 100},${95 - ((value - low) / (high - low || 1)) * 90}`).join(' '));
    if (points.length > 1) svg.append(line);
    else svg.setAttribute('hidden', '');
    return { svg, label: points.length > 1 ? `${low} to ${high}` : points.length === 1 ? `${low}; a line from the second value on` : 'A number in a JSON body is drawn here.' };
  }
}
