// the page of a slide: `slide` of data.js holds its values, since file:// allows no fetch
const get = id => document.getElementById(id);
function buffer(text) {
  const code = atob(text), bytes = new Uint8Array(code.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = code.charCodeAt(i);
  return bytes.buffer;
}
const {count, edge, step, pixel} = slide, [, , width, height] = slide.extent;
const places = slide.wide ? new Uint32Array(buffer(slide.places)) : new Uint16Array(buffer(slide.places));
const maps = slide.maps.map(map => new Float32Array(buffer(map.scores)));
const colors = slide.colors.match(/../g).map(digits => parseInt(digits, 16));
const listed = [...slide.listed.top, ...slide.listed.bottom];  // their pictures are in the buttons
const left = i => slide.origin[0] + step * places[2 * i], top_ = i => slide.origin[1] + step * places[2 * i + 1];
const choice = {map: 0, scaling: slide.scalings[0].name, tile: -1, listed: -1};
let viewer = null, layer = null;

// scores of all tiles on a scale, as in Python: a percentile counts half of the tiles with an equal score
const sorted = maps.map(() => null), ratio = value => value * count;
function below(values, value, or_equal) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value || (or_equal && values[middle] === value)) low = middle + 1; else high = middle;
  }
  return low;
}
function percentile(map, value) {
  sorted[map] ??= maps[map].slice().sort();
  return 50 * (below(sorted[map], value, false) + below(sorted[map], value, true)) / count;
}
function scaled(map, scaling) {
  if (scaling === "ratio") return maps[map].map(ratio);
  return scaling === "percentile" ? maps[map].map(value => percentile(map, value)) : maps[map];
}

// the heat map: a pixel is the mean of the tiles that contain its center
const heat = document.createElement("canvas");
heat.width = Math.max(1, Math.ceil(width / pixel));
heat.height = Math.max(1, Math.ceil(height / pixel));
const inside = (from, to, limit) => [Math.max(0, Math.ceil(from / pixel - .5)), Math.min(limit, Math.ceil(to / pixel - .5))];
function paint() {
  const values = scaled(choice.map, choice.scaling), total = new Float64Array(heat.width * heat.height), tiles = new Uint16Array(total.length);
  for (let i = 0; i < count; i++) {
    const [x0, x1] = inside(left(i), left(i) + edge, heat.width), [y0, y1] = inside(top_(i), top_(i) + edge, heat.height);
    for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) {
      total[y * heat.width + x] += values[i];
      tiles[y * heat.width + x]++;
    }
  }
  let low = Infinity, high = -Infinity;
  for (let k = 0; k < total.length; k++) if (tiles[k]) {
    total[k] /= tiles[k];
    low = Math.min(low, total[k]);
    high = Math.max(high, total[k]);
  }
  if (choice.scaling === "ratio") [low, high] = slide.limits;
  if (choice.scaling === "signed") { high = Math.max(-low, high) || 1; low = -high; }
  const part = choice.scaling === "ratio" ? value => Math.log(value / low) / Math.log(high / low) : value => high > low ? (value - low) / (high - low) : .5;
  const image = new ImageData(heat.width, heat.height);
  for (let k = 0; k < total.length; k++) if (tiles[k]) {
    const color = 3 * Math.max(0, Math.min(255, Math.floor(256 * part(total[k]))));
    image.data.set([colors[color], colors[color + 1], colors[color + 2], 255], 4 * k);
  }
  heat.getContext("2d").putImageData(image, 0, 0);
  const ends = {ratio: ["¼", "4 × uniform"], percentile: ["0", "100 %"]}[choice.scaling] || [digits(low), digits(high)];
  get("low").textContent = ends[0];
  get("high").textContent = ends[1];
  get("key").setAttribute("aria-label", "colors from " + ends.join(" to "));
  draw();
}
const digits = value => value === 0 || Math.abs(value) >= 1e-3 ? String(Number(value.toPrecision(3))) : value.toExponential(1);

