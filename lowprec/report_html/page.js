"use strict";
// Sorting and searching; without this script the page shows everything, in the model's order.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const value = (row, index) => {
    const cell = row.cells[index];
    if (!("key" in cell.dataset)) return cell.textContent.toLowerCase();
    return cell.dataset.key === "" ? null : Number(cell.dataset.key);
  };
  const sort = (index, up) => {
    const order = rows.map((row) => [value(row, index), row]);
    order.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
    });
    body.append(...order.map(([, row]) => row));
    heads.forEach((head, i) => {
      if (i === index) head.setAttribute("aria-sort", up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const numbers = rows.some((row) => "key" in row.cells[index].dataset);
      sort(index, before ? before === "descending" : !numbers || index === 0);
    });
  });
  if (table.id !== "layers") continue;
  const select = document.getElementById("sort");
  const find = document.getElementById("find");
  const count = document.getElementById("count");
  heads.forEach((head, index) => select.add(new Option(head.textContent, index)));
  select.options[0].text = "place in the model";
  select.addEventListener("change", () => {
    const index = Number(select.value);
    sort(index, index === 0 || !rows.some((row) => "key" in row.cells[index].dataset));
  });
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    count.textContent = wanted ? `${shown} of ${rows.length}` : "";
  });
  select.closest(".controls").hidden = false;
}
