// the page of a scan in 3D: `about` and `volumes` of volume_data.js hold its values, since file:// allows no fetch
const get = id => document.getElementById(id), {positions, spans, slices, axis} = about;
let viewer = null, current = about.first;

function bytes(text) {
  const code = atob(text), found = new Uint8Array(code.length);
  for (let i = 0; i < found.length; i++) found[i] = code.charCodeAt(i);
  return found.buffer;
}

// colors from uniform attention, which is transparent, to the end of the scale; a byte is the logarithm of the ratio
function heatColors() {
  const colors = about.colors.slice((about.colors.length - 1) / 2).map(color => [1, 3, 5].map(i => parseInt(color.slice(i, i + 2), 16)));
  const part = colors.map((_, i) => i / (colors.length - 1)), stops = [colors[0], ...colors];
  const [R, G, B] = [0, 1, 2].map(k => stops.map(color => color[k]));
  get("key").style.background = "linear-gradient(to right, " + colors.map((color, i) => `rgb(${color.join(" ")} / ${part[i]})`).join(", ") + ")";
  return {R, G, B, A: [0, ...part.map(p => Math.round(255 * p))], I: [0, ...part.map(p => Math.round(128 + 127 * p))]};
}

function show(i) {
  const at = viewer.frac2mm(viewer.scene.crosshairPos);
  at[axis] = positions[Math.max(0, Math.min(positions.length - 1, i))];
  viewer.scene.crosshairPos = viewer.mm2frac(at.slice(0, 3));
  viewer.createOnLocationChange();
  viewer.drawScene();
}
function moved(mm) {
  const i = spans.findIndex(([low, high]) => low <= mm[axis] && mm[axis] < high), s = slices[i];
  if (i >= 0) current = i;
  get("caption").textContent = s ? `${s.name}, ${s.place}: ${s.ratio}` : "There is no slice.";
  for (const button of document.querySelectorAll(".shown button")) button.setAttribute("aria-current", Number(button.dataset.slice) === i);
}
function setWindow(i) {
  const {low, high} = about.windows[i];
  Object.assign(viewer.volumes[0], {cal_min: 255 * low, cal_max: 255 * high});
  viewer.updateGLVolume();
  get("window").selectedIndex = i;
}
const setHeat = () => viewer.setOpacity(1, get("show-heat").checked ? get("opacity").value / 100 : 0);

async function start() {
  const options = {backColor: [0, 0, 0, 1], isRadiologicalConvention: true, show3Dcrosshair: true, crosshairColor: [.42, .72, .96, 1], crosshairWidth: .5, crosshairWidthUnit: "percent", logLevel: "error"};
  viewer = new niivue.Niivue(options);
  await viewer.attachToCanvas(get("canvas"));
  viewer.addColormap("heat", heatColors());
  const range = {cal_min: 0, cal_max: 255};
  viewer.addVolume(await niivue.NVImage.loadFromUrl({url: bytes(volumes.scan), name: "scan.nii.gz", ...range}));
  viewer.addVolume(await niivue.NVImage.loadFromUrl({url: bytes(volumes.heat), name: "heat.nii.gz", colormap: "heat", ...range}));
  viewer.opts.multiplanarShowRender = niivue.SHOW_RENDER.ALWAYS;
  viewer.onLocationChange = place => moved(place.mm);
  viewer.setSliceType(niivue.SLICE_TYPE.MULTIPLANAR);
  setHeat();
  setWindow(0);
  show(current);
  get("wait").hidden = true;
}

const letters = {n: () => show(current + 1), p: () => show(current - 1), a: () => get("show-heat").click(), w: () => setWindow((get("window").selectedIndex + 1) % about.windows.length)};
function listen() {
  get("view").addEventListener("change", event => viewer.setSliceType(niivue.SLICE_TYPE[event.target.value]));
  get("show-heat").addEventListener("change", setHeat);
  get("opacity").addEventListener("input", setHeat);
  get("window").addEventListener("change", event => setWindow(event.target.selectedIndex));
  for (const button of document.querySelectorAll(".shown button")) button.addEventListener("click", () => show(Number(button.dataset.slice)));
  document.addEventListener("keydown", event => {
    const button = document.querySelectorAll(".shown button")[Number(event.key) - 1];
    if (event.target.matches("select, input[type=range]") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in letters) letters[event.key]();
    else if (button) button.click();
  });
}

start().then(listen, error => {
  get("wait").textContent = document.createElement("canvas").getContext("webgl2") ? "The scan can't be shown: " + error : "This browser has no WebGL 2, which 3D needs; the page of all slices works without.";
});
