// Zoom and search of the flame graph. Reads names only as text, never as markup.
"use strict";
window.addEventListener("DOMContentLoaded", function () {
  const svg = document.documentElement;
  const number = (name) => Number(svg.dataset[name]);
  const total = number("total"), margin = number("margin"), character = number("character");
  const room = svg.viewBox.baseVal.width - 2 * margin;
  const byId = (id) => document.getElementById(id);
  const details = byId("details"), matched = byId("matched"), reset = byId("reset");
  const boxes = Array.from(byId("frames").children, (group) => ({
    group,
    start: Number(group.dataset.start),
    value: Number(group.dataset.value),
    title: group.querySelector("title").textContent,
    rect: group.querySelector("rect"),
    text: group.querySelector("text"),
    name: group.querySelector("text").dataset.name,
    y: Number(group.querySelector("rect").getAttribute("y")),
  }));
  const all = boxes[0];
  let zoomed = all;
  let pattern = null;

  function fitting(name, width) {
    const characters = Array.from(name);
    const fit = Math.floor((width - 6) / character);
    if (characters.length <= fit) return name;
    return fit < 3 ? "" : characters.slice(0, fit - 2).join("") + "..";
  }

  function zoom(target) {
    zoomed = target;
    const end = target.start + target.value;
    const scale = room / Math.max(target.value, 1);
    for (const box of boxes) {
      const above = box.y < target.y && box.start <= target.start && box.start + box.value >= end;
      const within = box.y >= target.y && box.start >= target.start && box.start + box.value <= end;
      box.group.classList.toggle("hidden", !above && !within);
      box.group.classList.toggle("above", above);
      if (!above && !within) continue;
      const x = above ? margin : margin + (box.start - target.start) * scale;
      const width = above ? room : box.value * scale;
      box.rect.setAttribute("x", x);
      box.rect.setAttribute("width", width);
      box.text.setAttribute("x", x + 3);
      box.text.textContent = fitting(box.name, width);
    }
    reset.setAttribute("visibility", target === all ? "hidden" : "visible");
    count();
  }

  // Stacks in a found box count once, however many found boxes are above each other.
  function count() {
    if (!pattern) {
      matched.textContent = " ";
      return;
    }
    let sum = 0, covered = -Infinity;
    boxes
      .filter((box) => box.group.classList.contains("found") && !box.group.classList.contains("hidden"))
      .map((box) => {
        const start = Math.max(box.start, zoomed.start);
        return [start, Math.min(box.start + box.value, zoomed.start + zoomed.value)];
      })
      .sort((left, right) => left[0] - right[0])
      .forEach(([start, end]) => {
        sum += Math.max(0, end - Math.max(start, covered));
        covered = Math.max(covered, end);
      });
    matched.textContent = "Found: " + (100 * sum / Math.max(zoomed.value, 1)).toFixed(1) + " %";
  }

  function search(term) {
    try {
      pattern = term ? new RegExp(term, "i") : null;
    } catch (error) {
      pattern = null;
      matched.textContent = "Not a regular expression";
      return;
    }
    for (const box of boxes) {
      box.group.classList.toggle("found", Boolean(pattern) && pattern.test(box.name));
    }
    count();
  }

  function ask() {
    const term = window.prompt("Search for a function (regular expression, empty to clear)", pattern ? pattern.source : "");
    if (term !== null) search(term);
  }

  for (const box of boxes) {
    box.group.addEventListener("click", () => zoom(box));
    box.group.addEventListener("mouseenter", () => { details.textContent = box.title; });
    box.group.addEventListener("mouseleave", () => { details.textContent = " "; });
  }
  reset.addEventListener("click", () => zoom(all));
  byId("search").addEventListener("click", ask);
  window.addEventListener("keydown", function (event) {
    if (event.key === "Escape") {
      zoom(all);
      search("");
    } else if (event.key === "/" || ((event.ctrlKey || event.metaKey) && event.key === "f")) {
      event.preventDefault();
      ask();
    }
  });
});
