"use strict";
// The page of readers. Names are put in as text only, never as HTML.
const byId = id => document.getElementById(id);
const UNTRAINED = { true: "", false: "The model is not trained: label scans of two classes, and train." };
const state = { cases: [], classes: [], open: null, top: [], busy: false };
const remembered = (() => { try { return sessionStorage; } catch { return {}; } })();

const make = (kind, text, values = {}) => Object.assign(document.createElement(kind), { textContent: text }, values);
const say = text => { byId("status").textContent = text; };
const pause = ms => new Promise(done => setTimeout(done, ms));

async function ask(path, values) {
  const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(values) };
  const answer = await fetch(path, values === undefined ? {} : post);
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(typeof content.detail === "string" ? content.detail : `status ${answer.status}`);
  return content;
}

function reader() {
  const name = byId("reader").value.trim();
  if (!name) { byId("reader").focus(); throw new Error("Enter your name first."); }
  remembered.reader = name;
  return name;
}

// run one action at a time, and show why it failed
async function run(action) {
  if (state.busy) return;
  state.busy = true;
  try { await action(); } catch (error) { say(error.message); } finally { state.busy = false; }
}

const labelName = label => Number.isInteger(label) ? state.classes[label] : label;

async function load() {
  const found = await ask("/labeller/cases");
  Object.assign(state, found);
  const done = state.cases.filter(one => one.labeled).length;
  byId("count").textContent = `${done} of ${state.cases.length} labeled`;
  byId("progress").max = Math.max(1, state.cases.length);
  byId("progress").value = done;
  byId("use").textContent = state.use;
  byId("train").disabled = !state.can_train;
  byId("send").disabled = !state.has_archive || !state.is_trained;
  byId("send").title = state.has_archive ? UNTRAINED[state.is_trained] : "The studies lie in a folder, so there is no archive to send to.";
  byId("cases").replaceChildren(...state.cases.map(one => {
    const score = one.uncertainty === null ? "" : one.uncertainty.toFixed(2);
    const button = make("button", one.id, { onclick: () => run(() => open(one.id)) });
    button.append(make("span", one.labeled ? labelName(one.label) ?? "mask" : score));
    if (one.id === state.open) button.setAttribute("aria-current", "true");
    const item = make("li", "");
    item.append(button);
    return item;
  }));
  showClasses();
}

function showClasses() {
  const current = state.cases.find(one => one.id === state.open);
  byId("classes").replaceChildren(...state.classes.map((name, number) => {
    const button = make("button", `${number + 1} ${name}`, { disabled: !current, onclick: () => run(() => give(name)) });
    button.setAttribute("aria-pressed", String(!!current && labelName(current.label) === name));
    return button;
  }));
}

async function open(image) {
  const found = await ask("/labeller/open", { reader: reader(), image });
  Object.assign(state, { open: image, top: [] });
  byId("case").textContent = image;
  byId("answer").replaceChildren();
  byId("show").disabled = !state.is_trained;
  byId("show").title = UNTRAINED[state.is_trained];
  byId("slice").max = found.slices - 1;
  [byId("left").textContent, byId("right").textContent] = found.sides;
  go(Math.floor(found.slices / 2));
  say(found.answer_shown ? "You have seen the answer of this case before." : "");
  await load();
}

function go(number) {
  const slider = byId("slice"), last = Number(slider.max);
  slider.value = Math.min(last, Math.max(0, number));
  if (state.open === null) return;
  const rank = state.top.indexOf(Number(slider.value));
  byId("place").textContent = `slice ${Number(slider.value) + 1} of ${last + 1}${rank < 0 ? "" : `, rank ${rank + 1}`}`;
  const query = new URLSearchParams({ image: state.open, slice: slider.value });
  byId("picture").src = `/labeller/picture?${query}`;
  byId("picture").alt = `${state.open}, ${byId("place").textContent}`;
  byId("picture").hidden = false;
}

async function give(label) {
  if (state.open === null) return;
  const found = await ask("/labeller/label", { reader: reader(), image: state.open, label });
  say(`${label === null ? "Label taken back" : `Labeled ${label}`}${found.answer_shown ? ", after the answer was shown" : ""}.`);
  await load();
}

async function next() {
  const one = state.cases.find(one => !one.labeled && one.id !== state.open);
  if (!one) { say("All other cases have a label."); return; }
  await open(one.id);
}

async function show() {
  if (state.open === null || !state.is_trained) return;
  say("The model reads the scan ...");
  const found = await ask("/labeller/answer", { reader: reader(), image: state.open });
  state.top = (found.top_slices || []).map(one => Number.isInteger(one) ? one : one.slice_index);
  const scores = found.prediction.map(one => `${one.label} ${one.score.toFixed(2)}`).join(", ");
  const chips = state.top.map((slice, rank) => make("button", `${rank + 1}: slice ${slice + 1}`, { onclick: () => go(slice) }));
  const row = make("div", "");
  row.append(...chips);
  byId("answer").replaceChildren(make("p", scores), row);
  if (state.top.length) go(state.top[0]);
  say("The answer is shown.");
}

// wait until a task of the server has ended
async function wait(kind, report) {
  for (;;) {
    const task = await ask(`/${kind}/`);
    if (task.status === "ERROR") throw new Error((task.details || []).slice(-1)[0] || `${kind} failed`);
    if (task.status === "DONE") return;
    await report();
    await pause(1000);
  }
}

async function train() {
  if (!state.can_train) return;
  say("Training ...");
  await ask(`/train/${state.model}`, {});
  await wait("train", async () => {
    const stats = (await ask("/info/")).train_stats[state.model] || {};
    if (!stats.total_time && stats.total_epochs) say(`Training: epoch ${stats.epoch} of ${stats.total_epochs}`);
  });
  say("Trained. The cases without a label are scored ...");
  await ask("/scoring/uncertainty", { model: state.model });
  await wait("scoring", async () => {});
  await load();
  byId("show").disabled = state.open === null || !state.is_trained;
  say("Trained and scored: the next case is the most uncertain one.");
}

async function send() {
  if (state.open === null || byId("send").disabled) return;
  say("The answer is written and sent ...");
  const found = await ask("/labeller/send", { reader: reader(), image: state.open });
  say(`Sent to the archive: ${Object.keys(found.series).join(", ").toUpperCase()}.`);
}

const KEYS = { a: show, n: next, t: train, s: send, 0: () => give(null) };
document.addEventListener("keydown", event => {
  if (event.target.id === "reader" || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
  if (step && event.target.id !== "slice") { event.preventDefault(); go(Number(byId("slice").value) + step); return; }
  const action = KEYS[event.key.toLowerCase()];
  const name = state.classes[Number(event.key) - 1];
  if (action) run(action);
  else if (name !== undefined) run(() => give(name));
});
byId("picture").addEventListener("wheel", event => {
  event.preventDefault();
  go(Number(byId("slice").value) + (event.deltaY < 0 ? 1 : -1));
}, { passive: false });
byId("slice").addEventListener("input", event => go(Number(event.target.value)));
for (const [id, action] of Object.entries({ show, next, train, send })) byId(id).onclick = () => run(action);
byId("reader").value = remembered.reader || "";
run(load);
