(() => {
  const form = document.querySelector(".filters");
  if (!form) return;
  const facts = new Map([...document.querySelector(".cards").children].map((card) => [card, {
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

  const paint = () => {
    document.documentElement.style.setProperty("--opacity", Number(value("opacity")) / 100);
    document.body.classList.toggle("without-outlines", !ticked("outlines"));
  };
  form.addEventListener("input", (event) => { if (event.target.name === "opacity") paint(); });

  const caption = (dialog, frame, copy) => {
    const image = copy.querySelector("img");
    const title = image ? image.alt : frame.getAttribute("aria-label");
    if (image) image.alt = "";
    copy.setAttribute("role", "img");
    copy.setAttribute("aria-label", title);
    dialog.querySelector("h2").textContent = title;
    const text = frame.closest("figure").querySelector("figcaption");
    dialog.querySelector(".enlarged-caption").replaceChildren(text.cloneNode(true));
  };
  const neighbours = (frame) => [...frame.closest(".card").querySelectorAll(".frame")];

  pageOfCards({ matches, key: () => keys[value("sort")], caption, neighbours, paint, toggle: ["o", "outlines"] });
})();
