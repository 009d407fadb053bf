"use strict";
(() => {
  const form = document.getElementById("filters");
  const shown = document.getElementById("shown");
  const table = document.getElementById("matrix");
  const scroll = table.parentElement;
  const corner = table.querySelector("thead .corner");
  const columns = [...table.querySelectorAll("thead th[data-name]")];
  const rows = [...table.querySelectorAll("tbody tr[data-name]")].map((row) => ({ row, cells: [...row.cells].slice(1) }));
  const names = columns.map((column) => column.dataset.name.toLowerCase());
  const allows = (cell) => cell.className === "all" || cell.className === "some";
  // Looked at before the first class is added to a cell.
  const open = rows.map(({ cells }) => cells.map(allows));
  const fields = ["q", "from", "to"];

  const hits = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    return names.map((name) => words.every((word) => name.includes(word)));
  };

  const filter = () => {
    const value = (field) => form.elements[field].value.trim();
    const either = hits(value("q"));
    const from = hits(value("from"));
    const to = hits(value("to"));
    const limited = value("q") !== "";
    // Whoever is meant, and whom it reaches or is reached by.
    const showRow = names.map((_, i) => from[i] && (either[i] || either.some((hit, j) => hit && open[i][j])));
    const showColumn = names.map((_, j) => to[j] && (either[j] || either.some((hit, i) => hit && open[i][j])));
    columns.forEach((column, j) => { column.hidden = !showColumn[j]; });
    rows.forEach(({ row, cells }, i) => {
      row.hidden = !showRow[i];
      cells.forEach((cell, j) => {
        cell.hidden = !showColumn[j];
        cell.classList.toggle("dim", limited && !either[i] && !either[j]);
      });
    });
    let first = 0;
    for (const group of table.querySelectorAll("thead th[scope=colgroup]")) {
      const size = Number(group.dataset.size);
      const visible = showColumn.slice(first, first + size).filter(Boolean).length;
      group.hidden = visible === 0;
      group.colSpan = Math.max(visible, 1);
      first += size;
    }
    for (const body of table.tBodies) {
      body.hidden = [...body.rows].slice(1).every((row) => row.hidden);
      body.rows[0].cells[0].colSpan = showColumn.filter(Boolean).length + 1;
    }
    const count = (list) => list.filter(Boolean).length;
    shown.textContent = `${count(showRow)} of ${names.length} sources, ${count(showColumn)} of ${names.length} destinations`;
    const isEmpty = !showRow.includes(true) || !showColumn.includes(true);
    scroll.hidden = isEmpty;
    if (isEmpty) {
      shown.textContent += ": nothing to show";
    } else if (limited) {
      const first = names.findIndex((_, j) => showColumn[j] && either[j]);
      if (first >= 0) {
        scroll.scrollLeft = columns[first].offsetLeft - corner.offsetWidth;
      }
    }
    const said = new URLSearchParams();
    fields.filter((field) => value(field)).forEach((field) => said.set(field, value(field)));
    try { history.replaceState(null, "", said.size ? `#${said}` : "#"); } catch { /* Only the address is not kept. */ }
  };

  const read = () => {
    const said = new URLSearchParams(location.hash.slice(1));
    fields.forEach((field) => { form.elements[field].value = said.get(field) ?? ""; });
    filter();
  };

  table.addEventListener("mouseover", (event) => {
    const cell = event.target.closest("td");
    if (cell && !cell.title) {
      const to = columns[cell.cellIndex - 1].dataset.name;
      cell.title = `${cell.parentElement.dataset.name} → ${to}: ${cell.querySelector("[data-text]").textContent}`;
    }
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  window.addEventListener("hashchange", read);
  form.hidden = false;
  read();
})();
