// The page: asks the viewer for windows, processes and call trees, keeps what is chosen in the address, fills in text.
// Names of functions and processes come from strangers: they go through textContent only.

import { FlameGraph, KIND_NAMES, Palette, Tree } from "./flamegraph.js";
import { Timeline, timeOf } from "./timeline.js";

const STATUS_PAUSE = 2000;
const LISTED = 120;
const MOST_ROWS = 400;
const COUNTS = [1, 6, 30, 120];

const $ = (id) => document.getElementById(id);
const percent = (part, whole, digits = 1) => whole ? (100 * part / whole).toFixed(digits) : (0).toFixed(digits);
const number = (value) => Math.round(value).toLocaleString();

const chosen = { follow: true, count: 6, from: null, to: null, process: "", threads: false, view: "flame", flipped: false };
const known = { windows: [], processes: null, tree: null, span: null, status: null, path: [], refreshed: null, refreshing: false };
let sort = "own";
let asked = 0;
let matches = null;

const palette = new Palette();
const graph = new FlameGraph($("flame"), palette, { onZoom: zoomed, onHover: hovered });
const timeline = new Timeline($("timeline"), palette, chooseWindows);

// === Small helpers

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function bytes(count) {
  return count >= 1e9 ? (count / 1e9).toFixed(1) + " GB" : count >= 1e6 ? (count / 1e6).toFixed(count < 1e7 ? 1 : 0) + " MB" : Math.round(count / 1e3) + " kB";
}

function seconds(value) {
  if (value >= 90) { const minutes = value / 60; return (Number.isInteger(minutes) ? minutes : minutes.toFixed(1)) + " min"; }
  if (value === 60) return "1 min";
  return (value >= 10 || Number.isInteger(value) ? Math.round(value) : value < 0.1 ? value.toFixed(3) : value.toFixed(2)) + " s";
}

function sentence(text) { return text ? text[0].toUpperCase() + text.slice(1) + "." : ""; }

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error((await answer.text()).trim() || `${path}: ${answer.status}`);
  return answer.json();
}

// === What is chosen, in the address

function remember() {
  const parts = new URLSearchParams();
  if (!chosen.follow && chosen.from) parts.set("windows", `${chosen.from}..${chosen.to}`);
  else if (chosen.count !== 6) parts.set("last", chosen.count);
  if (chosen.process) parts.set("process", chosen.process);
  if (chosen.threads) parts.set("threads", "1");
  if (chosen.view !== "flame") parts.set("view", chosen.view);
  if (chosen.flipped) parts.set("flipped", "1");
  if ($("search").value) parts.set("search", $("search").value);
  const text = parts.toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? "#" + text : location.pathname);
}

function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const windows = (parts.get("windows") || "").split("..");
  if (windows.length === 2) Object.assign(chosen, { follow: false, from: windows[0], to: windows[1] });
  const count = parseInt(parts.get("last"), 10);
  if (count >= 1 && count <= 360) chosen.count = count;
  chosen.process = parts.get("process") || "";
  chosen.threads = parts.has("threads");
  chosen.view = parts.get("view") === "top" ? "top" : "flame";
  chosen.flipped = parts.has("flipped");
  $("search").value = parts.get("search") || "";
}

function windowsWanted() {
  return chosen.follow || !chosen.from ? `last:${chosen.count}` : `${chosen.from}..${chosen.to}`;
}

function wanted() {
  const parts = new URLSearchParams({ window: windowsWanted() });
  if (chosen.process) parts.set("process", chosen.process);
  return parts;
}

// === Fetching

async function refreshStatus() {
  try {
    const status = await ask("/status");
    known.status = status;
    showStatus();
    const state = `${status.newest} ${status.windows}`;
    if (known.refreshed !== state && !known.refreshing) {
      known.refreshing = true;
      try {
        await refreshWindows();
        known.refreshed = state;
      } finally { known.refreshing = false; }
    }
    showEmpty();
  } catch (error) {
    state("away", "viewer not reachable", String(error.message || error));
  }
}

