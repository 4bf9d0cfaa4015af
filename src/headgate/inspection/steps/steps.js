"use strict";

const find = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (id) => document.getElementById(id);
const data = JSON.parse(one("data").textContent);
const bytes = Uint8Array.from(atob(data.blob), (letter) => letter.charCodeAt(0));
const numbers = new Float32Array(bytes.buffer);
const slider = one("step");
const unitChooser = one("unit");
const heatChooser = one("heat-name");
let step = data.steps - 1;
let unit = data.unit;
let timer = 0;

// Numbers

/** The value of a place at a step; NaN where the unit has none. */
function value(place, at = step, of = unit) {
  const series = place < 0 ? data.tables[-place - 1] : data.nodes[place];
  const [start, width, later, fixed, shared] = series;
  const column = shared ? 0 : place < 0 ? of : of - data.units[0];
  if (column >= width) return NaN;
  return numbers[start + (fixed ? 0 : at + later) * width + column];
}

const sizes = new Map();

/** The largest size of a unit's value over the steps, at least 1. */
function scale(place, of = unit) {
  const key = `${place} ${of}`;
  if (!sizes.has(key)) {
    let largest = 1;
    for (let at = 0; at < data.steps; at += 1) {
      const size = Math.abs(value(place, at, of));
      if (Number.isFinite(size)) largest = Math.max(largest, size);
    }
    sizes.set(key, largest);
  }
  return sizes.get(key);
}

function written(number) {
  if (Number.isNaN(number)) return "–";
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  const text = Math.abs(number) < 1000 ? number.toFixed(3) : number.toPrecision(6);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

// Drawing one step

function fill(element) {
  const column = element.dataset.u;
  const text = written(value(Number(element.dataset.s), step, column ? Number(column) : unit));
  element.textContent = "p" in element.dataset && text.startsWith("−") ? `(${text})` : text;
}

const share = (number, largest) => Math.min(1, Math.abs(number) / largest) || 0;

function openValve(element, number) {
  const open = Math.max(0, Math.min(1, number)) || 0;
  element.style.setProperty("--open", `${100 * open}%`);
}

function fillBar(bar, place) {
  const [number, largest] = [value(place), scale(place)];
  const [element, note] = [bar.querySelector(".gauge i"), bar.querySelector("small")];
  const size = 50 * share(number, largest);
  note.textContent = `±${Number(largest.toPrecision(2))}`;
  element.style.bottom = `${number < 0 ? 50 - size : 50}%`;
  element.style.height = `${size}%`;
  element.classList.toggle("negative", number < 0);
}

function flow(element, number, largest) {
  element.style.height = `${100 * share(number, largest)}%`;
  element.classList.toggle("negative", number < 0);
}

/** The state along its lane: the same at both ends of a pipe until a station changes it. */
function drawLane(lane) {
  const [first, last] = [Number(lane.dataset.start), Number(lane.dataset.end)];
  const largest = Math.max(scale(first), scale(last));
  let now = value(first);
  for (const stop of lane.children) {
    const [before, after] = find(".flow", stop);
    flow(before, now, largest);
    if (stop.dataset.sign) {
      const term = value(Number(stop.dataset.term));
      now = { "×": term, "+": now + term, "−": now - term }[stop.dataset.sign];
    }
    flow(after, now, largest);
  }
}

function label(at) {
  const number = `Step ${data.first + at + 1} of ${data.total}`;
  const time = data.times[at];
  return time === String(data.first + at) ? number : `${number} · ${time}`;
}

function draw() {
  slider.value = step;
  slider.setAttribute("aria-valuetext", label(step));
  one("where").textContent = label(step);
  unitChooser.value = unit;
  for (const element of find(".unit")) element.textContent = unit;
  for (const element of find("[data-s]")) fill(element);
  for (const element of find("[data-gate]")) {
    openValve(element, value(Number(element.dataset.gate)));
  }
  for (const element of find("[data-bar]")) fillBar(element, Number(element.dataset.bar));
  find(".lane").forEach(drawLane);
  drawChain();
  for (const cursor of find(".cursor:not(.across)")) {
    cursor.style.left = `${(100 * (step + 0.5)) / data.steps}%`;
  }
  const [first, last] = data.units;
  document.querySelector(".across").style.top = `${(100 * (unit - first + 0.5)) / (last - first)}%`;
}

function go(to, of = unit) {
  step = Math.max(0, Math.min(data.steps - 1, to));
  unit = of;
  draw();
}

// The chain of modules

const chain = one("chain");

function make(tag, name, parent) {
  const element = document.createElement(tag);
  element.className = name;
  parent.append(element);
  return element;
}

/** As many boxes as fit, an odd number, the current one in the middle. */
function buildChain() {
  const fits = Math.floor((chain.clientWidth + 20) / 108);
  const half = Math.max(1, Math.min(4, Math.floor((fits - 1) / 2)));
  if (chain.children.length === 2 * half + 1) return;
  chain.replaceChildren();
  for (let away = -half; away <= half; away += 1) {
    const box = make("button", "box", chain);
    box.type = "button";
    box.dataset.away = away;
    box.addEventListener("click", () => go(step + away));
    make("span", "output", box);
    const gates = make("span", "gates", box);
    for (const gate of data.chain.gates) {
      const level = make("span", "level", gates);
      make("i", "", level);
      level.append(gate.name);
    }
    make("span", "away", box).textContent = away ? `t ${away < 0 ? "−" : "+"} ${Math.abs(away)}` : "t";
    make("span", "time", box);
  }
  drawChain();
}

function drawChain() {
  for (const box of chain.children) {
    const at = step + Number(box.dataset.away);
    const inside = at >= 0 && at < data.steps;
    box.classList.toggle("outside", !inside);
    box.disabled = !inside;
    if (!inside) continue;
    if (at === step) box.setAttribute("aria-current", "step");
    const output = value(data.chain.output, at);
    const [shown, gates, , time] = box.children;
    shown.textContent = `${data.chain.name} ${written(output)}`;
    shown.style.setProperty("--share", `${100 * share(output, scale(data.chain.output))}%`);
    shown.classList.toggle("negative", output < 0);
    data.chain.gates.forEach((gate, k) => openValve(gates.children[k], value(gate.place, at)));
    time.textContent = data.times[at];
    box.setAttribute("aria-label", `${label(at)}, output ${written(output)}`);
  }
}

/** What depends on the width: the boxes, and which parts must be scrolled by key. */
function fit() {
  buildChain();
  for (const part of find(".scroll")) part.tabIndex = part.scrollWidth > part.clientWidth ? 0 : -1;
}

// The heat map

const VIRIDIS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"];
const parts = (colour) => [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));