// heat and frames are drawn over what OpenSeadragon shows: nearest pixels, since a tile has one score
function draw() {
  if (!viewer || !viewer.world.getItemCount()) return;
  const size = viewer.viewport.getContainerSize(), sharp = window.devicePixelRatio || 1, context = layer.getContext("2d");
  const zero = viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
  const scale = (viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(1, 0), true).x - zero.x) / width;
  layer.width = Math.round(size.x * sharp);
  layer.height = Math.round(size.y * sharp);
  context.scale(sharp, sharp);
  if (get("show-heat").checked) {
    context.globalAlpha = get("opacity").value / 100;
    context.imageSmoothingEnabled = scale * pixel * sharp < 1;
    context.drawImage(heat, zero.x, zero.y, heat.width * pixel * scale, heat.height * pixel * scale);
    context.globalAlpha = 1;
  }
  const frame = (i, color, line) => {
    const side = Math.max(6, edge * scale), shift = (edge * scale - side) / 2;
    const box = [zero.x + left(i) * scale + shift, zero.y + top_(i) * scale + shift, side, side];
    for (const [wide, stroke] of [[line + 2, "#fff"], [line, color]]) {
      context.lineWidth = wide;
      context.strokeStyle = stroke;
      context.strokeRect(...box);
    }
  };
  slide.listed.bottom.forEach(i => frame(i, "#00224e", 2));
  slide.listed.top.forEach(i => frame(i, "#b34700", 2));
  if (choice.tile >= 0) frame(choice.tile, "#d4006f", 3);
  drawScale(context, scale, size.y);
}
// in the layer, so that it is right where the page is printed at another size
function drawScale(context, scale, bottom) {
  const unit = slide.mpp || 1, longest = 160 / scale * unit, power = 10 ** Math.floor(Math.log10(longest));
  const length = power * [5, 2, 1].find(step => step * power <= longest), long = length / unit * scale;
  const text = slide.mpp ? (length >= 1000 ? length / 1000 + " mm" : length + " µm") : length + " pixels";
  context.font = "600 13px system-ui, sans-serif";
  context.fillStyle = "#ffffffc8";
  context.fillRect(12, bottom - 38, Math.max(long, context.measureText(text).width) + 16, 28);
  context.fillStyle = "#000";
  context.fillText(text, 20, bottom - 22);
  context.fillRect(20, bottom - 17, long, 3);
  Object.assign(layer.dataset, {scale: text, width: long});
  layer.setAttribute("aria-label", "scale bar of " + text);
}

function choose(i, entry = -1) {
  choice.tile = i;
  choice.listed = entry;
  for (const button of document.querySelectorAll(".shown button")) button.setAttribute("aria-current", Number(button.dataset.listed) === entry);
  const value = maps[choice.map][i], name = slide.maps.length > 1 ? slide.maps[choice.map].name + ": " : "";
  const size = slide.scalings.some(scaling => scaling.name === "signed") ? digits(value) : digits(ratio(value)) + " × uniform, attention " + digits(value);
  const place = "x " + Math.round(left(i) + slide.extent[0]) + ", y " + Math.round(top_(i) + slide.extent[1]);
  get("caption").textContent = i < 0 ? "No tile there." : `Tile at ${place}: ${name}${size}, percentile ${Math.round(percentile(choice.map, value))}`;
  draw();
}
// center and zoom move on their own, unlike in fitBounds: a key that zooms on the way must not stop the way
function move(center, zoom) {
  viewer.viewport.panTo(center);
  viewer.viewport.zoomTo(zoom);
}
function goHome() { if (viewer) move(viewer.viewport.getHomeBounds().getCenter(), viewer.viewport.getHomeZoom()); }
function goTo(entry) {
  if (!listed.length) return;
  const k = (entry + listed.length) % listed.length, i = listed[k], side = 4 * edge / width;
  if (viewer && viewer.world.getItemCount())
    move(new OpenSeadragon.Point((left(i) + edge / 2) / width, (top_(i) + edge / 2) / width), 1 / side / Math.max(1, viewer.viewport.getAspectRatio()));
  choose(i, k);
}
function tileAt(x, y) {
  let best = -1, least = Infinity;  // of overlapping tiles, that whose center is nearest
  for (let i = 0; i < count; i++) {
    const dx = Math.abs(left(i) + edge / 2 - x), dy = Math.abs(top_(i) + edge / 2 - y);
    if (Math.max(dx, dy) <= edge / 2 && Math.max(dx, dy) < least) { least = Math.max(dx, dy); best = i; }
  }
  return best;
}

