#pragma once

#include <string_view>

/// What every graph page is made of besides its data. The script reads one JSON text from the page and nothing else: no
/// network, no storage, and text reaches the page only as text, never as markup.
namespace circuit::detail {

inline constexpr std::string_view graph_page_style = R"css(
:root { color-scheme: light; --ground:#fff; --panel:#f6f7f9; --line:#d6dbe1; --text:#1f2429; --soft:#5b6670;
  --band:#f4f6f8; --node:#fff; --rim:#4a545e; --accent:#0b66d0; --shadow:rgba(20,30,40,.18);
  --ov:#2b74d4; --q:#d96b00; --k:#1f9250; --mlp:#8d4fc7; --metric:#cf2f63; --resid:#6b7280; }
:root[data-theme=dark] { color-scheme: dark; --ground:#14171a; --panel:#1d2125; --line:#363d44; --text:#e4e8ec; --soft:#9aa5b0;
  --band:#1a1e22; --node:#23282d; --rim:#b4bec8; --accent:#6cb0ff; --shadow:rgba(0,0,0,.6);
  --ov:#62a3f5; --q:#f59a45; --k:#4fc682; --mlp:#bd8df0; --metric:#f2668f; --resid:#9ca3af; }
* { box-sizing: border-box; }
html, body { height: 100%; margin: 0; }
body { display: flex; flex-direction: column; background: var(--ground); color: var(--text);
  font: 13px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header { padding: 8px 14px 9px; background: var(--panel); border-bottom: 1px solid var(--line); }
h1 { display: inline; margin: 0 12px 0 0; font-size: 15px; font-weight: 600; }
#summary { color: var(--soft); }
#controls { display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center; margin-top: 7px; }
#controls label { display: inline-flex; gap: 5px; align-items: center; white-space: nowrap; cursor: pointer; }
#controls .group { display: inline-flex; gap: 9px; align-items: center; }
input[type=range] { width: 110px; accent-color: var(--accent); }
input[type=checkbox] { margin: 0; accent-color: var(--accent); }
input[type=search], input[type=number], select, button { font: inherit; color: inherit; background: var(--ground);
  border: 1px solid var(--line); border-radius: 5px; padding: 2px 7px; }
input[type=number] { width: 84px; } input[type=search] { width: 175px; }
button { cursor: pointer; } button:hover { border-color: var(--accent); }
.swatch { width: 14px; height: 4px; border-radius: 2px; display: inline-block; }
.soft { color: var(--soft); }
main { position: relative; flex: 1; min-height: 0; display: flex; }
#stage { flex: 1; overflow: auto; position: relative; }
#stage svg { display: block; margin: 0 auto; }
#side { width: 330px; overflow: auto; padding: 12px 14px; background: var(--panel); border-left: 1px solid var(--line); }
#side[hidden], #tip[hidden] { display: none; }
#side h2 { font-size: 14px; margin: 0 0 4px; } #side h3 { font-size: 12px; margin: 12px 0 3px; color: var(--soft); }
#side .row { display: flex; gap: 7px; align-items: center; width: 100%; padding: 2px 4px; border: 0; background: none; text-align: left; }
#side .row:hover { background: var(--ground); } #side .row .n { margin-left: auto; font-variant-numeric: tabular-nums; }
#tip { position: absolute; z-index: 5; max-width: 350px; padding: 8px 11px; background: var(--ground); border: 1px solid var(--line);
  border-radius: 7px; box-shadow: 0 4px 16px var(--shadow); }
#tip b, #side b { font-weight: 600; }
table.values { border-collapse: collapse; margin-top: 3px; font-variant-numeric: tabular-nums; }
table.values td, table.values th { padding: 0 12px 0 0; text-align: right; font-weight: 400; }
table.values td:first-child, table.values th { color: var(--soft); } table.values td:first-child { text-align: left; }
a { color: var(--accent); }
.band { fill: var(--band); } .ground { fill: var(--ground); }
.side-label { fill: var(--soft); font-size: 11px; } .layer-label { fill: var(--text); font-size: 12px; font-weight: 600; }
.token { fill: var(--text); font-size: 12px; } .token-index { fill: var(--soft); font-size: 10px; }
.column { stroke: var(--line); stroke-dasharray: 2 5; }
.edge { fill: none; stroke-linecap: round; }
.node { cursor: pointer; } .node > .shape { fill: var(--node); stroke: var(--rim); stroke-width: 1.4; }
.node.mlp > .shape { stroke: var(--mlp); } .node.attn > .shape { stroke: var(--ov); }
.node.embed > .shape { fill: var(--rim); } .node.error > .shape { stroke: var(--soft); stroke-dasharray: 2 1.5; }
.node.metric > .shape { fill: var(--metric); stroke: none; } .node.metric > text { fill: #fff; font-weight: 600; font-size: 12px; }
.node > text { fill: var(--text); font-size: 9.5px; text-anchor: middle; pointer-events: none;
  paint-order: stroke; stroke: var(--ground); stroke-width: 2.5px; }
.node.metric > text { stroke: none; }
.node.found > .shape { stroke: #e5a50a; stroke-width: 4; }
.node.hover > .shape, .node.pinned > .shape { stroke: var(--accent); stroke-width: 3; }
.faint { opacity: .12; }
#empty { position: absolute; left: 0; right: 0; top: 30%; text-align: center; color: var(--soft); }
)css";

inline constexpr std::string_view graph_page_body = R"html(
<header>
  <h1 id="title"></h1><span id="summary"></span>
  <div id="controls">
    <label>show <select id="shown"><option value="em">em: share of the metric</option><option value="nn">nn: share of the target</option></select></label>
    <label title="edges whose attribution is smaller in size are left out">threshold <input id="threshold" type="range" min="0" max="1000" value="0">
      <input id="limit" type="number" min="0" step="any" value="0" aria-label="threshold value"></label>
    <span id="types" class="group"></span>
    <span class="group">
      <label><input id="first" type="checkbox"> position 0</label>
      <label><input id="errors" type="checkbox"> errors</label>
      <label><input id="embeddings" type="checkbox" checked> embeddings</label>
      <label><input id="names" type="checkbox"> names</label>
    </span>
    <label>spacing <input id="spacing" type="range" min="10" max="90" value="26"></label>
    <label>zoom <input id="zoom" type="range" min="20" max="250" value="100"></label>
    <button id="fit" title="fit the width">fit</button>
    <input id="search" type="search" placeholder="find attn.2 or 7515" aria-label="find a node"><span id="found" class="soft"></span>
    <button id="clear" hidden>show all paths</button>
    <button id="theme" title="light or dark">&#9681;</button>
  </div>
</header>
<main><div id="stage"></div><aside id="side" hidden></aside><div id="tip" hidden></div></main>
)html";

inline constexpr std::string_view graph_page_script = R"js(
'use strict';
(() => {
const data = JSON.parse(document.getElementById('circuit-data').textContent);
const types = ['ov', 'q', 'k', 'mlp', 'metric', 'resid'].filter(t => t !== 'resid' || data.edges.some(e => e.type === t));
const $ = id => document.getElementById(id);
const nodes = data.nodes, edges = data.edges;
const state = { shown: data.shown, limit: data.threshold, types: new Set(types), first: data.first, errors: data.errors,
  embeddings: true, names: null, spacing: 26, zoom: null, pinned: null, search: '' };

nodes.forEach((n, i) => {
  n.index = i; n.in = []; n.out = [];
  n.error = n.kind.endsWith('_error'); n.embed = n.kind.endsWith('embed') || n.kind === 'input';
  n.isMetric = n.kind === 'metric' || n.kind === 'logit';  // what is explained
  n.family = n.isMetric ? 'metric' : n.embed ? 'embed' : n.kind.startsWith('attn') || n.kind === 'head' ? 'attn' : n.kind.startsWith('resid') ? 'resid' : 'mlp';
  n.row = n.isMetric ? Infinity : n.embed ? 0 : 3 * n.layer + (n.family === 'resid' ? 1 : n.family === 'attn' ? 2 : 3);
  n.whole = !n.isMetric && n.position === undefined;  // a head, MLP or input at all positions
  n.token = n.isMetric ? '' : (data.tokens[n.position] ?? '');
});
const positioned = nodes.some(n => !n.isMetric && !n.whole);
edges.forEach((e, i) => { e.index = i; e.from = nodes[e.up]; e.to = nodes[e.down]; e.from.out.push(e); e.to.in.push(e); });
const value = e => state.shown === 'em' ? e.em_attrib : e.nn_attrib;
const size = e => Math.abs(value(e));
const number = x => x === 0 ? '0' : Math.abs(x) >= 1e5 || Math.abs(x) < 1e-3 ? x.toExponential(2) : Number(x.toPrecision(4)).toString();

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes || {})) k === 'onclick' ? element.addEventListener('click', v) : element.setAttribute(k, v);
  element.append(...children);
  return element;
}
function draw(parent, tag, attributes, text) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const k in attributes) element.setAttribute(k, attributes[k]);
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}

