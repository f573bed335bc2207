"use strict";
(() => {
  const form = document.querySelector(".filters");
  if (!form) return;
  const grid = document.querySelector(".cards");
  const inFileOrder = [...grid.children];
  const facts = new Map(inFileOrder.map((card) => [card, {
    material: card.dataset.material,
    outcome: card.dataset.outcome,
    probability: Number(card.dataset.probability),
    energies: JSON.parse(card.dataset.energies),
  }]));
  const field = (name) => form.elements.namedItem(name);
  const value = (name) => field(name)?.value ?? "";
  const ticked = (name) => Boolean(field(name)?.checked);
  const energyOf = (card) => facts.get(card).energies[value("method")];

  const matches = (card) => {
    const { material, outcome } = facts.get(card);
    return (!value("material") || material === value("material"))
      && (!value("outcome") || outcome === value("outcome"))
      && (!ticked("misplaced") || (outcome === "right" && energyOf(card) < 1));
  };

  // Cards without a known energy come last in either order.
  const keys = {
    "probability": (card) => -facts.get(card).probability,
    "energy-up": (card) => energyOf(card) ?? Infinity,
    "energy-down": (card) => -(energyOf(card) ?? -Infinity),
  };
  const sorted = () => {
    const key = keys[value("sort")];
    return key ? [...inFileOrder].sort((a, b) => (key(a) === key(b) ? 0 : key(a) - key(b))) : inFileOrder;
  };

  const arrange = () => {
    const order = sorted();
    if (order.some((card, place) => card !== grid.children[place])) grid.append(...order);
    let shown = 0;
    for (const card of order) {
      card.hidden = !matches(card);
      shown += card.hidden ? 0 : 1;
    }
    form.querySelector("output").textContent = `${shown} of ${order.length} shown`;
    document.querySelector(".nothing").hidden = shown > 0;
  };

  const paint = () => {
    document.documentElement.style.setProperty("--opacity", Number(value("opacity")) / 100);
    document.body.classList.toggle("without-outlines", !ticked("outlines"));
  };

  form.addEventListener("change", () => { arrange(); paint(); });
  form.addEventListener("input", (event) => { if (event.target.name === "opacity") paint(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { arrange(); paint(); }));

  // One picture, large: a copy of its tile.
  const dialog = document.querySelector("dialog");
  const stage = dialog.querySelector(".stage");
  let enlarged = null;
  const enlarge = (frame) => {
    enlarged = frame;
    const copy = document.createElement("div");
    copy.className = frame.className;
    copy.append(...[...frame.children].map((child) => child.cloneNode(true)));
    copy.style.setProperty("--ratio", frame.closest(".card").style.getPropertyValue("--ratio"));
    const image = copy.querySelector("img");
    const title = image ? image.alt : frame.getAttribute("aria-label");
    if (image) image.alt = "";
    copy.setAttribute("role", "img");
    copy.setAttribute("aria-label", title);
    dialog.querySelector("h2").textContent = title;
    const caption = frame.closest("figure").querySelector("figcaption");
    dialog.querySelector(".enlarged-caption").replaceChildren(caption.cloneNode(true));
    stage.replaceChildren(copy);
    if (!dialog.open) dialog.showModal();
  };
  const step = (by) => {
    const frames = [...enlarged.closest(".card").querySelectorAll(".frame")];
    enlarge(frames[(frames.indexOf(enlarged) + by + frames.length) % frames.length]);
  };
  grid.addEventListener("click", (event) => {
    const frame = event.target.closest(".frame");
    if (frame) enlarge(frame);
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.target === dialog || button?.hasAttribute("data-close")) dialog.close();
    else if (button?.dataset.step) step(Number(button.dataset.step));
  });
  dialog.addEventListener("close", () => enlarged?.focus());

  const move = (by) => {
    const shown = [...grid.children].filter((card) => !card.hidden);
    const here = document.activeElement.closest?.(".card");
    const place = shown.indexOf(here);
    const next = place < 0
      ? shown.find((card) => card.getBoundingClientRect().bottom > form.offsetHeight)
      : shown[Math.min(shown.length - 1, Math.max(0, place + by))];
    if (!next) return;
    next.focus({ preventScroll: true });
    const sticky = getComputedStyle(form).position === "sticky";
    grid.style.setProperty("--covered", `${sticky ? form.offsetHeight : 0}px`);
    next.scrollIntoView({ block: "start" });
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (dialog.open) {
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
      return;
    }
    if (event.target.closest?.("select, input[type=range]")) return;
    const inCard = Boolean(event.target.closest?.(".card"));
    if (event.key === "j" || (inCard && event.key === "ArrowDown")) move(1);
    else if (event.key === "k" || (inCard && event.key === "ArrowUp")) move(-1);
    else if (event.key === "o") { field("outlines").checked = !ticked("outlines"); paint(); }
    else return;
    event.preventDefault();
  });

  form.hidden = false;
  arrange(); paint();
})();