async function refreshWindows() {
  known.windows = await ask(`/windows?limit=${LISTED}`);
  showWindows();
  if (chosen.follow || !known.tree) await refreshView();
}

async function refreshView() {
  const mine = ++asked;
  const parts = wanted();
  $("download").href = "/download?" + parts;
  if (chosen.threads) parts.set("threads", "1");
  const [flame, processes] = await Promise.all([ask("/flamegraph?" + parts), ask("/processes?window=" + encodeURIComponent(windowsWanted()))]);
  if (mine !== asked) return;
  known.tree = new Tree(flame.tree);
  known.span = flame.span;
  known.processes = processes.list;
  matches = null;
  showProcesses();
  graph.show(known.tree, known.tree.follow(known.path));
  search();
  showPath();
  showTop();
  showFacts();
  showNotes();
  showEmpty();
}

function change(changes) {
  Object.assign(chosen, changes);
  remember();
  showControls();
  showWindows();
  return refreshView().catch((error) => state("away", "could not load", String(error.message || error)));
}

// === The header

function state(kind, text, title = "") {
  $("state").className = "state " + kind;
  $("state").querySelector("b").textContent = text;
  $("state").title = title;
}

function fact(id, text, bad = false, title) {
  const node = $("fact-" + id);
  node.querySelector("dd").textContent = text;
  node.classList.toggle("bad", bad);
  if (title !== undefined) node.title = title;
}

function showStatus() {
  const status = known.status;
  if (status.ready) state("live", "sampling", "BPF programs are attached and samples flow end to end");
  else state("waiting", "waiting", status.waiting_for || "");
  const lines = status.processes.map((process) =>
    `${process.process}: ${process.cpu_percent === null ? "–" : process.cpu_percent.toFixed(2) + " %"} · ${process.memory_bytes === null ? "–" : bytes(process.memory_bytes)}${process.silent ? " (silent)" : ""}`);
  if (status.kernel_bytes) lines.push(`BPF maps: ${bytes(status.kernel_bytes)}`);
  const memory = status.memory_bytes === null ? "–" : bytes(status.memory_bytes + (status.kernel_bytes || 0));
  const cpu = status.cpu_percent === null ? "–" : status.cpu_percent.toFixed(status.cpu_percent < 1 ? 2 : 1) + " % of a CPU";
  fact("cost", `${cpu} · ${memory}`, false, "What Leadsman itself costs, all processes together\n" + lines.join("\n"));
  const lost = status.losses.reduce((sum, loss) => sum + loss.samples, 0);
  const causes = status.losses.map((loss) => `${loss.cause} ${number(loss.samples)}`);
  const detail = status.losses.map((loss) => `${number(loss.samples)} between ${loss.edge}: ${loss.cause}`).join("\n");
  const reported = status.processes.some((process) => process.process !== "viewer");
  const brief = causes.length > 2 ? causes.slice(0, 2).join(", ") + ", …" : causes.join(", ");
  fact("lost", lost ? `${number(lost)} (${brief})` : reported ? "0" : "–", lost > 0, "Samples dropped since start, by cause\n" + (detail || "none"));
}

function shown() {
  const wanted = [chosenRange()].flatMap(([first, last]) => first < 0 ? [] : known.windows.slice(first, last + 1));
  return wanted.filter((window) => window.summary);
}

function showFacts() {
  const windows = shown();
  const sum = (of) => windows.reduce((total, window) => total + of(window.summary), 0);
  const samples = sum((summary) => summary.samples), duration = sum((summary) => summary.duration_nanos);
  const busy = sum((summary) => summary.samples * summary.period_nanos) / (duration || 1);
  fact("busy", windows.length ? `${busy.toFixed(2)} CPUs` : "–");
  const cut = sum((summary) => summary.stopped), unnamed = sum((summary) => summary.unnamed);
  fact("cut", samples ? percent(cut, samples) + " %" : "–", cut > samples * 0.03);
  const reasons = Object.entries(known.span ? known.span.unnamed_because : {}).sort((a, b) => b[1] - a[1]).map(([reason, frames]) => `${number(frames)} frames: ${reason}`);
  fact("unnamed", samples ? percent(unnamed, samples) + " %" : "–", unnamed > samples * 0.1, ["Samples shown whose innermost frame has no name", ...reasons].join("\n"));
}

