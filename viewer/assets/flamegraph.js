// The flame graph: a call tree on a canvas. Draws only what is wide enough to be seen; knows nothing of where trees come from.
// Function names are drawn as text, never as markup.

export const KINDS = ["root", "process", "thread", "kernel", "native", "interpreter", "unnamed", "stopped"];
export const KIND_NAMES = ["", "process", "thread", "kernel", "native", "interpreted or JIT", "unnamed", "unwind stopped"];
const KERNEL = 3, NATIVE = 4, INTERPRETER = 5, UNNAMED = 6, STOPPED = 7;
const ROW = 21;
const LEAST_WIDTH = 0.6;
const FONT = 12;

/// A call tree from the server's flat form: typed arrays in the order callers before callees.
export class Tree {
  constructor(view) {
    const count = view.nodes.length / 4;
    this.frames = view.frames;
    this.total = view.total;
    this.hidden = view.hidden_nodes;
    this.least = view.least;
    this.shortened = view.shortened;
    this.count = count;
    this.depth = new Uint16Array(count);
    this.frame = new Uint32Array(count);
    this.weight = new Float64Array(count);
    this.own = new Float64Array(count);
    this.left = new Float64Array(count);
    this.parent = new Int32Array(count).fill(-1);
    this.end = new Uint32Array(count);
    this.height = 0;
    const path = [], taken = [];
    for (let i = 0; i < count; i++) {
      const depth = view.nodes[4 * i];
      while (path.length > depth) this.end[path.pop()] = i;
      taken.length = depth + 1;
      const parent = path.length ? path[path.length - 1] : -1;
      this.depth[i] = depth;
      this.frame[i] = view.nodes[4 * i + 1];
      this.weight[i] = view.nodes[4 * i + 2];
      this.own[i] = view.nodes[4 * i + 3];
      this.parent[i] = parent;
      this.left[i] = parent < 0 ? 0 : taken[depth - 1];
      taken[depth] = this.left[i];
      if (parent >= 0) taken[depth - 1] += this.weight[i];
      this.height = Math.max(this.height, depth + 1);
      path.push(i);
    }
    while (path.length) this.end[path.pop()] = count;
  }

  name(i) { return this.frames[this.frame[i]][0]; }
  kind(i) { return this.frames[this.frame[i]][1]; }
  where(i) { const frame = this.frames[this.frame[i]]; return [frame[2], frame[3]].filter(Boolean).join(" · "); }

  /// From the root's child down to a node.
  path(i) {
    const path = [];
    for (; i > 0; i = this.parent[i]) path.unshift(i);
    return path;
  }

  children(i) {
    const children = [];
    for (let child = i + 1; child < this.end[i]; child = this.end[child]) children.push(child);
    return children;
  }

  /// The node that a path of names leads to, as far as it goes.
  follow(names) {
    let node = 0;
    for (const [name, kind] of names) {
      const next = this.children(node).find((child) => this.name(child) === name && this.kind(child) === kind);
      if (next === undefined) break;
      node = next;
    }
    return node;
  }

  /// Samples of the frames that `test` takes, a sample counted once; and the set of frames taken.
  match(test) {
    const frames = new Set();
    this.frames.forEach((frame, index) => { if (frame[1] > 2 && test(frame[0], frame[2])) frames.add(index); });
    let samples = 0;
    if (frames.size) {
      for (let i = 0; i < this.count;) {
        if (frames.has(this.frame[i])) { samples += this.weight[i]; i = this.end[i]; } else i++;
      }
    }
    return { frames, samples };
  }

  /// Functions with their samples: on top of the stack and anywhere in it, recursion counted once. Below `root`.
  functions(root) {
    const rows = new Map();
    const open = new Map();
    const path = [];
    for (let i = root; i < this.end[root]; i++) {
      while (path.length && this.end[path[path.length - 1]] <= i) {
        const frame = this.frame[path.pop()];
        open.set(frame, open.get(frame) - 1);
      }
      const frame = this.frame[i];
      if (this.frames[frame][1] > 2) {
        let row = rows.get(frame);
        if (!row) rows.set(frame, row = { frame, own: 0, weight: 0 });
        row.own += this.own[i];
        if (!open.get(frame)) row.weight += this.weight[i];
      }
      open.set(frame, (open.get(frame) || 0) + 1);
      path.push(i);
    }
    return [...rows.values()];
  }

