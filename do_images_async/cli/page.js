"use strict";
(() => {
  const table = document.getElementById("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const search = document.getElementById("search");
  const rule = document.getElementById("rule");
  const chips = Array.from(document.querySelectorAll(".chip"));
  const count = document.getElementById("count");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const number = new Intl.NumberFormat("en-US");

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const severities = new Set(
      chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.severity),
    );
    let shown = 0;
    rows.forEach((row, place) => {
      const fits =
        severities.has(row.dataset.severity) &&
        (!rule.value || row.dataset.rule === rule.value) &&
        words.every((word) => texts[place].includes(word));
      row.hidden = !fits;
      if (fits) shown += 1;
    });
    count.textContent = `${number.format(shown)} of ${number.format(Number(count.dataset.total))} findings${count.dataset.note}`;
    document.getElementById("nothing").hidden = shown > 0;
  };

  const compare = (one, other) => {
    const difference = Number(one) - Number(other);
    return Number.isNaN(difference) ? one.localeCompare(other) : difference;
  };

  const sort = (button) => {
    const head = button.closest("th");
    const column = Number(button.dataset.column);
    const descending = head.getAttribute("aria-sort") !== "descending";
    for (const each of table.tHead.rows[0].cells) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.value;
    const sorted = rows.slice().sort((one, other) => compare(value(one), value(other)) * (descending ? -1 : 1));
    body.append(...sorted);
  };

  search.addEventListener("input", filter);
  rule.addEventListener("change", filter);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      filter();
    });
  }
  for (const button of table.tHead.querySelectorAll("button")) button.addEventListener("click", () => sort(button));
  filter(); // a reload may have kept what was typed
})();