const manyEdges = 4000;  // edges that a browser still moves at ease; of more, the strongest are shown first
if (!state.limit && edges.length > manyEdges) state.limit = edges.map(size).sort((a, b) => b - a)[manyEdges / 2];

// ---- what is visible
let visibleEdges = [], visibleNodes = [], largest = 1;
function nodeAllowed(n) {
  return (state.first || n.position !== 0) && (state.errors || !n.error) && (state.embeddings || !n.embed);
}
function select() {
  largest = edges.reduce((most, e) => Math.max(most, size(e)), 0) || 1;
  visibleEdges = edges.filter(e => state.types.has(e.type) && size(e) >= state.limit && nodeAllowed(e.from) && nodeAllowed(e.to));
  if (state.pinned) {
    const kept = new Set();
    const walk = (start, way, end) => {
      const seen = new Set([start]), open = [start];
      const byNode = new Map();
      for (const e of visibleEdges) { const k = e[way]; byNode.has(k) ? byNode.get(k).push(e) : byNode.set(k, [e]); }
      while (open.length) for (const e of byNode.get(open.pop()) || []) {
        kept.add(e);
        if (!seen.has(e[end])) { seen.add(e[end]); open.push(e[end]); }
      }
    };
    walk(state.pinned, 'to', 'from');
    walk(state.pinned, 'from', 'to');
    visibleEdges = visibleEdges.filter(e => kept.has(e));
  }
  const shown = new Set(state.pinned ? [state.pinned] : []);
  for (const e of visibleEdges) { shown.add(e.from); shown.add(e.to); }
  for (const n of nodes) if (n.isMetric) shown.add(n);
  visibleNodes = nodes.filter(n => shown.has(n));
}