  /// Samples by the kind of the frame on top of the stack. Below `root`.
  kinds(root) {
    const kinds = new Array(KINDS.length).fill(0);
    for (let i = root; i < this.end[root]; i++) kinds[this.kind(i)] += this.own[i];
    return kinds;
  }
}

function hash(text) {
  let value = 2166136261;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 16777619);
  return value >>> 0;
}

/// A name without type and call parameters: what stands in brackets that closes again is left out.
function plain(name) {
  let text = "", open = 0;
  for (const character of name.replace("(anonymous namespace)", "anonymous")) {
    if (character === "<" || character === "(") open++;
    if (!open) text += character;
    if ((character === ">" || character === ")") && open) open--;
  }
  text = text.replace(/ (const|volatile)?\s*&?&?$/, "").replace(/:::+/g, "::").replace(/^::|::$/g, "").trim();
  return open || !/\w/.test(text) ? name : text;
}

/// The colours of frames in the theme in force.
export class Palette {
  constructor() { this.read(); }

  read() {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    const parts = (name) => value(name).split(/\s+/).map(parseFloat);
    const process = parts("--frame-process");
    this.bases = [process, process, process, parts("--frame-kernel"), parts("--frame-native"), parts("--frame-interpreter"), parts("--frame-unnamed"), parts("--frame-stopped")];
    this.ink = value("--frame-ink");
    this.paper = value("--paper");
    this.sunk = value("--sunk");
    this.line = value("--line");
    this.text = value("--ink");
    this.soft = value("--soft");
    this.faint = value("--faint");
    this.sea = value("--sea");
    this.wash = value("--sea-wash");
    this.bar = value("--bar");
    this.kernelBar = value("--bar-kernel");
    this.match = value("--match");
    this.matchInk = value("--match-ink");
    this.known = new Map();
  }

  /// A frame's colour: its kind's, shifted a little by its module and name so that neighbours differ.
  frame([name, kind, module]) {
    const key = kind + "\0" + module + "\0" + name;
    let colour = this.known.get(key);
    if (colour) return colour;
    let [hue, saturation, light] = this.bases[kind];
    const shade = hash(name) % 7 - 3;
    if (kind === NATIVE) { hue += hash(module) % 68 - 24; light += shade * 1.1; }
    else if (kind === KERNEL) { hue += hash(name) % 13 - 6; light += shade; }
    else if (kind === INTERPRETER) { hue += hash(module) % 28 - 14; light += shade; }
    colour = `hsl(${hue} ${saturation}% ${light}%)`;
    if (this.known.size > 20000) this.known.clear();
    this.known.set(key, colour);
    return colour;
  }

  kind(kind) {
    const [hue, saturation, light] = this.bases[kind];
    return `hsl(${hue} ${saturation}% ${light}%)`;
  }
}

