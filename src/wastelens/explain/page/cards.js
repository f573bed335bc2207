"use strict";
// What pages of cards share: filters and order, one picture large, moving by keyboard.
// A page gives: matches(card); key(), which returns a function of a card to sort by, or nothing for the first order;
// caption(dialog, frame, copy); neighbours(frame), through which the large picture is paged; paint(), whatever else its
// fields change; toggle, a key and the name of the checkbox that it ticks.
function pageOfCards(own) {
  const form = document.querySelector(".filters");
  const grid = document.querySelector(".cards");
  const dialog = document.querySelector("dialog");
  const firstOrder = [...grid.children];

  const arrange = () => {
    const key = own.key();
    const order = key ? [...firstOrder].sort((a, b) => (key(a) === key(b) ? 0 : key(a) - key(b))) : firstOrder;
    if (order.some((card, place) => card !== grid.children[place])) grid.append(...order);
    let shown = 0;
    for (const card of order) {
      card.hidden = !own.matches(card);
      shown += card.hidden ? 0 : 1;
    }
    form.querySelector("output").textContent = `${shown} of ${order.length} shown`;
    document.querySelector(".nothing").hidden = shown > 0;
    own.paint();
  };
  form.addEventListener("change", arrange);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(arrange));

  let enlarged = null;
  const enlarge = (frame) => {
    enlarged = frame;
    const copy = document.createElement("div");
    copy.className = frame.className;
    copy.append(...[...frame.children].map((child) => child.cloneNode(true)));
    copy.style.setProperty("--ratio", frame.closest(".card").style.getPropertyValue("--ratio"));
    own.caption(dialog, frame, copy);
    dialog.querySelector(".stage").replaceChildren(copy);
    if (!dialog.open) dialog.showModal();
  };
  const step = (by) => {
    const frames = own.neighbours(enlarged);
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

  const visible = () => [...grid.children].filter((card) => !card.hidden);
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
    if (event.target.closest?.("select, textarea, input[type=range], input[type=search]")) return;
    const inCard = Boolean(event.target.closest?.(".card"));
    const box = event.key === own.toggle[0] ? form.elements.namedItem(own.toggle[1]) : null;
    if (event.key === "j" || (inCard && event.key === "ArrowDown")) move(1);
    else if (event.key === "k" || (inCard && event.key === "ArrowUp")) move(-1);
    else if (box) { box.checked = !box.checked; own.paint(); }
    else return;
    event.preventDefault();
  });

  form.hidden = false;
  arrange();
  return { arrange, visible, move };
}
