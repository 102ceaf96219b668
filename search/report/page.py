"""The page that `html` fills: marks as @TABLE@ stand for its parts."""

PAGE = r"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>@TITLE@</title>
<style>
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1080px;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}
th{text-align:left;font-weight:600;padding:2px 10px 2px 0;vertical-align:top}td{padding:2px 10px 2px 0}
.grid{border-collapse:collapse;font-variant-numeric:tabular-nums}.grid td,.grid th{border-bottom:1px solid #ddd}
svg{width:100%;height:auto;background:#fafafa;border:1px solid #e5e5e5}text{font-size:11px;fill:#444}
.note{color:#666}details{margin:.4em 0}summary{cursor:pointer}
select{font:inherit}
</style></head><body>
<h1>@TITLE@</h1>
<table>@SUMMARY@</table>
@CONFIRMED@
<h2>Candidates</h2>
<p>across <select id="ax"></select> up <select id="ay"></select>
<span class="note">orange: Pareto front; red diamonds: seeds that the search started from; dashed: budget</span></p>
<svg id="scatter" viewBox="0 0 1000 460"></svg>
<h2>@HEADING@</h2>@TABLE@
<p class="note">* on the Pareto front. Links lead to specs for blockforge build.</p>
<h2>History</h2><svg id="history" viewBox="0 0 1000 300"></svg>
<h2>What each hole explains</h2>
<p class="note">Share of the variance of the first value on the lowest rung, each hole by itself, less what chance would explain.</p>
<svg id="holes" viewBox="0 0 1000 300"></svg>
<h2>Parallel coordinates</h2><p class="note">The holes that explain most; darker lines are better.</p>
<svg id="parallel" viewBox="0 0 1000 420"></svg>
<h2>From the nearest seed</h2>@DIFFERENCES@
<h2>How much is size</h2>@SIZE@
<script id="data" type="application/json">@DATA@</script>
<script>
"use strict";
const D = JSON.parse(document.getElementById("data").textContent), NS = "http://www.w3.org/2000/svg";
const add = (svg, tag, attrs, text) => {
  const e = document.createElementNS(NS, tag);
  for (const k in attrs) e.setAttribute(k, attrs[k]);
  if (text !== undefined) e.textContent = text;
  svg.appendChild(e); return e; };
const short = v => { const a = Math.abs(v);
  for (const [f, s] of [[1e9, "G"], [1e6, "M"], [1e3, "K"]]) if (a >= f) return (v / f).toPrecision(3) + s;
  return String(+v.toPrecision(4)); };
function axes(svg, xs, ys, W, H, xl, yl) {
  const L = 70, R = 15, T = 12, B = 42, r = v => { let a = Math.min(...v), b = Math.max(...v), m = (b - a || Math.abs(b) || 1) * .05; return [a - m, b + m]; };
  const [x0, x1] = r(xs), [y0, y1] = r(ys), X = v => L + (v - x0) / (x1 - x0) * (W - L - R), Y = v => H - B - (v - y0) / (y1 - y0) * (H - B - T);
  for (let i = 0; i <= 5; i++) {
    const x = x0 + (x1 - x0) * i / 5, y = y0 + (y1 - y0) * i / 5;
    add(svg, "line", {x1: L, x2: W - R, y1: Y(y), y2: Y(y), stroke: "#e8e8e8"});
    add(svg, "text", {x: L - 6, y: Y(y) + 4, "text-anchor": "end"}, short(y));
    add(svg, "text", {x: X(x), y: H - B + 16, "text-anchor": "middle"}, short(x)); }
  add(svg, "text", {x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle"}, xl);
  add(svg, "text", {x: 12, y: (T + H - B) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(T + H - B) / 2})`}, yl);
  return [X, Y, T, H - B]; }
const keys = D.names.map((n, i) => [n, p => p.v[i]]).concat([["MACs", p => p.m], ["params", p => p.p]]);
const ax = document.getElementById("ax"), ay = document.getElementById("ay");
keys.forEach(([n], i) => { ax.add(new Option(n, i)); ay.add(new Option(n, i)); });
ax.value = D.names.length > 1 ? 1 : D.names.length; ay.value = 0;
function scatter() {
  const svg = document.getElementById("scatter"); svg.replaceChildren();
  if (!D.points.length) return;
  const [xn, fx] = keys[ax.value], [yn, fy] = keys[ay.value];
  const xs = D.points.map(fx); if (xn === "MACs" && D.budget) xs.push(D.budget);
  const [X, Y, top, bottom] = axes(svg, xs, D.points.map(fy), 1000, 460, xn, yn);
  if (xn === "MACs" && D.budget) add(svg, "line", {x1: X(D.budget), x2: X(D.budget), y1: top, y2: bottom, stroke: "#b02a30", "stroke-dasharray": "5 4"});
  for (const p of D.points.slice().sort((a, b) => a.f - b.f)) {
    const x = X(fx(p)), y = Y(fy(p));
    const e = p.s ? add(svg, "path", {d: `M${x} ${y - 8}L${x + 7} ${y}L${x} ${y + 8}L${x - 7} ${y}Z`, fill: "#c02030"})
      : add(svg, "circle", {cx: x, cy: y, r: p.f ? 6 : 4, fill: p.f ? "#e4572e" : "#4c78a8", "fill-opacity": p.r ? 1 : .6});
    if (p.s) add(svg, "text", {x: x + 9, y: y + 4}, p.s);
    add(e, "title", {}, `trial ${p.n}${p.s ? ", " + p.s : ""}\n` + keys.map(([n, f]) => `${n} ${short(f(p))}`).join("\n") + (p.r ? `\nrung ${p.r}` : ""));
    if (p.file) { e.style.cursor = "pointer"; e.addEventListener("click", () => { location.href = p.file; }); } } }
ax.onchange = ay.onchange = scatter; scatter();
(function history() {
  const svg = document.getElementById("history"); if (!D.points.length) return;
  const top = Math.max(...D.points.map(p => p.r)), sign = D.signs[0];
  const [X, Y] = axes(svg, D.points.map(p => p.n), D.points.map(p => p.v[0]), 1000, 300, "trial", D.names[0]);
  let best = null, path = "";
  for (const p of D.points) {
    add(svg, "circle", {cx: X(p.n), cy: Y(p.v[0]), r: 3, fill: p.r === top ? "#4c78a8" : "#b8c7d8"});
    if (p.r !== top) continue;
    if (best === null) path = `M${X(p.n)} ${Y(p.v[0])}`;
    if (best === null || sign * p.v[0] > sign * best) best = p.v[0];
    path += `H${X(p.n)}V${Y(best)}`; }
  add(svg, "path", {d: path, fill: "none", stroke: "#e4572e", "stroke-width": 1.6}); })();
(function bars() {
  const svg = document.getElementById("holes"), found = Object.entries(D.importances);
  svg.setAttribute("viewBox", `0 0 1000 ${Math.max(40, found.length * 20 + 20)}`);
  const most = Math.max(.01, ...found.map(e => e[1]));
  found.forEach(([name, share], i) => {
    add(svg, "text", {x: 290, y: i * 20 + 24, "text-anchor": "end"}, name);
    add(svg, "rect", {x: 300, y: i * 20 + 12, width: share / most * 600, height: 14, fill: "#4c78a8"});
    add(svg, "text", {x: 306 + share / most * 600, y: i * 20 + 24}, (100 * share).toFixed(1) + "%"); }); })();
(function parallel() {
  const svg = document.getElementById("parallel"), {axes: A, lines} = D.parallel; if (!A.length || !lines.length) return;
  const X = i => 60 + i * 880 / Math.max(1, A.length - 1), Y = v => 370 - v * 320;
  const order = lines.slice().sort((a, b) => D.signs[0] * (a.v - b.v)), n = order.length;
  order.forEach((l, i) => {
    const at = l.y.map((y, j) => y === null || y === undefined ? null : `${X(j)} ${Y(y)}`).filter(p => p !== null);
    const t = n > 1 ? i / (n - 1) : 1;
    const e = add(svg, "path", {d: "M" + at.join("L"), fill: "none", stroke: t > .9 ? "#e4572e" : "#4c78a8", "stroke-opacity": .08 + .6 * t * t, "stroke-width": t > .9 ? 1.6 : 1});
    add(e, "title", {}, `trial ${l.n}: ${short(l.v)}`); });
  A.forEach((a, i) => {
    add(svg, "line", {x1: X(i), x2: X(i), y1: 50, y2: 370, stroke: "#999"});
    add(svg, "text", {x: X(i), y: i % 2 ? 400 : 30, "text-anchor": "middle"}, a.name);
    for (const [y, label] of a.ticks) add(svg, "text", {x: X(i) + 4, y: Y(y) + 4}, label.slice(0, 18)); }); })();
</script></body></html>
"""  # noqa: E501
