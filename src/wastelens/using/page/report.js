(() => {
  const form = document.querySelector(".filters");
  if (!form) return;
  const facts = new Map([...document.querySelector(".cards").children].map((card) => [card, {
    row: Number(card.dataset.row),
    file: card.dataset.file.toLowerCase(),
    probabilities: JSON.parse(card.dataset.probabilities),
    distance: Number(card.dataset.distance),
    unfamiliar: card.querySelector(".strange") !== null,
    decisions: JSON.parse(card.dataset.decisions),
  }]));
  const field = (name) => form.elements.namedItem(name);
  const value = (name) => field(name).value;

  const matches = (card) => {
    const { file, decisions, unfamiliar } = facts.get(card);
    const [material, decision] = [value("material"), value("decision")];
    const asked = material === "" ? decisions : [decisions[material]];
    const decided = decision === ""
      || (decision === "no" ? asked.every((one) => one === "no") : asked.includes(decision));
    return decided && (unfamiliar || !field("unfamiliar")?.checked) && file.includes(value("file").toLowerCase());
  };
  const probability = (card) => {
    const { probabilities } = facts.get(card);
    return value("material") === "" ? Math.max(...probabilities) : probabilities[value("material")];
  };
  const keys = {
    "name": (card) => facts.get(card).row,
    "probable": (card) => -probability(card),
    "improbable": probability,
    "unfamiliar": (card) => -facts.get(card).distance,
  };

  const paint = () => {
    const evidence = field("evidence");
    document.body.classList.toggle("without-evidence", Boolean(evidence) && !evidence.checked);
  };

  const caption = (dialog, frame) => {
    const card = frame.closest(".card");
    dialog.querySelector("h2").textContent = card.dataset.file;
    dialog.querySelector(".enlarged-caption").replaceChildren(card.querySelector(".answers").cloneNode(true));
  };
  const neighbours = () => page.visible().map((card) => card.querySelector(".frame"));

  const page = pageOfCards({
    matches, key: () => keys[value("sort")], caption, neighbours, paint, toggle: ["e", "evidence"],
  });
  form.addEventListener("input", page.arrange);  // while a file name is typed
})();
