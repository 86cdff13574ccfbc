// the page of a scan: `scan` holds its values, in the page itself or in scan.js, a plain script, since file:// allows no fetch
const {slices, curve, heat, sheets, windows} = scan;
const get = id => document.getElementById(id), count = slices.length, ns = "http://www.w3.org/2000/svg";
let current = scan.first;

function show(i) {
  current = Math.max(0, Math.min(count - 1, i));
  const s = slices[current], caption = get("caption");
  paint(s);
  get("outline").setAttribute("d", s.outline);
  get("slice").style.boxShadow = "0 0 0 6px " + s.color;
  caption.replaceChildren();
  const name = document.createElement("strong");
  name.textContent = s.name;
  caption.append(name, ", " + s.place, document.createElement("br"),
    s.ratio + ", attention " + s.attention + (s.reference ? ", reference" : ""));
  get("pick").value = current;
  for (const button of document.querySelectorAll(".shown button"))
    button.setAttribute("aria-current", Number(button.dataset.slice) === current);
  get("pick").setAttribute("aria-valuetext", s.name + ", " + s.place);
  for (const view of document.querySelectorAll(".view")) {
    const line = view.querySelector(".line").style, at = 100 * curve.x[current] + "%";
    if (view.dataset.upright === "1") Object.assign(line, {left: 0, right: 0, height: "1px", bottom: at});
    else Object.assign(line, {top: 0, bottom: 0, width: "1px", right: at});
  }
  const cursor = get("cursor");
  if (cursor) { cursor.setAttribute("x1", across(curve.x[current])); cursor.setAttribute("x2", across(curve.x[current])); }
}

// slices are tiles of sheets, which are loaded with their neighbors and kept while they are near
const loaded = new Map(), near = 3, per = sheets ? sheets.columns * sheets.rows : 1;
function load(k) {
  if (k < 0 || k >= sheets.files.length || loaded.has(k)) return loaded.get(k);
  const image = new Image();
  image.onload = image.onerror = () => { if (Math.floor(current / per) === k) paint(slices[current]); drawPlanes(); };
  image.src = sheets.files[k];
  loaded.set(k, image);
  return image;
}
function paint(s) {
  const image = get("image");
  if (!sheets) {
    image.src = s.src;
    image.alt = s.name;
    return;
  }
  const k = Math.floor(current / per), sheet = load(k), canvas = get("sheet"), wait = get("wait"), tile = current % per;
  load(k + 1);
  load(k - 1);
  for (const other of loaded.keys()) if (!point.shown && Math.abs(other - k) > near) loaded.delete(other);
  const ready = sheet.complete && sheet.naturalWidth > 0, failed = sheet.complete && !ready;
  image.hidden = true;
  canvas.hidden = !ready;
  wait.hidden = ready;
  wait.textContent = failed ? "The file " + sheets.files[k] + " is missing." : "loading " + s.name + " ...";
  if (!ready) return;
  canvas.width = sheets.width;
  canvas.height = sheets.height;
  const x = tile % sheets.columns * sheets.step_x, y = Math.floor(tile / sheets.columns) * sheets.step_y;
  canvas.getContext("2d").drawImage(sheet, x, y, sheets.width, sheets.height, 0, 0, sheets.width, sheets.height);
  canvas.setAttribute("aria-label", s.name);
  canvas.dataset.slice = current;
}

// other planes: rows or columns of all slices through a point of the slice, for stacks that fit into memory
const planes = scan.planes, point = {x: .5, y: .5, shown: false};
function movePoint(x, y) {
  if (!planes) return;
  Object.assign(point, {x: Math.max(0, Math.min(1, x)), y: Math.max(0, Math.min(1, y)), shown: true});
  Object.assign(get("point").style, {left: 100 * point.x + "%", top: 100 * point.y + "%"});
  get("point").hidden = false;
  drawPlanes();
}
function drawPlanes() {
  if (!point.shown) return;
  for (const k of sheets.files.keys()) load(k);
  for (const view of document.querySelectorAll(".view")) drawPlane(view);
}
function drawPlane(view) {
  const canvas = view.querySelector("canvas"), upright = view.dataset.upright === "1", isRow = view.dataset.cut === "row";
  const {width: w, height: h} = sheets, across = isRow ? w : h, shape = view.getBoundingClientRect();
  const along = Math.max(1, Math.round(across * (upright ? shape.height / shape.width : shape.width / shape.height)));
  [canvas.width, canvas.height] = upright ? [across, along] : [along, across];
  const context = canvas.getContext("2d"), cut = Math.min((isRow ? h : w) - 1, Math.floor((isRow ? point.y * h : point.x * w)));
  if (isRow !== upright) context.setTransform(0, 1, 1, 0, 0, 0);  // the line of a slice lies across the way it is drawn
  heat.forEach(({begin, end}, i) => {
    const sheet = load(Math.floor(i / per)), tile = i % per, top = (1 - end) * along, thick = (end - begin) * along;
    if (!sheet.complete || !sheet.naturalWidth) return;
    const x = tile % sheets.columns * sheets.step_x, y = Math.floor(tile / sheets.columns) * sheets.step_y;
    if (isRow) context.drawImage(sheet, x, y + cut, w, 1, 0, top, w, thick);
    else context.drawImage(sheet, x + cut, y, 1, h, top, 0, thick, h);
  });
  canvas.hidden = false;
  view.querySelector("svg").setAttribute("hidden", "");  // the outline is that of the middle
  view.parentNode.querySelector("figcaption").textContent = view.querySelector("img").alt + " through the point";
}

