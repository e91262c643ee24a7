"use strict";
const form = document.getElementById("filters");
if (form) {
  const examples = [...document.querySelectorAll(".example")];
  const apply = () => {
    const wanted = new FormData(form), label = wanted.get("label").toLowerCase();
    let count = 0;
    for (const example of examples) {
      let shown = ["task", "kind"].every((name) => !wanted.get(name) || example.dataset[name] === wanted.get(name));
      shown &&= example.dataset.label.toLowerCase().includes(label);
      const rankings = example.querySelectorAll(".ranking"), parts = rankings.length ? [...rankings] : [example];
      for (const part of parts) part.hidden = wanted.get("encoder") && part.dataset.encoder !== wanted.get("encoder");
      shown &&= parts.some(({ hidden, dataset }) => !hidden && (!wanted.get("result") || dataset.result.split(" ").includes(wanted.get("result"))));
      count += !(example.hidden = !shown);
    }
    form.querySelector("output").textContent = `${count} of ${examples.length}${count ? "" : ": no match"}`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
for (const box of document.querySelectorAll(".wide, .example ol")) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
const unfold = (hash) => {  // a link to a folded section opens it
  const target = document.getElementById(hash.slice(1));
  for (let fold = target?.querySelector(":scope > .fold") ?? target?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  return target;
};
addEventListener("hashchange", () => unfold(location.hash)?.scrollIntoView());
if (location.hash) unfold(location.hash)?.scrollIntoView();
addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  const target = unfold(link.hash);
  if (location.protocol !== "about:") return;  // in a frame with srcdoc, "#x" would load the parent page
  event.preventDefault();
  target?.scrollIntoView();
});
addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details:not(.reference)")) details.open = true; });
const dark = matchMedia("(prefers-color-scheme: dark)");
const map = document.querySelector(".map");
if (map) {
  const maps = JSON.parse(map.querySelector("script").textContent);
  const canvas = map.querySelector("canvas"), peek = map.querySelector(".peek"), tile = peek.querySelector("span");
  const legend = map.querySelector(".legend"), which = map.querySelector("select"), status = map.querySelector("output");
  const side = canvas.width, margin = 20, pen = canvas.getContext("2d");
  let shown, chosen = null, current = -1;  // the map, the name of the class that is seen alone, the number of the image
  const place = ([x, y]) => [margin + (x + 1) / 2 * (side - 2 * margin), margin + (1 - y) / 2 * (side - 2 * margin)];
  const isChosen = (point) => chosen === null || shown.names[point[2]] === chosen;
  const colour = (number) => `oklch(${dark.matches ? 75 : 55}% .15 ${number * 360 / shown.names.length})`;
  const draw = () => {
    pen.clearRect(0, 0, side, side);
    for (const point of chosen === null ? shown.points : [...shown.points, ...shown.points.filter(isChosen)]) {
      pen.fillStyle = isChosen(point) ? colour(point[2]) : "#8884";
      pen.beginPath();
      pen.arc(...place(point), 4, 0, 7);
      pen.fill();
    }
    for (const [number, button] of [...legend.children].entries()) {
      button.setAttribute("aria-pressed", shown.names[number] === chosen);
      button.firstChild.style.background = colour(number);
    }
  };
  const hide = () => {
    peek.hidden = true;
    draw();
  };
  const choose = (name) => {
    chosen = name === chosen ? null : name;
    draw();
  };
  const open = () => {
    shown = maps[which ? which.value : 0];
    if (!shown.names.includes(chosen)) chosen = null;
    current = -1;
    tile.className = `sheet-${shown.sheet}`;
    tile.style.width = tile.style.height = `${shown.tile}px`;
    status.textContent = "";
    legend.replaceChildren(...shown.names.map((name) => {
      const button = document.createElement("button"), dot = document.createElement("i");
      button.type = "button";
      button.append(dot, name);
      button.addEventListener("click", () => choose(name));
      return button;
    }));
    hide();
  };
  const show = (number) => {
    current = number;
    draw();
    const [x, y] = place(shown.points[number]), shrunk = canvas.clientWidth / side, { columns, tile: px } = shown;
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, 8, 0, 7);
    pen.stroke();
    tile.style.backgroundPosition = `-${number % columns * px}px -${Math.floor(number / columns) * px}px`;
    status.textContent = `${shown.names[shown.points[number][2]]}, ${shown.ids[number]}`;
    peek.hidden = false;
    peek.style.left = `${Math.min(x * shrunk + 12, canvas.clientWidth - 120)}px`;
    peek.style.top = `${y * shrunk + 12}px`;
  };
  const nearest = (x, y, among = () => true) => {
    let best = -1, least = Infinity;
    shown.points.forEach((point, number) => {
      const [px, py] = place(point), distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance < least && among(px - x, py - y, number)) [best, least] = [number, distance];
    });
    return [best, least];
  };
  for (const type of ["pointerdown", "pointermove"]) canvas.addEventListener(type, (event) => {
    const grown = side / canvas.clientWidth, [best, least] = nearest(event.offsetX * grown, event.offsetY * grown);
    if (least < 400) show(best); else hide();
  });
  canvas.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(); });
  canvas.addEventListener("blur", hide);
  dark.addEventListener("change", draw);
  which?.addEventListener("input", open);
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const direction = directions[event.key];
    if (!direction) return;
    event.preventDefault();
    if (current < 0) return show(0);
    const [x, y] = place(shown.points[current]);
    const [best] = nearest(x, y, (dx, dy, number) => number !== current && isChosen(shown.points[number])
      && dx * direction[0] + dy * direction[1] > Math.abs(dx * direction[1] + dy * direction[0]));
    if (best >= 0) show(best);
  });
  open();
}