// ---- where everything stands: one column per position, one row per half layer, nodes of a cell in lines side by side
const left = 112, top = 26, bottom = 46, columnGap = 18, perLine = 8;
let view = null;
const nameOf = n => n.isMetric ? n.label || (n.kind === 'logit' ? `logit ${n.feature}` : 'metric') : n.label || (n.feature !== undefined ? String(n.feature) : n.embed ? '' : n.error ? 'err' : n.kind === 'mlp_block' ? 'mlp' : 'out');
const cut = (text, most) => { const all = Array.from(text); return all.length > most ? all.slice(0, most - 1).join('') + '\u2026' : text; };
const pill = n => Math.max(60, Array.from(cut(nameOf(n), 16)).length * 7 + 14);
function layout() {
  const named = state.names ?? visibleNodes.length <= 160;
  const step = n => n.isMetric ? pill(n) + 6 : Math.max(state.spacing, named ? Array.from(cut(nameOf(n), 12)).length * 5.6 + 8 : 0);
  const positions = new Map();
  const count = positioned ? nodes.reduce((most, n) => Math.max(most, (n.position ?? 0) + 1), Math.max(data.tokens.length, 1)) : 0;
  for (let p = state.first ? 0 : 1; p < count; ++p) positions.set(p, { cells: new Map(), width: 0 });
  if (!positions.size) positions.set(0, { cells: new Map(), width: 0 });
  const last = Math.max(...positions.keys());
  const rows = new Map();
  for (const n of visibleNodes) {
    const p = n.isMetric || n.whole ? last : n.position;
    if (!positions.has(p)) positions.set(p, { cells: new Map(), width: 0 });
    const cells = positions.get(p).cells;
    if (!cells.has(n.row)) cells.set(n.row, []);
    cells.get(n.row).push(n);
    if (!rows.has(n.row)) rows.set(n.row, { row: n.row, lines: 1, layer: n.layer, family: n.family });
  }
  // within a cell, nodes go from left to right by the position of what they read, so that edges cross less
  const order = n => { let sum = 0, weight = 0; for (const e of n.in) { sum += size(e) * (e.from.position ?? 0); weight += size(e); } return weight ? sum / weight : -1; };
  const lineHeight = named ? 34 : 26;
  for (const column of positions.values()) for (const [row, list] of column.cells) {
    list.sort((a, b) => order(a) - order(b) || a.index - b.index);
    const lines = Math.ceil(list.length / perLine), each = Math.ceil(list.length / lines);
    rows.get(row).lines = Math.max(rows.get(row).lines, lines);
    column.lines = column.lines || new Map();
    const split = [];
    for (let i = 0; i < list.length; i += each) split.push(list.slice(i, i + each));
    column.lines.set(row, split);
    for (const line of split) column.width = Math.max(column.width, line.reduce((w, n) => w + step(n), 0));
  }
  let x = left;
  for (const [p, column] of [...positions].sort((a, b) => a[0] - b[0])) {
    column.label = cut(label(p), 14);
    column.width = Math.max(column.width, Array.from(column.label).length * 7 + 8, 34);
    column.x = x + columnGap / 2; column.middle = column.x + column.width / 2;
    x += column.width + columnGap;
  }
  const width = Math.max(x + 14, 300);
  const sorted = [...rows.values()].sort((a, b) => b.row - a.row);
  let y = top;
  for (const r of sorted) { r.top = y; r.height = 34 + r.lines * lineHeight; y += r.height; }
  const height = y + bottom;
  for (const column of positions.values()) for (const [row, split] of column.lines || []) {
    const r = rows.get(row);
    split.forEach((line, l) => {
      let at = column.middle - line.reduce((w, n) => w + step(n), 0) / 2;
      const stagger = split.length > 1 && l % 2 ? state.spacing / 3 : 0;
      for (const n of line) {
        n.x = at + step(n) / 2 + stagger; at += step(n);
        n.y = r.top + r.height / 2 + (l - (split.length - 1) / 2) * lineHeight - (named ? 5 : 0);
      }
    });
  }
  const most = visibleNodes.reduce((m, n) => n.isMetric ? m : Math.max(m, Math.abs(n.attribution)), 1e-300);
  for (const n of visibleNodes) n.r = n.isMetric ? 11 : 4 + 5 * Math.sqrt(Math.min(1, Math.abs(n.attribution) / most));
  view = { width, height, rows: sorted, positions, named };
}
const label = p => positioned ? data.tokens[p] ?? '' : '';