// === Windows

function chosenRange() {
  const windows = known.windows;
  if (!windows.length) return [-1, -1];
  if (chosen.follow || !chosen.from) return [Math.max(0, windows.length - chosen.count), windows.length - 1];
  const first = windows.findIndex((window) => window.id >= chosen.from);
  let last = windows.length - 1;
  while (last >= 0 && windows[last].id > chosen.to) last--;
  return first < 0 || last < first ? [-1, -1] : [first, last];
}

function showWindows() {
  const [first, last] = chosenRange();
  timeline.show(known.windows, [first, last]);
  let text = "";
  if (first >= 0) {
    const end = known.windows[last];
    const length = end.summary ? end.summary.duration_nanos / 1e6 : 0;
    text = `${timeOf(known.windows[first].start)} – ${timeOf(end.start + length)}`;
  }
  $("range-text").textContent = text;
  const windowSeconds = (known.status ? known.status.window_millis : 10000) / 1000;
  $("ranges").replaceChildren(...COUNTS.map((count) => {
    const button = element("button", { textContent: seconds(Math.round(count * windowSeconds)), title: count === 1 ? "the newest window" : `the newest ${count} windows` });
    button.setAttribute("aria-pressed", chosen.follow && chosen.count === count);
    button.addEventListener("click", () => change({ follow: true, count, from: null, to: null }));
    return button;
  }));
  $("follow").setAttribute("aria-pressed", chosen.follow);
}

function chooseWindows(first, last) {
  const windows = known.windows;
  if (!windows[first] || !windows[last]) return;
  change({ follow: false, from: windows[first].id, to: windows[last].id });
}

function follow(on) {
  if (on) { change({ follow: true, from: null, to: null }); return; }
  const [first, last] = chosenRange();
  if (first >= 0) chooseWindows(first, last);
}

// === Processes

const opened = new Set();

function processRow({ name, count, samples, kernel, total, process, level, pids, comm }) {
  const item = element("li", { className: level });
  item.classList.toggle("chosen", chosen.process === process);
  const more = element("button", { className: "more", textContent: "▶" });
  if (level === "pid") more.hidden = true;
  else if (!pids || pids.length < 2) more.classList.add("none");
  else {
    more.setAttribute("aria-expanded", opened.has(comm));
    more.setAttribute("aria-label", "Show processes");
    more.addEventListener("click", () => { if (!opened.delete(comm)) opened.add(comm); showProcesses(); });
  }
  const row = element("button", { className: "row" },
    element("span", { className: "name", textContent: name, title: name }),
    element("span", { className: "count", textContent: count }),
    element("span", { className: "share", textContent: percent(samples, total) + " %" }));
  row.addEventListener("click", () => { known.path = []; change({ process: chosen.process === process ? "" : process }); });
  row.title = `${name}: ${number(samples)} samples` + (kernel === undefined ? "" : `, ${percent(kernel, samples, 0)} % in the kernel`);
  const bar = element("span", { className: "bar" });
  bar.style.width = percent(samples, total) + "%";
  if (kernel) { const part = element("i"); part.style.width = percent(kernel, samples) + "%"; bar.append(part); }
  item.append(bar, more, row);
  return item;
}

