"use strict";
(() => {
  const form = document.querySelector(".filters");
  if (!form) return;
  const grid = document.querySelector(".cards");
  const leastSureFirst = [...grid.children];
  const facts = new Map(leastSureFirst.map((card) => [card, {
    row: Number(card.dataset.row),
    file: card.dataset.file.toLowerCase(),
    probabilities: JSON.parse(card.dataset.probabilities),
    decisions: JSON.parse(card.dataset.decisions),
  }]));
  const field = (name) => form.elements.namedItem(name);
  const value = (name) => field(name).value;

  const matches = (card) => {
    const { file, decisions } = facts.get(card);
    const [material, decision] = [value("material"), value("decision")];
    const asked = material === "" ? decisions : [decisions[material]];
    const decided = decision === "" || (decision === "yes" ? asked.some((yes) => yes) : asked.every((yes) => !yes));
    return decided && file.includes(value("file").toLowerCase());
  };
  const probability = (card) => {
    const { probabilities } = facts.get(card);
    return value("material") === "" ? Math.max(...probabilities) : probabilities[value("material")];
  };
  const keys = {
    "name": (card) => facts.get(card).row,
    "probable": (card) => -probability(card),
    "improbable": probability,
  };

  const arrange = () => {
    const key = keys[value("sort")];
    const order = key ? [...leastSureFirst].sort((a, b) => key(a) - key(b)) : leastSureFirst;
    if (order.some((card, place) => card !== grid.children[place])) grid.append(...order);
    let shown = 0;
    for (const card of order) {
      card.hidden = !matches(card);
      shown += card.hidden ? 0 : 1;
    }
    form.querySelector("output").textContent = `${shown} of ${order.length} shown`;
    document.querySelector(".nothing").hidden = shown > 0;
    const evidence = field("evidence");
    document.body.classList.toggle("without-evidence", Boolean(evidence) && !evidence.checked);
  };
  form.addEventListener("input", arrange);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(arrange));

  // One photo, large: a copy of its card's picture.
  const dialog = document.querySelector("dialog");
  let enlarged = null;
  const enlarge = (card) => {
    enlarged = card;
    const copy = document.createElement("div");
    copy.className = "frame";
    copy.append(...[...card.querySelector(".frame").children].map((child) => child.cloneNode(true)));
    copy.style.setProperty("--ratio", card.style.getPropertyValue("--ratio"));
    dialog.querySelector("h2").textContent = card.dataset.file;
    dialog.querySelector(".enlarged-caption").replaceChildren(card.querySelector(".answers").cloneNode(true));
    dialog.querySelector(".stage").replaceChildren(copy);
    if (!dialog.open) dialog.showModal();
  };
  const visible = () => [...grid.children].filter((card) => !card.hidden);
  const step = (by) => {
    const cards = visible();
    enlarge(cards[(cards.indexOf(enlarged) + by + cards.length) % cards.length]);
  };
  grid.addEventListener("click", (event) => {
    const frame = event.target.closest(".frame");
    if (frame) enlarge(frame.closest(".card"));
  });
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.target === dialog || button?.hasAttribute("data-close")) dialog.close();
    else if (button?.dataset.step) step(Number(button.dataset.step));
  });
  dialog.addEventListener("close", () => enlarged?.querySelector(".frame").focus());

  const move = (by) => {
    const cards = visible();
    const place = cards.indexOf(document.activeElement.closest?.(".card"));
    const next = place < 0
      ? cards.find((card) => card.getBoundingClientRect().bottom > form.offsetHeight)
      : cards[Math.min(cards.length - 1, Math.max(0, place + by))];
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
    if (event.target.closest?.("select, input[type=search]")) return;
    const inCard = Boolean(event.target.closest?.(".card"));
    if (event.key === "j" || (inCard && event.key === "ArrowDown")) move(1);
    else if (event.key === "k" || (inCard && event.key === "ArrowUp")) move(-1);
    else if (event.key === "e" && field("evidence")) { field("evidence").checked = !field("evidence").checked; arrange(); }
    else return;
    event.preventDefault();
  });

  form.hidden = false;
  arrange();
})();