// ---- drawing
function curve(e, bend) {
  const a = e.from, b = e.to, y1 = a.y - a.r, y2 = b.y + b.r, reach = Math.max(14, (y1 - y2) * .45);
  if (Math.abs(a.x - b.x) < 12 && y1 - y2 > 90) bend += (e.index % 2 ? 1 : -1) * 22;
  return [a.x, y1, a.x + bend, y1 - reach, b.x + bend, y2 + reach, b.x, y2];
}
function samples(c) {
  const points = [];
  for (let i = 0; i <= 14; ++i) {
    const t = i / 14, s = 1 - t, w = [s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t];
    points.push(w[0] * c[0] + w[1] * c[2] + w[2] * c[4] + w[3] * c[6], w[0] * c[1] + w[1] * c[3] + w[2] * c[5] + w[3] * c[7]);
  }
  return points;
}
let svg, labelsLeft, labelsBottom;
function shape(group, n) {
  const r = n.r;
  if (n.isMetric) { draw(group, 'rect', { class: 'shape', x: n.x - pill(n) / 2, y: n.y - 11, width: pill(n), height: 22, rx: 11 }); return; }
  if (n.error) draw(group, 'path', { class: 'shape', d: `M${n.x - r - 1} ${n.y}L${n.x} ${n.y - r - 1}L${n.x + r + 1} ${n.y}L${n.x} ${n.y + r + 1}Z` });
  else if (n.embed) draw(group, 'path', { class: 'shape', d: `M${n.x - r} ${n.y + r * .8}L${n.x} ${n.y - r}L${n.x + r} ${n.y + r * .8}Z` });
  else if (n.family === 'mlp') draw(group, 'rect', { class: 'shape', x: n.x - r, y: n.y - r, width: 2 * r, height: 2 * r, rx: n.feature === undefined ? r * .6 : 1.5 });
  else draw(group, 'circle', { class: 'shape', cx: n.x, cy: n.y, r });
}
function render() {
  select();
  layout();
  const stage = $('stage');
  const { width, height, rows, positions, named } = view;
  if (state.zoom === null) state.zoom = Math.min(1, Math.max(.3, (stage.clientWidth - 18) / width));
  svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  const set = (k, v) => svg.setAttribute(k, v);
  set('width', width * state.zoom); set('height', height * state.zoom); set('viewBox', `0 0 ${width} ${height}`);
  const bands = draw(svg, 'g', {});
  for (const r of rows) if (r.row !== Infinity && Math.ceil(r.row / 2) % 2) draw(bands, 'rect', { class: 'band', x: 0, y: r.top, width, height: r.height });
  for (const c of positions.values()) draw(bands, 'line', { class: 'column', x1: c.middle, x2: c.middle, y1: top, y2: height - bottom });
  const lines = draw(svg, 'g', {});
  const pairs = new Map();
  for (const e of visibleEdges) { const k = e.up + ',' + e.down; pairs.has(k) ? pairs.get(k).push(e) : pairs.set(k, [e]); }
  const crowd = Math.max(.28, Math.min(.8, 60 / Math.sqrt(visibleEdges.length + 1) / 5));
  for (const e of [...visibleEdges].sort((a, b) => size(a) - size(b))) {
    const beside = pairs.get(e.up + ',' + e.down), share = Math.sqrt(Math.min(1, size(e) / largest));
    const c = curve(e, (beside.indexOf(e) - (beside.length - 1) / 2) * 16);
    e.points = samples(c);
    e.path = draw(lines, 'path', { class: 'edge', d: `M${c[0]} ${c[1]}C${c[2]} ${c[3]} ${c[4]} ${c[5]} ${c[6]} ${c[7]}`,
      stroke: `var(--${e.type})`, 'stroke-width': (.7 + 3.4 * share).toFixed(2), 'stroke-opacity': Math.min(1, crowd + .6 * share).toFixed(2) });
    if (value(e) < 0) e.path.setAttribute('stroke-dasharray', '5 4');
  }
  const dots = draw(svg, 'g', {});
  const wanted = state.search.trim().toLowerCase();
  let hits = 0;
  for (const n of visibleNodes) {
    const group = draw(dots, 'g', { class: `node ${n.family}${n.error ? ' error' : ''}` });
    shape(group, n);
    if (n.isMetric) draw(group, 'text', { x: n.x, y: n.y + 4 }, cut(nameOf(n), 16));
    else if (named) draw(group, 'text', { x: n.x, y: n.y + n.r + 11 }, cut(nameOf(n), 12));
    if (n === state.pinned) group.classList.add('pinned');
    if (wanted && matches(n, wanted)) { group.classList.add('found'); ++hits; }
    n.group = group;
    group.addEventListener('pointerenter', event => hover(n, event));
    group.addEventListener('pointerleave', () => leave());
    group.addEventListener('click', event => { event.stopPropagation(); pin(state.pinned === n ? null : n); });
  }
  $('found').textContent = wanted ? `${hits} found` : '';
  labelsLeft = draw(svg, 'g', {});
  draw(labelsLeft, 'rect', { class: 'ground', x: 0, y: 0, width: left - 8, height });
  for (const r of rows) {
    if (r.row === Infinity) continue;
    const middle = r.top + r.height / 2;
    if (r.row === 0) draw(labelsLeft, 'text', { class: 'layer-label', x: 10, y: middle + 4 }, 'embed');
    else {
      draw(labelsLeft, 'text', { class: 'layer-label', x: 10, y: middle + 4 }, `layer ${r.layer}`);
      draw(labelsLeft, 'text', { class: 'side-label', x: left - 12, y: middle + 4, 'text-anchor': 'end' }, r.family);
    }
  }
  labelsBottom = draw(svg, 'g', {});
  draw(labelsBottom, 'rect', { class: 'ground', x: 0, y: height - bottom, width, height: bottom });
  for (const [p, c] of positions) {
    const text = draw(labelsBottom, 'text', { class: 'token', x: c.middle, y: height - bottom + 18, 'text-anchor': 'middle' }, c.label);
    draw(text, 'title', {}, label(p));
    draw(labelsBottom, 'text', { class: 'token-index', x: c.middle, y: height - bottom + 33, 'text-anchor': 'middle' }, positioned ? p : '');
  }
  svg.addEventListener('pointermove', near);
  svg.addEventListener('click', () => state.pinned && pin(null));
  stage.replaceChildren(svg);
  if (!visibleEdges.length) stage.append(make('div', { id: 'empty' }, edges.length ? 'No edge passes these filters.' : 'This circuit has no edges.'));
  stick();
  summarise();
  side();
}
function stick() {  // layer names stay at the left edge and tokens at the bottom one while the picture scrolls
  const stage = $('stage'), z = state.zoom;
  labelsLeft.setAttribute('transform', `translate(${Math.max(0, stage.scrollLeft / z)},0)`);
  const up = Math.max(0, view.height - (stage.scrollTop + stage.clientHeight) / z);
  labelsBottom.setAttribute('transform', `translate(0,${-up})`);
}
function summarise() {
  const all = edges.length, n = visibleNodes.length;
  $('summary').textContent = `${visibleEdges.length} of ${all} edges, ${n} of ${nodes.length} nodes, mean over ${data.prompts} prompt${data.prompts === 1 ? '' : 's'}`;
  for (const t of types) $('count-' + t).textContent = visibleEdges.filter(e => e.type === t).length;
  $('limit').value = state.limit === 0 ? 0 : Number(state.limit.toPrecision(3));
  $('threshold').value = state.limit === 0 ? 0 : Math.round(1000 * Math.max(0.001, Math.log(state.limit / smallest()) / Math.log(largest / smallest() || 2)));
  $('zoom').value = Math.round(state.zoom * 100);
  $('names').checked = view.named;
  for (const id of ['first', 'errors', 'embeddings']) $(id).checked = state[id];
  $('shown').value = state.shown;
  $('spacing').value = state.spacing;
  $('clear').hidden = !state.pinned;
}
const smallest = () => { let least = largest; for (const e of edges) if (size(e) > 0 && size(e) < least) least = size(e); return least >= largest ? largest / 2 : least; };