function showProcesses() {
  const list = known.processes;
  if (!list) return;
  const filter = $("process-filter").value.trim().toLowerCase();
  const total = list.total;
  const kernel = list.programs.reduce((sum, program) => sum + program.kernel, 0);
  const rows = [processRow({ name: "Whole machine", count: "", samples: total, kernel, total, process: "", level: "whole" })];
  for (const program of list.programs) {
    const byPid = program.pids.some(([pid]) => pid === filter);
    if (filter && !program.comm.toLowerCase().includes(filter) && !byPid) continue;
    const one = program.processes === 1;
    rows.push(processRow({
      name: program.comm, count: one ? (program.pids[0] || [""])[0] : `× ${number(program.processes)}`, samples: program.samples, kernel: program.kernel,
      total, process: "comm:" + program.comm, level: "program", pids: program.pids, comm: program.comm,
    }));
    if (!opened.has(program.comm) && !byPid) continue;
    if (one) continue;
    for (const [pid, samples] of program.pids) {
      rows.push(processRow({ name: pid, count: "", samples, total, process: "pid:" + pid, level: "pid" }));
    }
    const rest = program.processes - program.pids.length;
    if (rest > 0) rows.push(element("li", { className: "rest", textContent: `and ${number(rest)} more processes` }));
  }
  if (list.hidden_programs && !filter) rows.push(element("li", { className: "rest", textContent: `${number(list.hidden_programs)} more programs, ${percent(list.hidden_samples, total)} %` }));
  const focused = document.activeElement && $("processes").contains(document.activeElement) ? [...$("processes").querySelectorAll("button")].indexOf(document.activeElement) : -1;
  $("processes").replaceChildren(...rows);
  if (focused >= 0) { const buttons = $("processes").querySelectorAll("button"); if (buttons[focused]) buttons[focused].focus(); }
}

// === The flame graph

function zoomed(node) {
  known.path = known.tree.path(node).map((step) => [known.tree.name(step), known.tree.kind(step)]);
  showPath();
  showNotes();
  showTop();
}

function showPath() {
  const tree = known.tree, path = $("path");
  if (!tree) return;
  const steps = [0, ...tree.path(graph.zoomed)];
  const parts = [];
  const visible = steps.length > 4 ? [steps[0], -1, ...steps.slice(-2)] : steps;
  if (steps.length > 1) {
    for (const step of visible) {
      if (parts.length) parts.push(element("span", { className: "step", textContent: "›" }));
      if (step < 0) { parts.push(element("span", { className: "step", textContent: "…" })); continue; }
      const name = step === 0 ? "all" : tree.name(step);
      const button = element("button", { title: name }, element("span", { textContent: name }));
      button.addEventListener("click", () => graph.zoom(step));
      parts.push(button);
    }
  }
  path.replaceChildren(...parts);
}

function hovered(node, event) {
  const tip = $("tip");
  if (node < 0) { tip.hidden = true; return; }
  const tree = known.tree, weight = tree.weight[node], total = tree.total;
  const share = weight / total;
  const margin = 196 * Math.sqrt(share * (1 - share) / total);
  const period = known.span.period_nanos / 1e9;
  const kind = tree.kind(node);
  const where = [kind > 0 ? KIND_NAMES[kind] : "everything shown", tree.where(node)].filter(Boolean).join(" · ");
  const numbers = element("div", { className: "numbers" });
  numbers.append(`${number(weight)} samples · ${percent(weight, total)} %`);
  if (weight < total) numbers.append(element("span", { textContent: ` ± ${margin.toFixed(1)}` }));
  if (graph.zoomed > 0 && node >= graph.zoomed) numbers.append(` · ${percent(weight, tree.weight[graph.zoomed])} % of the zoom`);
  if (period) numbers.append(element("br"), `≈ ${seconds(weight * period)} of CPU time`);
  if (tree.own[node]) numbers.append(` · itself ${number(tree.own[node])} (${percent(tree.own[node], total)} %)`);
  tip.replaceChildren(element("div", { className: "title", textContent: node === 0 ? "all" : tree.name(node) }), element("div", { className: "where", textContent: where }), numbers);
  tip.hidden = false;
  const x = event.clientX + 14, y = event.clientY + 16;
  tip.style.left = Math.max(6, Math.min(innerWidth - tip.offsetWidth - 8, x)) + "px";
  tip.style.top = (y + tip.offsetHeight > innerHeight - 6 ? event.clientY - tip.offsetHeight - 12 : y) + "px";
}