/** A point of a scale of colours, 0 … 1. */
function tint(colours, point) {
  const place = Math.max(0, Math.min(1, point)) * (colours.length - 1);
  const left = Math.min(colours.length - 2, Math.floor(place));
  const [a, b] = [parts(colours[left]), parts(colours[left + 1])];
  return a.map((from, k) => from + (b[k] - from) * (place - left));
}

function drawHeat() {
  const { name, place, gate } = data.heat[heatChooser.selectedIndex];
  const middle = getComputedStyle(document.documentElement).getPropertyValue("--middle").trim();
  const colours = gate ? VIRIDIS : ["#0072b2", middle, "#d55e00"];
  const [first, last] = data.units;
  const units = Array.from({ length: last - first }, (_, k) => first + k);
  const largest = Math.max(...units.map((of) => scale(place, of)));
  const canvas = one("heat");
  [canvas.width, canvas.height] = [data.steps, last - first];
  canvas.style.height = `${Math.max(96, Math.min(320, 14 * (last - first)))}px`;
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let row = 0; row < canvas.height; row += 1) {
    for (let at = 0; at < canvas.width; at += 1) {
      const number = value(place, at, first + row);
      const colour = tint(colours, gate ? number : 0.5 + number / largest / 2);
      image.data.set([...colour, Number.isNaN(number) ? 0 : 255], 4 * (row * canvas.width + at));
    }
  }
  context.putImageData(image, 0, 0);
  const ends = gate ? ["0 closed", "1 open"] : [written(-largest), written(largest)];
  canvas.setAttribute("aria-label", `${name}: ${ends.join(" to ")}, one row a unit over the steps`);
  [one("heat-low").textContent, one("heat-high").textContent] = ends;
  document.querySelector(".key i").style.background = `linear-gradient(to right, ${colours})`;
}

// Hands

function play(on) {
  clearInterval(timer);
  timer = on ? setInterval(() => (step < data.steps - 1 ? go(step + 1) : play(false)), 250) : 0;
  one("play").textContent = on ? "Pause" : "Play";
  one("where").setAttribute("aria-live", on ? "off" : "polite");
}

function toggle() {
  if (!timer && step === data.steps - 1) go(0);
  play(!timer);
}

const KEYS = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
const ENDS = { Home: 0, End: data.steps - 1 };

function key(event) {
  const onSlider = event.target === slider;
  const own = event.target.closest("select, button, .scroll");
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === " " && !event.target.closest("select, button")) toggle();
  else if (onSlider && event.key in ENDS) go(ENDS[event.key]);
  else if (onSlider && event.key in KEYS) go(step + KEYS[event.key]);
  else if (!own && ["ArrowLeft", "ArrowRight"].includes(event.key)) go(step + KEYS[event.key]);
  else return;
  event.preventDefault();
}

function point(event) {
  if (event.type === "pointermove" && !event.buttons) return;
  const area = event.currentTarget.getBoundingClientRect();
  const to = Math.floor(((event.clientX - area.left) / area.width) * data.steps);
  const [first, last] = data.units;
  const row = Math.floor(((event.clientY - area.top) / area.height) * (last - first));
  const onHeat = event.currentTarget.classList.contains("heat");
  go(to, onHeat ? Math.max(first, Math.min(last - 1, first + row)) : unit);
}

function start() {
  slider.max = data.steps - 1;
  for (let k = data.units[0]; k < data.units[1]; k += 1) unitChooser.add(new Option(k, k));
  for (const { name } of data.heat) heatChooser.add(new Option(name, name));
  slider.addEventListener("input", () => go(Number(slider.value)));
  unitChooser.addEventListener("change", () => go(step, Number(unitChooser.value)));
  heatChooser.addEventListener("change", drawHeat);
  one("play").addEventListener("click", toggle);
  document.addEventListener("keydown", key);
  for (const track of find("[data-track]")) {
    track.addEventListener("pointerdown", point);
    track.addEventListener("pointermove", point);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawHeat);
  new ResizeObserver(fit).observe(chain);
  fit();
  drawHeat();
  draw();
}

start();