/// The canvas. `onZoom(node)`, `onHover(node, event)` tell the page; -1 is no node.
export class FlameGraph {
  constructor(container, palette, { onZoom, onHover }) {
    this.container = container;
    this.space = container.firstElementChild;
    this.canvas = this.space.firstElementChild;
    this.context = this.canvas.getContext("2d");
    this.palette = palette;
    this.onZoom = onZoom;
    this.onHover = onHover;
    this.tree = null;
    this.zoomed = 0;
    this.hovered = -1;
    this.chosen = -1;
    this.matches = null;
    this.flipped = false;
    this.view = [0, 1];
    this.widths = new Map();
    this.pending = 0;
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.resize()).observe(container);
    container.addEventListener("scroll", () => this.draw());
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", (event) => { this.hovered = -1; this.onHover(-1, event); this.draw(); });
    this.canvas.addEventListener("click", (event) => {
      const node = this.at(event);
      if (node >= 0) { this.chosen = node; this.zoom(node); }
    });
    this.canvas.addEventListener("blur", () => { this.chosen = -1; this.draw(); });
  }

  /// Shows a tree, zoomed to one of its nodes at once.
  show(tree, zoomed) {
    this.tree = tree;
    this.zoomed = zoomed;
    this.hovered = -1;
    this.chosen = -1;
    this.view = [tree.left[zoomed], tree.left[zoomed] + tree.weight[zoomed]];
    this.resize();
  }

  zoom(node) {
    const tree = this.tree;
    if (!tree || node < 0 || node >= tree.count) return;
    this.zoomed = node;
    this.onZoom(node);
    const from = this.view.slice();
    const to = [tree.left[node], tree.left[node] + tree.weight[node]];
    cancelAnimationFrame(this.animation);
    if (this.still.matches) { this.view = to; this.resize(); return; }
    const started = performance.now();
    const step = (now) => {
      const part = Math.min(1, Math.max(0, (now - started) / 180));
      const eased = 1 - (1 - part) ** 3;
      this.view = [from[0] + (to[0] - from[0]) * eased, from[1] + (to[1] - from[1]) * eased];
      this.paint();
      if (part < 1) this.animation = requestAnimationFrame(step);
      else this.resize();
    };
    this.animation = requestAnimationFrame(step);
  }

  search(matches) { this.matches = matches; this.draw(); }

  flip(flipped) { this.flipped = flipped; this.resize(); if (flipped) this.container.scrollTop = this.container.scrollHeight; else this.container.scrollTop = 0; }

  resize() {
    const width = this.container.clientWidth, height = this.container.clientHeight;
    if (!width || !height) return;
    const scale = devicePixelRatio || 1;
    this.rows = this.tree ? this.visibleHeight() : 0;
    this.space.style.height = Math.max(height, this.rows * ROW + 4) + "px";
    // The scroll bar may have come or gone.
    this.width = this.container.clientWidth;
    this.height = height;
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.width = this.width + "px";
    this.canvas.style.height = height + "px";
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.paint();
  }

  /// Rows of what is in view.
  visibleHeight() {
    let deepest = 0;
    this.visit((node) => { deepest = Math.max(deepest, this.tree.depth[node]); });
    return deepest + 1;
  }

  /// Calls `see(node, x, width)` for each node in view that is wide enough.
  visit(see) {
    const tree = this.tree, [from, to] = this.view;
    const scale = (this.width || this.container.clientWidth) / Math.max(to - from, 1e-9);
    for (let i = 0; i < tree.count;) {
      const left = Math.max(tree.left[i], from), right = Math.min(tree.left[i] + tree.weight[i], to);
      const width = (right - left) * scale;
      if (width < LEAST_WIDTH) { i = tree.end[i]; continue; }
      see(i, (left - from) * scale, width);
      i++;
    }
  }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.paint(); });
  }

  top(depth) {
    const y = this.flipped ? Math.max(this.height, this.rows * ROW + 4) - (depth + 1) * ROW : depth * ROW;
    return y - this.container.scrollTop;
  }

  paint() {
    const context = this.context, tree = this.tree;
    if (!this.width) return;
    context.clearRect(0, 0, this.width, this.height);
    if (!tree || !tree.total) return;
    context.font = `${FONT}px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif`;
    context.textBaseline = "middle";
    const zoomDepth = tree.depth[this.zoomed];
    this.visit((node, x, width) => {
      const y = this.top(tree.depth[node]);
      if (y > this.height || y + ROW < 0) return;
      const kind = tree.kind(node);
      const frame = tree.frames[tree.frame[node]];
      const matched = this.matches && this.matches.has(tree.frame[node]);
      const above = tree.depth[node] < zoomDepth;
      context.globalAlpha = this.matches && !matched ? 0.25 : above ? 0.4 : 1;
      context.fillStyle = kind === 0 ? this.palette.sunk : matched ? this.palette.match : this.palette.frame(frame);
      const gap = width > 3 ? 1 : 0;
      context.fillRect(x, y, width - gap, ROW - 1);
      if (kind === STOPPED && width > 6) this.hatch(x, y, width - gap);
      if (width > 30) {
        const onPaper = kind === 0 || above || (this.matches && !matched);
        context.fillStyle = matched ? this.palette.matchInk : onPaper ? this.palette.text : this.palette.ink;
        if (onPaper && !matched) context.globalAlpha = 0.75;
        const label = this.fit(frame[0], width - 10);
        if (label) context.fillText(label, x + 5, y + ROW / 2);
      }
    });
    context.globalAlpha = 1;
    this.outline(this.chosen, this.palette.sea, 2.5);
    if (this.hovered !== this.chosen) this.outline(this.hovered, this.palette.text, 1.5);
  }

  hatch(x, y, width) {
    const context = this.context;
    context.save();
    context.beginPath();
    context.rect(x, y, width, ROW - 1);
    context.clip();
    context.strokeStyle = "rgb(140 20 50 / 22%)";
    context.lineWidth = 2;
    context.beginPath();
    for (let at = x - ROW; at < x + width; at += 8) { context.moveTo(at, y + ROW); context.lineTo(at + ROW, y); }
    context.stroke();
    context.restore();
  }

  outline(node, colour, thickness) {
    if (node < 0 || node >= this.tree.count) return;
    const [from, to] = this.view, tree = this.tree, scale = this.width / (to - from);
    const left = Math.max(tree.left[node], from), right = Math.min(tree.left[node] + tree.weight[node], to);
    if (right <= left) return;
    this.context.strokeStyle = colour;
    this.context.lineWidth = thickness;
    this.context.strokeRect((left - from) * scale + 0.5, this.top(tree.depth[node]) + 0.5, Math.max(1, (right - left) * scale - 2), ROW - 2);
  }

  measure(text) {
    let width = this.widths.get(text);
    if (width === undefined) {
      width = this.context.measureText(text).width;
      if (this.widths.size > 30000) this.widths.clear();
      this.widths.set(text, width);
    }
    return width;
  }

  /// As much of a name as fits: whole, then without parameters, then without outer namespaces, then its beginning.
  fit(name, width) {
    if (name.length > 400) name = name.slice(0, 400) + "…";
    if (this.measure(name) <= width) return name;
    const short = plain(name);
    if (this.measure(short) <= width) return short;
    const parts = short.split("::");
    for (let from = 1; from < parts.length; from++) {
      const tail = "…" + parts.slice(from).join("::");
      if (this.measure(tail) <= width) return tail;
    }
    const last = parts[parts.length - 1];
    let low = 0, high = last.length;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.measure(last.slice(0, middle) + "…") <= width) low = middle; else high = middle - 1;
    }
    return low > 2 ? last.slice(0, low) + "…" : "";
  }

  at(event) {
    const tree = this.tree;
    if (!tree || !tree.total) return -1;
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    const depth = this.flipped
      ? Math.floor((Math.max(this.height, this.rows * ROW + 4) - y - this.container.scrollTop) / ROW)
      : Math.floor((y + this.container.scrollTop) / ROW);
    let found = -1;
    this.visit((node, left, width) => { if (tree.depth[node] === depth && x >= left && x < left + width) found = node; });
    return found;
  }

  hover(event) {
    const node = this.at(event);
    this.onHover(node, event);
    if (node !== this.hovered) { this.hovered = node; this.draw(); }
  }

  /// Moves the chosen frame by an arrow key; returns it.
  step(key) {
    const tree = this.tree;
    if (!tree || !tree.total) return -1;
    const inward = this.flipped ? "ArrowUp" : "ArrowDown", outward = this.flipped ? "ArrowDown" : "ArrowUp";
    let next = this.chosen;
    if (next < 0) next = this.zoomed;
    else if (key === inward) next = next + 1 < tree.end[next] ? next + 1 : next;
    else if (key === outward) next = Math.max(0, tree.parent[next]);
    else {
      const depth = tree.depth[next], step = key === "ArrowRight" ? 1 : -1;
      for (let i = next + step; i >= 0 && i < tree.count; i += step) if (tree.depth[i] === depth) { next = i; break; }
    }
    this.chosen = next;
    const y = this.top(tree.depth[next]);
    if (y < 0) this.container.scrollTop += y - ROW;
    else if (y > this.height - ROW) this.container.scrollTop += y - this.height + 2 * ROW;
    this.draw();
    return next;
  }

  /// Where a node is on the screen.
  place(node) {
    const box = this.canvas.getBoundingClientRect(), [from, to] = this.view;
    const left = Math.max(this.tree.left[node], from);
    return { clientX: box.left + (left - from) * this.width / (to - from) + 12, clientY: box.top + this.top(this.tree.depth[node]) + ROW - 4 };
  }
}