function test() {
  const text = $("search").value;
  $("search").classList.remove("wrong");
  if (!text) return null;
  const plain = text.toLowerCase();
  if (!/[\\^$.*+?()[\]{}|]/.test(text)) return (name, module) => name.toLowerCase().includes(plain) || module.toLowerCase().includes(plain);
  try {
    const pattern = new RegExp(text, "i");
    return (name, module) => pattern.test(name) || pattern.test(module);
  } catch {
    if (plain.includes("(") || plain.includes("[")) return (name) => name.toLowerCase().includes(plain);
    $("search").classList.add("wrong");
    return null;
  }
}

function search() {
  const check = test();
  matches = check && known.tree ? known.tree.match(check) : null;
  graph.search(matches && matches.frames);
  $("matched").textContent = matches ? percent(matches.samples, known.tree.total) + " %" : "";
  $("matched").title = matches ? `${number(matches.samples)} samples` : "";
  remember();
  showTop();
}

function showNotes() {
  const tree = known.tree;
  const kinds = tree.kinds(graph.zoomed), whole = tree.weight[graph.zoomed];
  const items = [3, 4, 5, 6].map((kind) => {
    const swatch = element("i");
    swatch.style.background = palette.kind(kind);
    return element("li", {}, swatch, KIND_NAMES[kind], element("b", { textContent: tree.hidden ? "" : percent(kinds[kind], whole, 0) + " %" }));
  });
  const swatch = element("i");
  swatch.style.background = palette.kind(7);
  items.push(element("li", {}, swatch, KIND_NAMES[7]));
  $("legend").replaceChildren(...items);
  const notes = [];
  if (tree.hidden) notes.push(`${number(tree.hidden)} boxes under ${number(tree.least)} samples not drawn: choose a process to see them`);
  if (tree.shortened) notes.push(`${number(tree.shortened)} samples drawn with shortened stacks`);
  if (known.span.unreadable) notes.push(`${known.span.unreadable} windows cannot be read`);
  $("note").textContent = notes.length ? notes.join(" · ") : `${number(tree.total)} samples`;
}

// === Functions