function tileSource() {
  const source = slide.source;
  if (source && source.file) return {type: "image", url: source.file};
  if (source) return {
    width: source.width, height: source.height, tileSize: source.tile_size, tileOverlap: 0, minLevel: source.min_level, maxLevel: source.max_level,
    getTileUrl: (level, x, y) => `${source.folder}/${level}/${x}_${y}.jpg`,
  };
  const paper = document.createElement("canvas");  // without pixels of the slide, the map lies on white
  paper.width = heat.width;
  paper.height = heat.height;
  const context = paper.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, paper.width, paper.height);
  return {type: "image", url: paper.toDataURL()};
}
function say(text) {
  get("wait").hidden = !text;
  get("wait").textContent = text;
}
function open() {
  if (typeof OpenSeadragon === "undefined") return say("The file viewer_files/openseadragon-*.min.js is missing: copy the folder viewer_files, too.");
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  viewer = OpenSeadragon({
    element: get("slide"), tileSources: tileSource(), drawer: "canvas", showNavigationControl: false, showNavigator: true, navigatorPosition: "TOP_RIGHT",
    maxZoomPixelRatio: 4 * width / (slide.source ? slide.source.width : heat.width), visibilityRatio: .3, animationTime: still ? 0 : .5,
    gestureSettingsMouse: {clickToZoom: false, dblClickToZoom: true}, gestureSettingsTouch: {flickEnabled: false}, imageLoaderLimit: 6,
  });
  layer = document.createElement("canvas");
  layer.id = "layer";
  layer.setAttribute("role", "img");
  viewer.canvas.append(layer);
  viewer.addHandler("open", () => {
    if (get("image")) get("image").hidden = true;
    const pictures = slide.source && slide.source.folder ? [] : document.querySelectorAll(".shown img");
    pictures.forEach((image, k) => viewer.addTiledImage({
      tileSource: {type: "image", url: image.src}, x: left(listed[k]) / width, y: top_(listed[k]) / width, width: edge / width,
    }));
    paint();
    document.body.dataset.ready = Math.round(performance.now());
  });
  viewer.addHandler("open-failed", () => say("The picture of the slide is missing."));
  let missing = 0;
  viewer.addHandler("tile-load-failed", () => say(`${++missing} files of the slide are missing.`));
  for (const name of ["update-viewport", "resize"]) viewer.addHandler(name, draw);
  viewer.addHandler("canvas-click", event => {
    if (!event.quick) return;
    const point = viewer.viewport.pointFromPixel(event.position);
    choose(tileAt(point.x * width, point.y * width));
  });
  viewer.addHandler("canvas-key", event => {  // OpenSeadragon turns and mirrors by keys
    if (!["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "+", "-", "=", "0"].includes(event.originalEvent.key)) event.preventDefaultAction = true;
  });
  viewer.canvas.setAttribute("aria-label", get("slide").getAttribute("aria-label"));
}

function zoom(factor) { if (viewer) { viewer.viewport.zoomBy(factor); viewer.viewport.applyConstraints(); } }
const next = id => { const list = get(id); if (list) { list.selectedIndex = (list.selectedIndex + 1) % list.options.length; list.dispatchEvent(new Event("change")); } };
const fade = by => { get("opacity").value = Number(get("opacity").value) + by; draw(); };
const keys = {
  h: () => get("show-heat").click(), m: () => next("map"), c: () => next("scaling"), "[": () => fade(-10), "]": () => fade(10),
  n: () => goTo(choice.listed + 1), p: () => goTo(choice.listed < 0 ? -1 : choice.listed - 1),
  "+": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: goHome,
};
document.addEventListener("keydown", event => {
  const target = event.target;
  if (target.matches("select, input[type=range]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const isInside = viewer && viewer.canvas.contains(target), number = Number(event.key);
  if (number > 0 && number <= slide.listed.top.length) goTo(number - 1);
  else if (event.key in keys && !(isInside && ["+", "-", "0"].includes(event.key))) keys[event.key]();
  else return;
  event.preventDefault();
});
get("in").addEventListener("click", () => zoom(1.4));
get("out").addEventListener("click", () => zoom(1 / 1.4));
get("all").addEventListener("click", goHome);
get("show-heat").addEventListener("change", draw);
get("opacity").addEventListener("input", draw);
get("scaling").addEventListener("change", event => { choice.scaling = event.target.value; paint(); });
if (get("map")) get("map").addEventListener("change", event => {
  choice.map = event.target.selectedIndex;
  paint();
  if (choice.tile >= 0) choose(choice.tile, choice.listed);
});
for (const button of document.querySelectorAll(".shown button")) button.addEventListener("click", () => {
  goTo(Number(button.dataset.listed));
  get("slide").scrollIntoView({block: "nearest"});
});
get("key").style.background = "linear-gradient(to right, " + Array.from({length: 16}, (_, k) => "rgb(" + colors.slice(51 * k, 51 * k + 3).join(" ") + ")").join(", ") + ")";
open();