// ---- words about a node or an edge
function values(...rows) {
  const table = make('table', { class: 'values' });
  for (const row of rows) if (row) table.append(make('tr', {}, ...row.map((cell, i) => make(rows.head === row ? 'th' : 'td', {}, String(cell)))));
  return table;
}
function describe(n) {
  const box = document.createDocumentFragment();
  box.append(make('b', {}, n.id));
  if (n.label) box.append(' ', n.label);
  if (!n.isMetric) box.append(make('div', { class: 'soft' }, n.whole ? 'at all positions' : `at \u201c${n.token}\u201d, position ${n.position}`));
  box.append(values(['activation', number(n.activation)], ['contrast activation', number(n.contrast_activation)],
    n.isMetric ? null : ['attribution', number(n.attribution)], ['d metric / d activation', number(n.nodegrad)], ['edges in, out', `${n.in.length}, ${n.out.length}`],
    ...(n.biases || []).flatMap(b => [['bias', 'attrib'], ['change of maps', 'map'], ['remainder', 'remainder']]
      .filter(([, part]) => part === 'attrib' || b[`nn_${part}`] !== 0 || b[`em_${part}`] !== 0)
      .map(([word, part]) => [`${word} by ${b.type}`, `nn ${number(b[`nn_${part}`])}, em ${number(b[`em_${part}`])}`]))));
  if (n.url) box.append(make('a', { href: n.url, target: '_blank', rel: 'noopener noreferrer' }, n.url.includes('neuronpedia.org') ? 'open on Neuronpedia' : 'open the feature\u2019s page'));
  return box;
}
function describeEdge(e) {
  const box = document.createDocumentFragment();
  const type = make('b', { style: `color:var(--${e.type})` }, e.type);
  box.append(make('div', {}, make('b', {}, e.from.id), ' \u2192 ', make('b', {}, e.to.id), ' by ', type));
  box.append(values(['', 'gradient', 'attribution'], ['to the target (nn)', number(e.nn_grad), number(e.nn_attrib)],
    ['to the metric (em)', number(e.em_grad), number(e.em_attrib)]));
  box.append(make('div', { class: 'soft' }, `upstream activation ${number(e.from.activation)}, contrast ${number(e.from.contrast_activation)}; in ${e.prompts} of ${data.prompts} prompts`));
  for (const n of [e.from, e.to]) if (n.url) box.append(make('div', {}, make('a', { href: n.url, target: '_blank', rel: 'noopener noreferrer' }, n.id)));
  return box;
}
let hovered = null, leaving = 0;
function show(content, event) {
  clearTimeout(leaving);
  const tip = $('tip'), frame = document.querySelector('main').getBoundingClientRect();
  tip.replaceChildren(content);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const x = event.clientX - frame.left, y = event.clientY - frame.top;
  tip.style.left = Math.max(4, x + 8 + box.width > frame.width ? x - box.width - 8 : x + 8) + 'px';
  tip.style.top = Math.max(4, y + 8 + box.height > frame.height ? y - box.height - 8 : y + 8) + 'px';
}
function light(edgesLit, node) {
  for (const e of visibleEdges) e.path.classList.toggle('faint', edgesLit !== null && !edgesLit.has(e));
  for (const n of visibleNodes) n.group.classList.toggle('hover', n === node);
}
function hover(n, event) {
  hovered = n;
  show(describe(n), event);
  light(new Set([...n.in, ...n.out]), n);
}
function leave() {  // late, so that the pointer can reach the link in the box
  clearTimeout(leaving);
  leaving = setTimeout(() => { $('tip').hidden = true; hovered = null; light(null, null); }, 250);
}
function near(event) {  // the nearest edge under the pointer, since thin lines are hard to hit
  if (event.target.closest('.node') || (hovered && hovered.id)) return;  // on the way from a node to its box, or on it
  const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / state.zoom, y = (event.clientY - box.top) / state.zoom;
  let best = null, least = 7 / state.zoom;
  for (const e of visibleEdges) {
    const p = e.points;
    if (y > p[1] + 8 || y < p[p.length - 1] - 8) continue;
    for (let i = 0; i + 3 < p.length; i += 2) {
      const dx = p[i + 2] - p[i], dy = p[i + 3] - p[i + 1];
      const t = Math.max(0, Math.min(1, ((x - p[i]) * dx + (y - p[i + 1]) * dy) / (dx * dx + dy * dy || 1)));
      const d = Math.hypot(x - p[i] - t * dx, y - p[i + 1] - t * dy);
      if (d < least) { least = d; best = e; }
    }
  }
  if (best === hovered && best) return;
  if (!best) { if (hovered) leave(); return; }
  hovered = best;
  show(describeEdge(best), event);
  light(new Set([best]), null);
}
function side() {
  const box = $('side'), n = state.pinned;
  box.hidden = !n;
  if (!n) return;
  box.replaceChildren(make('div', {}, describe(n)));
  for (const [title, way, end] of [['reads', 'to', 'from'], ['is read by', 'from', 'to']]) {
    const list = visibleEdges.filter(e => e[way] === n).sort((a, b) => size(b) - size(a));
    box.append(make('h3', {}, `${title} (${list.length}, by ${state.shown} attribution)`));
    for (const e of list.slice(0, 40)) box.append(make('button', { class: 'row', onclick: () => pin(e[end]) },
      make('span', { class: 'swatch', style: `background:var(--${e.type})` }), e[end].id, make('span', { class: 'soft' }, e[end].label || e[end].token), make('span', { class: 'n' }, number(value(e)))));
    if (list.length > 40) box.append(make('div', { class: 'soft' }, `and ${list.length - 40} more`));
  }
}
function pin(n) {
  state.pinned = n;
  $('tip').hidden = true;
  hovered = null;
  render();
}
const matches = (n, wanted) => n.id.toLowerCase().includes(wanted) || String(n.feature ?? '') === wanted ||
  (n.label || '').toLowerCase().includes(wanted) || n.token.trim().toLowerCase() === wanted;