function showTop() {
  const tree = known.tree;
  if (!tree) return;
  const whole = tree.weight[graph.zoomed];
  let rows = tree.functions(graph.zoomed);
  if (matches) rows = rows.filter((row) => matches.frames.has(row.frame));
  rows.sort((a, b) => b[sort] - a[sort] || b.weight - a.weight);
  const most = rows.reduce((least, row) => Math.max(least, row[sort]), 1);
  const cell = (samples) => {
    const bar = element("i");
    bar.style.width = 46 * Math.min(1, samples / most) + "px";
    return element("td", { className: "number", title: number(samples) + " samples" }, bar, element("span", { textContent: percent(samples, whole) + " %" }));
  };
  $("top").querySelector("tbody").replaceChildren(...rows.slice(0, MOST_ROWS).map((row) => {
    const [name, kind, module, file] = tree.frames[row.frame];
    const dot = element("span", { className: "dot", title: KIND_NAMES[kind] });
    dot.style.background = palette.frame(tree.frames[row.frame]);
    const line = element("tr", {}, cell(row.own), cell(row.weight), element("td", { title: name }, dot, name), element("td", { textContent: module || file, title: [module, file].filter(Boolean).join(" · ") }));
    line.addEventListener("click", () => { $("search").value = "^" + name.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&") + "$"; chosen.view = "flame"; showControls(); search(); });
    return line;
  }));
  $("sort-self").setAttribute("aria-pressed", sort === "own");
  $("sort-total").setAttribute("aria-pressed", sort === "weight");
}

// === Nothing to see

function showEmpty() {
  const status = known.status, tree = known.tree;
  const [title, text] = $("empty").querySelectorAll("h2, p");
  const back = $("empty").querySelector("button");
  const nothing = !tree || !tree.total;
  $("empty").hidden = !nothing;
  if (!nothing || !status) return;
  back.hidden = true;
  if (!status.windows) {
    title.textContent = "Waiting for the first window";
    text.textContent = sentence(status.waiting_for) || `Samples are being taken; a window is written every ${seconds(status.window_millis / 1000)}.`;
  } else if (!tree) {
    title.textContent = "Reading the windows";
    text.textContent = "";
  } else if (chosen.process) {
    title.textContent = `No samples of ${chosen.process.replace(/^(comm|pid):/, (label) => label === "pid:" ? "process " : "")}`;
    text.textContent = "It did not run on a CPU in these windows, or has ended.";
    back.hidden = false;
  } else if (chosenRange()[0] < 0) {
    title.textContent = "These windows are no longer kept";
    text.textContent = "The store gives up its oldest windows. Follow the latest ones to see the machine now.";
  } else {
    title.textContent = "No samples in these windows";
    text.textContent = status.ready ? "Every CPU was idle when its timer fired." : sentence(status.waiting_for);
  }
}

// === Controls

function showControls() {
  $("threads").setAttribute("aria-pressed", chosen.threads);
  $("flip").setAttribute("aria-pressed", chosen.flipped);
  $("tab-flame").setAttribute("aria-pressed", chosen.view === "flame");
  $("tab-top").setAttribute("aria-pressed", chosen.view === "top");
  $("flame").hidden = chosen.view !== "flame";
  $("top").hidden = chosen.view !== "top";
  $("tip").hidden = true;
  if (graph.flipped !== chosen.flipped) graph.flip(chosen.flipped);
  else if (chosen.view === "flame") graph.resize();
}

function show(changes) {
  Object.assign(chosen, changes);
  showControls();
  remember();
}

function back() {
  if ($("search").value) { $("search").value = ""; search(); }
  else if (graph.zoomed > 0) graph.zoom(known.tree.parent[graph.zoomed] <= 0 ? 0 : outward(graph.zoomed));
  else if (chosen.process) change({ process: "" });
}

/// The next node outward that is wider: a chain of single calls is one step.
function outward(node) {
  const tree = known.tree;
  let next = tree.parent[node];
  while (next > 0 && tree.weight[next] === tree.weight[node]) next = tree.parent[next];
  return Math.max(0, next);
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "Escape") { if (typing) event.target.blur(); if (event.target.id === "process-filter") { event.target.value = ""; showProcesses(); } else back(); event.preventDefault(); return; }
  if (typing) { if (event.key === "Enter") event.target.blur(); return; }
  if (event.target instanceof HTMLButtonElement && event.key === "Enter") return;
  const act = {
    "/": () => { $("search").focus(); $("search").select(); },
    f: () => follow(!chosen.follow),
    t: () => show({ view: chosen.view === "top" ? "flame" : "top" }),
    i: () => show({ flipped: !chosen.flipped }),
    h: () => change({ threads: !chosen.threads }),
    "?": () => $("help").showModal(),
    Enter: () => { if (graph.chosen >= 0) graph.zoom(graph.chosen); },
    Backspace: back,
    Home: () => graph.zoom(0),
  }[event.key];
  if (act) { act(); event.preventDefault(); return; }
  if (event.key.startsWith("Arrow") && chosen.view === "flame" && known.tree) {
    const node = graph.step(event.key);
    if (node >= 0) hovered(node, graph.place(node));
    event.preventDefault();
  }
}

function theme() {
  palette.read();
  graph.draw();
  timeline.draw();
  if (known.tree) { showNotes(); showTop(); }
}

recall();
showControls();
document.addEventListener("keydown", key);
$("follow").addEventListener("click", () => follow(!chosen.follow));
$("threads").addEventListener("click", () => change({ threads: !chosen.threads }));
$("flip").addEventListener("click", () => show({ flipped: !chosen.flipped }));
$("tab-flame").addEventListener("click", () => show({ view: "flame" }));
$("tab-top").addEventListener("click", () => show({ view: "top" }));
$("search").addEventListener("input", search);
$("process-filter").addEventListener("input", showProcesses);
$("sort-self").addEventListener("click", () => { sort = "own"; showTop(); });
$("sort-total").addEventListener("click", () => { sort = "weight"; showTop(); });
$("help-button").addEventListener("click", () => $("help").showModal());
$("empty").querySelector("button").addEventListener("click", () => change({ process: "" }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refreshStatus(); });
refreshStatus();
setInterval(() => { if (!document.hidden) refreshStatus(); }, STATUS_PAUSE);