// a window is a line through the stored gray values; a filter also works on pictures of file://, whose pixels can't be read
function setWindow(i) {
  const {low, high} = windows[i], slope = 1 / (high - low);
  for (const part of document.querySelectorAll("#gray feComponentTransfer > *")) {
    part.setAttribute("slope", slope);
    part.setAttribute("intercept", -low * slope);
  }
  get("window").selectedIndex = i;
  document.body.classList.toggle("windowed", i > 0);
}

function nearest(part) {
  let best = 0;
  curve.x.forEach((x, i) => { if (Math.abs(x - part) < Math.abs(curve.x[best] - part)) best = i; });
  return best;
}

// the curve is drawn anew for every width of the page, so that its letters keep their size
const left = 44, right = 10, top_ = 22, bottom = 40;
let width = 600, height = 200;
const across = part => left + part * (width - left - right), up = part => height - bottom - part * (height - top_ - bottom);
function add(tag, attributes, text) {
  const element = document.createElementNS(ns, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  get("curve").append(element);
}
function draw() {
  const svg = get("curve");
  width = svg.clientWidth || 600;
  height = svg.clientHeight || 200;
  svg.replaceChildren();
  const line = {stroke: "var(--line)", "stroke-width": 1};
  for (const part of curve.reference)
    add("rect", {class: "reference", x: across(part.begin), y: up(1), width: across(part.end) - across(part.begin), height: up(0) - up(1), fill: "var(--mark)", opacity: .18});
  for (const part of heat)
    add("rect", {class: "heat", style: "opacity: 1", x: across(part.begin), y: 2, width: across(part.end) - across(part.begin) + .3, height: 12, fill: part.color, "shape-rendering": "crispEdges"});
  for (const tick of curve.y_ticks) {
    add("line", {x1: left, x2: width - right, y1: up(tick.at), y2: up(tick.at), ...line});
    add("text", {x: left - 6, y: up(tick.at) + 4, "text-anchor": "end"}, tick.text);
  }
  for (const tick of curve.x_ticks)
    add("text", {x: across(tick.at), y: height - bottom + 16, "text-anchor": "middle"}, tick.text);
  add("text", {x: (left + width) / 2, y: height - 6, "text-anchor": "middle"}, "position along the slice normal / mm");
  add("text", {x: 12, y: (up(0) + up(1)) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(up(0) + up(1)) / 2})`}, "× uniform");
  add("line", {x1: left, x2: width - right, y1: up(curve.uniform), y2: up(curve.uniform), stroke: "var(--soft)", "stroke-dasharray": "3 3"});
  add("polyline", {points: curve.x.map((x, i) => across(x) + "," + up(curve.y[i])).join(" "), fill: "none", stroke: "var(--curve)", "stroke-width": 2});
  curve.x.forEach((x, i) => add("circle", {cx: across(x), cy: up(curve.y[i]), r: count > 120 ? 1 : 2.5, fill: "var(--curve)"}));
  add("line", {id: "cursor", y1: 2, y2: up(0), stroke: "var(--text)", "stroke-width": 1.5});
  show(current);
}

get("pick").addEventListener("input", event => show(Number(event.target.value)));
get("curve").addEventListener("click", event =>
  show(nearest((event.clientX - get("curve").getBoundingClientRect().left - left) / (width - left - right))));
for (const view of document.querySelectorAll(".view")) view.addEventListener("click", event => {
  const box = view.getBoundingClientRect();
  show(nearest(view.dataset.upright === "1" ? (box.bottom - event.clientY) / box.height : (box.right - event.clientX) / box.width));
});
for (const button of document.querySelectorAll(".shown button"))
  button.addEventListener("click", () => { show(Number(button.dataset.slice)); get("slice").scrollIntoView({block: "nearest"}); });
let turned = 0;
get("slice").addEventListener("wheel", event => {
  event.preventDefault();
  turned += event.deltaY;
  if (Math.abs(turned) >= 20) { show(current - Math.sign(turned)); turned = 0; }
}, {passive: false});
get("slice").addEventListener("click", event => {
  const box = get("slice").getBoundingClientRect();
  movePoint((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
});
const moves = {ArrowUp: [0, -.02], ArrowDown: [0, .02], ArrowLeft: [-.02, 0], ArrowRight: [.02, 0]};
const steps = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -count, End: count};
const toggle = id => { if (get(id)) get(id).click(); };
const letters = {h: () => toggle("show-heat"), r: () => toggle("show-outline"), w: () => setWindow((get("window").selectedIndex + 1) % windows.length)};
document.addEventListener("keydown", event => {
  const target = event.target, button = document.querySelectorAll(".shown button")[Number(event.key) - 1];
  if (target.matches("select, input[type=range]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (planes && event.shiftKey && event.key in moves) movePoint(point.x + moves[event.key][0], point.y + moves[event.key][1]);
  else if (event.key in letters) letters[event.key]();
  else if (button) button.click();
  else if (event.key in steps && (target === get("slice") || ["ArrowLeft", "ArrowRight"].includes(event.key))) show(current + steps[event.key]);
  else return;  // other keys scroll the page
  event.preventDefault();
});
get("window").addEventListener("change", event => setWindow(event.target.selectedIndex));
get("show-heat").addEventListener("change", event => document.body.classList.toggle("plain", !event.target.checked));
if (get("show-outline")) get("show-outline").addEventListener("change", event => document.body.classList.toggle("bare", !event.target.checked));
get("key").style.background = "linear-gradient(to right, " + scan.key.join(", ") + ")";
addEventListener("resize", draw);
draw();