// ---- controls
let waiting = 0;
const later = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(render); };
for (const t of types) {
  const box = make('input', { type: 'checkbox', id: 'type-' + t });
  box.checked = true;
  box.addEventListener('change', () => { box.checked ? state.types.add(t) : state.types.delete(t); later(); });
  $('types').append(make('label', {}, box, make('span', { class: 'swatch', style: `background:var(--${t})` }), t, make('span', { class: 'soft', id: 'count-' + t })));
}
for (const id of ['first', 'errors', 'embeddings', 'names']) {
  $(id).addEventListener('change', () => { state[id] = $(id).checked; later(); });
}
$('title').textContent = data.title;
$('summary').title = Object.entries(data.settings).map(([k, v]) => `${k}: ${v}`).join('\n');
$('shown').addEventListener('change', () => { state.shown = $('shown').value; later(); });
$('threshold').addEventListener('input', () => {
  const t = $('threshold').value / 1000, least = smallest();
  state.limit = t === 0 ? 0 : least * Math.pow(largest / least, t);
  later();
});
$('limit').addEventListener('change', () => { state.limit = Math.max(0, Number($('limit').value) || 0); later(); });
$('spacing').addEventListener('input', () => { state.spacing = Number($('spacing').value); later(); });
$('zoom').addEventListener('input', () => { state.zoom = $('zoom').value / 100; later(); });
$('fit').addEventListener('click', () => { state.zoom = null; later(); });
$('search').addEventListener('input', () => {
  state.search = $('search').value;
  render();
  const first = document.querySelector('.node.found');
  if (first) first.scrollIntoView({ block: 'center', inline: 'center' });
});
$('clear').addEventListener('click', () => pin(null));
$('theme').addEventListener('click', () => {
  document.documentElement.dataset.theme = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
});
$('tip').addEventListener('pointerenter', () => clearTimeout(leaving));
$('tip').addEventListener('pointerleave', leave);
$('stage').addEventListener('scroll', stick);
addEventListener('resize', stick);
addEventListener('keydown', event => { if (event.key === 'Escape' && state.pinned) pin(null); });
if (matchMedia('(prefers-color-scheme: dark)').matches) document.documentElement.dataset.theme = 'dark';
render();

// For scripts that drive the page: what is visible, and the same doors as the controls.
window.circuitPage = {
  set(changes) { Object.assign(state, changes); render(); },
  pin(id) { const n = nodes.find(node => node.id === id); if (!n) throw new Error('no node ' + id); pin(n); },
  clear() { pin(null); },
  nodes: () => visibleNodes.map(n => ({ id: n.id, x: n.x, y: n.y, r: n.r })),
  edges: () => visibleEdges.map(e => ({ up: e.from.id, down: e.to.id, type: e.type, value: value(e) })),
};
})();
)js";

}  // namespace circuit::detail
