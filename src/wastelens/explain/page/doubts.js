(() => {
  const form = document.querySelector(".filters");
  if (!form) return;
  const cards = [...document.querySelector(".cards").children];
  const field = (name) => form.elements.namedItem(name);
  const ticked = (name) => Boolean(field(name)?.checked);
  const identity = (file, material) => JSON.stringify([file, material]);
  const cardOf = new Map(cards.map((card) => [identity(card.dataset.file, card.dataset.name), card]));
  // Rows about labels without an answer here: those that the dataset was prepared with, and those of a loaded file.
  let others = JSON.parse(document.body.dataset.earlier);
  const said = document.querySelector(".saved");
  const text = document.querySelector(".as-text textarea");

  // In a sandboxed frame, even asking for the storage throws.
  const storage = (() => { try { return window.localStorage; } catch { return null; } })();
  const key = `wastelens labels ${document.body.dataset.key}`;

  // A spreadsheet takes a cell that begins like this for a formula; Wastelens takes the apostrophe off again.
  const cell = (value) => `"${(/^'*[=+\-@\t\r]/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;
  const plain = (value) => (/^'+[=+\-@\t\r]/.test(value) ? value.slice(1) : value);
  const header = ["file_name", "material", "label", "answer"];

  const rows = () => [
    ...cards.filter((card) => card.dataset.answer).map((card) => {
      const { file, name, label, answer } = card.dataset;
      return [file, name, answer === "wrong" ? String(1 - Number(label)) : label, answer];
    }),
    ...others.filter(([file, name]) => !cardOf.get(identity(file, name))?.dataset.answer),
  ];
  const csv = () => [header, ...rows()].map((row) => row.map(cell).join(",") + "\n").join("");

  const changed = () => {
    const answered = cards.filter((card) => card.dataset.answer);
    const wrong = answered.filter((card) => card.dataset.answer === "wrong").length;
    const more = others.length ? `, and ${others.length} earlier rows` : "";
    said.textContent = `${answered.length} of ${cards.length} answered, ${wrong} wrong${more}`;
    text.value = csv();
    try { storage?.setItem(key, text.value); } catch { /* full: the answers stay in the page */ }
  };
  const show = (card, answer) => {
    if (answer) card.dataset.answer = answer;
    else delete card.dataset.answer;
    for (const button of card.querySelectorAll(".answers-given button")) {
      button.setAttribute("aria-pressed", String(button.dataset.answer === answer));
    }
  };

  const parsed = (source) => {
    const found = [[""]];
    let quoted = false;
    for (let at = 0; at < source.length; at += 1) {
      const row = found[found.length - 1];
      const letter = source[at];
      if (quoted && letter === '"' && source[at + 1] === '"') { row[row.length - 1] += '"'; at += 1; }
      else if (letter === '"') quoted = !quoted;
      else if (!quoted && letter === ",") row.push("");
      else if (!quoted && letter === "\n") found.push([""]);
      else if (quoted || letter !== "\r") row[row.length - 1] += letter;
    }
    return found.filter((row) => row.length > 1);
  };
  // Returns what is wrong with the file, or nothing.
  const load = (source) => {
    const [names, ...lines] = parsed(source.replace(/^\ufeff/, ""));
    const places = header.map((name) => (names ?? []).indexOf(name));
    if (places.slice(0, 3).includes(-1)) return `This is no corrections.csv: it needs the columns ${header.slice(0, 3).join(", ")}.`;
    const read = lines.map((line) => places.map((place) => plain(line[place] ?? "")));
    if (read.some((row) => !["0", "1"].includes(row[2]))) return "This is no corrections.csv: a label is neither 0 nor 1.";
    const unknown = [];
    for (const row of read) {
      const card = cardOf.get(identity(row[0], row[1]));
      const answer = row[3] === "unsure" ? "unsure" : row[2] === card?.dataset.label ? "right" : "wrong";
      if (card) show(card, answer);
      else unknown.push([row[0], row[1], row[2], row[3]]);
    }
    const replaced = new Set(unknown.map((row) => identity(row[0], row[1])));
    others = [...others.filter((row) => !replaced.has(identity(row[0], row[1]))), ...unknown];
    changed();
    return "";
  };

  const matches = (card) => {
    const { material, kind, answer } = card.dataset;
    const [wantedMaterial, wantedKind, wanted] = ["material", "kind", "answer"].map((name) => field(name).value);
    return (wantedMaterial === "" || material === wantedMaterial) && (wantedKind === "" || kind === wantedKind)
      && (wanted === "" || (answer ?? "none") === wanted);
  };
  const paint = () => {
    document.body.classList.toggle("without-outlines", !ticked("outlines"));
    document.body.classList.toggle("without-evidence", !ticked("evidence"));
  };
  const caption = (dialog, frame) => {
    const card = frame.closest(".card");
    dialog.querySelector("h2").textContent = card.dataset.file;
    const about = [card.querySelector(".question"), card.querySelector(".answers")];
    dialog.querySelector(".enlarged-caption").replaceChildren(...about.map((one) => one.cloneNode(true)));
  };
  const neighbours = () => page.visible().map((card) => card.querySelector(".frame"));
  const page = pageOfCards({ matches, key: () => null, caption, neighbours, paint, toggle: ["o", "outlines"] });

  const answers = { r: "right", w: "wrong", u: "unsure", x: "" };
  const give = (card, answer) => { show(card, answer); changed(); };
  document.querySelector(".cards").addEventListener("click", (event) => {
    const button = event.target.closest(".answers-given button");
    if (!button) return;
    const card = button.closest(".card");
    give(card, card.dataset.answer === button.dataset.answer ? "" : button.dataset.answer);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog").open) return;
    if (event.target.closest?.("select, textarea, input[type=file]")) return;
    if (event.key === "e" && field("evidence")) {
      field("evidence").checked = !field("evidence").checked;
      paint();
      return;
    }
    const card = event.target.closest?.(".card");
    if (!card || !(event.key in answers)) return;
    give(card, answers[event.key]);
    if (answers[event.key]) page.move(1);
  });

  document.querySelector(".download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "corrections.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    if (storage === null) {
      document.querySelector(".as-text").open = true;
      said.textContent = "If no file was saved: this frame does not let pages save files. Copy the text below.";
    }
  });
  document.querySelector("input[type=file]").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    const problem = load(await file.text());
    if (problem) said.textContent = problem;
    event.target.value = "";  // so that the same file can be loaded again
  });

  const before = storage?.getItem(key);
  if (before) load(before);
  else changed();
})();
