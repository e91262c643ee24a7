"use strict";
const form = document.getElementById("filters");
if (form) {
  const examples = [...document.querySelectorAll(".example")];
  const apply = () => {
    const wanted = new FormData(form), label = wanted.get("label").toLowerCase();
    const matches = ({ dataset }) => ["task", "encoder", "kind"].every((name) => !wanted.get(name) || dataset[name] === wanted.get(name))
      && dataset.label.toLowerCase().includes(label) && (!wanted.get("result") || dataset.result.split(" ").includes(wanted.get("result")));
    let count = 0;
    for (const example of examples) count += !(example.hidden = !matches(example));
    form.querySelector("output").textContent = `${count} of ${examples.length}${count ? "" : ": no match"}`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
for (const box of document.querySelectorAll(".wide, .example ol")) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
if (location.protocol === "about:") addEventListener("click", (event) => {  // in a frame with srcdoc, "#x" would load the parent page
  const link = event.target.closest('a[href^="#"]');
  if (!link) return;
  event.preventDefault();
  document.getElementById(link.hash.slice(1))?.scrollIntoView();
});
addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details:not(.reference)")) details.open = true; });
const dark = matchMedia("(prefers-color-scheme: dark)");
for (const map of document.querySelectorAll(".map")) {
  const { points, names, ids } = JSON.parse(map.querySelector("script").textContent);
  const canvas = map.querySelector("canvas"), peek = map.querySelector(".peek"), tile = peek.querySelector("span");
  const side = canvas.width, margin = 20, pen = canvas.getContext("2d");
  const place = ([x, y]) => [margin + (x + 1) / 2 * (side - 2 * margin), margin + (1 - y) / 2 * (side - 2 * margin)];
  const only = map.querySelector("select"), isChosen = (point) => !only.value || point[2] === +only.value;
  const draw = () => {
    pen.clearRect(0, 0, side, side);
    for (const point of only.value ? [...points, ...points.filter(isChosen)] : points) {
      pen.fillStyle = isChosen(point) ? `oklch(${dark.matches ? 75 : 55}% .15 ${point[2] * 360 / names.length})` : "#8884";
      pen.beginPath();
      pen.arc(...place(point), 4, 0, 7);
      pen.fill();
    }
  };
  tile.style.width = tile.style.height = `${tile.dataset.tile}px`;
  only.append(...names.map((name, number) => new Option(name, number)));
  only.addEventListener("input", () => draw());
  let current = -1;
  const show = (number) => {
    current = number;
    draw();
    const [x, y] = place(points[number]), shrunk = canvas.clientWidth / side, columns = +tile.dataset.columns, px = +tile.dataset.tile;
    pen.strokeStyle = getComputedStyle(canvas).color;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, 8, 0, 7);
    pen.stroke();
    tile.style.backgroundPosition = `-${number % columns * px}px -${Math.floor(number / columns) * px}px`;
    map.querySelector("output").textContent = `${names[points[number][2]]}, ${ids[number]}`;
    peek.hidden = false;
    peek.style.left = `${Math.min(x * shrunk + 12, canvas.clientWidth - 120)}px`;
    peek.style.top = `${y * shrunk + 12}px`;
  };
  const hide = () => {
    peek.hidden = true;
    draw();
  };
  const nearest = (x, y, among = () => true) => {
    let best = -1, least = Infinity;
    points.forEach((point, number) => {
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
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const direction = directions[event.key];
    if (!direction) return;
    event.preventDefault();
    if (current < 0) return show(0);
    const [x, y] = place(points[current]);
    const [best] = nearest(x, y, (dx, dy, number) => number !== current && isChosen(points[number])
      && dx * direction[0] + dy * direction[1] > Math.abs(dx * direction[1] + dy * direction[0]));
    if (best >= 0) show(best);
  });
  draw();
}
