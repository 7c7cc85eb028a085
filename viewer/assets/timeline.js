// The last windows as bars: how busy the machine was, how much of it in the kernel. A click or drag chooses windows.

const FOOT = 15;

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/// A time of day.
export function timeOf(millis) { return clock.format(new Date(millis)); }

/// `onChoose(first, last)` gives indices of the windows shown.
export class Timeline {
  constructor(container, palette, onChoose) {
    this.container = container;
    this.canvas = container.querySelector("canvas");
    this.tip = container.querySelector(".tip");
    this.context = this.canvas.getContext("2d");
    this.palette = palette;
    this.onChoose = onChoose;
    this.windows = [];
    this.chosen = [-1, -1];
    this.hovered = -1;
    this.dragged = null;
    new ResizeObserver(() => this.draw()).observe(container);
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.windows.length) return;
      this.canvas.setPointerCapture(event.pointerId);
      const at = this.at(event);
      this.dragged = [at, at];
      this.draw();
    });
    this.canvas.addEventListener("pointermove", (event) => {
      this.hovered = this.at(event);
      if (this.dragged) this.dragged[1] = this.hovered;
      this.say(event);
      this.draw();
    });
    const drop = () => {
      if (!this.dragged) return;
      const [a, b] = this.dragged;
      this.dragged = null;
      this.onChoose(Math.min(a, b), Math.max(a, b));
    };
    this.canvas.addEventListener("pointerup", drop);
    this.canvas.addEventListener("pointercancel", () => { this.dragged = null; this.draw(); });
    this.canvas.addEventListener("pointerleave", () => { this.hovered = -1; this.tip.hidden = true; this.draw(); });
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || !this.windows.length) return;
      event.preventDefault();
      event.stopPropagation();
      let [first, last] = this.chosen;
      if (event.shiftKey) { if (step < 0) first -= 1; else last += 1; }
      else { first = last = (step < 0 ? first : last) + step; }
      const most = this.windows.length - 1;
      const within = (index) => Math.min(most, Math.max(0, index));
      this.onChoose(within(first), within(last));
    });
  }

  show(windows, chosen) {
    this.windows = windows;
    this.chosen = chosen;
    this.draw();
  }

  /// CPUs kept busy in a window.
  static busy(window) {
    const summary = window.summary;
    return summary && summary.duration_nanos ? summary.samples * summary.period_nanos / summary.duration_nanos : 0;
  }

  slot() { return this.width / Math.max(this.windows.length, 40); }

  left(index) { return this.width - (this.windows.length - index) * this.slot(); }

  at(event) {
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    const index = Math.floor((x - this.left(0)) / this.slot());
    return Math.min(this.windows.length - 1, Math.max(0, index));
  }

  say(event) {
    const window = this.windows[this.hovered];
    if (!window) { this.tip.hidden = true; return; }
    const summary = window.summary;
    this.tip.textContent = summary
      ? `${timeOf(window.start)} · ${summary.samples.toLocaleString()} samples · ${Timeline.busy(window).toFixed(2)} CPUs busy · ${Math.round(100 * summary.kernel / Math.max(1, summary.samples))} % kernel`
      : `${timeOf(window.start)} · cannot be read`;
    this.tip.hidden = false;
    const box = this.container.getBoundingClientRect();
    const x = event.clientX - box.left;
    this.tip.style.left = Math.max(0, Math.min(box.width - this.tip.offsetWidth, x - this.tip.offsetWidth / 2)) + "px";
  }

  draw() {
    const context = this.context, palette = this.palette, scale = devicePixelRatio || 1;
    this.width = this.container.clientWidth;
    const whole = this.container.clientHeight, height = whole - FOOT;
    if (!this.width) return;
    this.canvas.width = Math.round(this.width * scale);
    this.canvas.height = Math.round(whole * scale);
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.fillStyle = palette.sunk;
    context.fillRect(0, 0, this.width, height);
    if (!this.windows.length) return;
    const slot = this.slot();
    const most = Math.max(0.05, ...this.windows.map(Timeline.busy));
    const [first, last] = this.dragged ? [Math.min(...this.dragged), Math.max(...this.dragged)] : this.chosen;
    if (first >= 0) {
      context.fillStyle = palette.wash;
      context.fillRect(this.left(first), 0, (last - first + 1) * slot, height);
    }
    context.font = "11px system-ui, -apple-system, sans-serif";
    context.textBaseline = "alphabetic";
    let labelled = -1e9;
    this.windows.forEach((window, index) => {
      const x = this.left(index), bar = Math.max(1, slot - (slot > 4 ? 1.5 : 0.5));
      const inside = index >= first && index <= last;
      const full = (height - 6) * Timeline.busy(window) / most;
      const kernel = window.summary ? full * window.summary.kernel / Math.max(1, window.summary.samples) : 0;
      context.globalAlpha = inside || index === this.hovered ? 1 : 0.62;
      context.fillStyle = palette.kind(4);
      context.fillRect(x, height - full, bar, full - kernel);
      context.fillStyle = palette.kind(3);
      context.fillRect(x, height - kernel, bar, kernel);
      context.globalAlpha = 1;
      if (!window.summary) { context.fillStyle = palette.faint; context.fillRect(x, height - 3, bar, 3); }
      const before = this.windows[index - 1];
      const length = window.summary ? window.summary.duration_nanos / 1e6 : 10000;
      if (before && window.start - before.start > 2.5 * length) {
        context.fillStyle = palette.faint;
        for (let y = 2; y < height; y += 6) context.fillRect(x - 1, y, 1, 3);
      }
      const label = minute.format(new Date(window.start));
      const turn = !before || minute.format(new Date(before.start)) !== label;
      if (turn && x - labelled > 64 && x < this.width - 34) {
        labelled = x;
        context.fillStyle = palette.faint;
        context.fillText(label, x, whole - 2);
        context.fillRect(x, height, 1, 3);
      }
    });
    if (first >= 0) {
      context.fillStyle = palette.sea;
      context.fillRect(this.left(first), height, (last - first + 1) * slot, 2);
    }
    context.fillStyle = palette.soft;
    context.textBaseline = "top";
    const text = `${most.toFixed(most < 10 ? 1 : 0)} CPUs`;
    context.fillText(text, 6, 4);
  }
}
