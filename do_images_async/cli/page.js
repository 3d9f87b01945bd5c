"use strict";
(() => {
  const table = document.getElementById("table");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const search = document.getElementById("search");
  const rule = document.getElementById("rule");
  const region = document.getElementById("region");
  const copied = document.getElementById("copied");
  const ids = document.getElementById("ids");
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
        (!region.value || row.dataset.regions.split(" ").includes(region.value)) &&
        words.every((word) => texts[place].includes(word));
      row.hidden = !fits;
      if (fits) shown += 1;
    });
    count.textContent = `${number.format(shown)} of ${number.format(Number(count.dataset.total))} findings`;
    document.getElementById("nothing").hidden = shown > 0;
    copied.hidden = ids.hidden = true;
  };

  // The ids of the rows that are shown, a line each, for `do-images delete -`.
  const copy = async () => {
    const chosen = [...new Set(Array.from(body.rows).filter((row) => !row.hidden).map((row) => row.dataset.id))];
    ids.value = chosen.join("\n") + "\n";
    let how = "Copied";
    try {
      await navigator.clipboard.writeText(ids.value);
    } catch {
      ids.hidden = false; // the browser does not allow it: copy by hand
      ids.select();
      how = "Copy these";
    }
    const images = chosen.length === 1 ? "id" : "ids";
    copied.textContent = `${how} ${number.format(chosen.length)} ${images}; do-images delete - --dry-run reads them.`;
    copied.hidden = false;
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
  region.addEventListener("change", filter);
  document.getElementById("copy").addEventListener("click", copy);
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
