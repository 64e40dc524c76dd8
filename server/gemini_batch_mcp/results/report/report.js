// The list of rows in a report: search, filter, sort, page, look at one. Data becomes text nodes, never markup.
"use strict";

(() => {
  const STATUSES = {
    ok: ["OK", "✓"],
    failed: ["Failed", "✕"],
    blocked: ["Blocked", "⊘"],
    truncated: ["Truncated", "⋯"],
    empty: ["Empty", "○"],
    missing: ["Missing", "?"],
  };
  // Where things stand in a row as the page carries it: number, reason, status, then the cells of the columns.
  const NUMBER = 0, REASON = 1, STATUS = 2, CELLS = 3;
  const TEXT_COLUMN = 1;
  const EXTRA_COLUMNS_AT_FIRST = 4;
  const SHORT_CHARS = 24;
  const SEARCH_PAUSE_MS = 120;

  const collator = new Intl.Collator("en", { numeric: true });

  const byId = (id) => document.getElementById(id);
  const source = byId("rows-data");
  const { columns, rows } = JSON.parse(source.textContent);
  source.remove();

  const state = { words: [], status: "", reason: 0, sort: "", descending: false, page: 0, size: 25 };
  const shown = new Set();
  let found = rows;
  let opened = -1;

  // Only what stands in a cell is searched, so lower case is made once.
  const searchable = new Map(rows.map((row) => [row, row.slice(CELLS).join("\u0001").toLowerCase()]));

  function make(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function count(number, noun) {
    return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  }

  function pill(status) {
    const [name, sign] = STATUSES[status];
    return make("span", { class: `pill ${status}` }, make("span", { "aria-hidden": "true" }, sign), ` ${name}`);
  }

  // Choosing rows

  function matches(row) {
    if (state.status && row[STATUS] !== state.status) return false;
    if (state.reason && row[REASON] !== state.reason) return false;
    return state.words.every((word) => searchable.get(row).includes(word));
  }

  // A row is sorted by its number, its status, or the cell of a column, whose place stands as text.
  function sortValue(row) {
    return { row: row[NUMBER], status: row[STATUS] }[state.sort] ?? row[CELLS + Number(state.sort)];
  }

  function compare(one, other) {
    const [a, b] = [sortValue(one), sortValue(other)];
    const order = typeof a === "number" ? a - b : collator.compare(a, b);
    return (state.descending ? -order : order) || one[NUMBER] - other[NUMBER];
  }

  function choose() {
    found = rows.filter(matches);
    if (state.sort) found.sort(compare);
    state.page = 0;
    drawFilters();
    drawPage();
  }

  // Drawing

  function drawHead() {
    const heading = (name, key) => {
      const sorted = state.sort !== key ? "none" : state.descending ? "descending" : "ascending";
      const button = make("button", { type: "button", "data-sort": key }, name);
      button.addEventListener("click", () => sortBy(key));
      return make("th", { scope: "col", role: "columnheader", "aria-sort": sorted }, button);
    };
    const names = columns.flatMap((column, place) => (shown.has(place) ? [heading(column.name, `${place}`)] : []));
    byId("list-head").replaceChildren(
      make("tr", { role: "row" }, heading("Row", "row"), heading("status", "status"), ...names),
    );
  }

  function sortBy(key) {
    // Up, down, and back to the order of the page.
    if (state.sort !== key) [state.sort, state.descending] = [key, false];
    else if (!state.descending) state.descending = true;
    else state.sort = "";
    drawHead();
    choose();
    byId("list-head").querySelector(`[data-sort="${key}"]`).focus();
  }

  function drawRow(row, index) {
    const open = make("button", { type: "button", "aria-label": `Row ${row[NUMBER]}: show all of it` }, `${row[NUMBER]}`);
    open.addEventListener("click", () => openRow(index));
    const cells = columns.flatMap((column, place) => {
      if (!shown.has(place)) return [];
      const text = row[CELLS + place];
      const kind = [place === TEXT_COLUMN ? "" : "narrow", text ? "" : "nothing"].join(" ").trim();
      const size = text.length <= SHORT_CHARS ? "clamp short" : "clamp";
      const words = text ? make("div", { class: size, dir: "auto" }, text) : "–";
      return [make("td", { class: kind, role: "cell", "data-name": column.name }, words)];
    });
    return make(
      "tr",
      { role: "row" },
      make("td", { role: "cell", "data-name": "Row" }, open),
      make("td", { role: "cell", "data-name": "status" }, pill(row[STATUS])),
      ...cells,
    );
  }

  function drawPage() {
    const pages = Math.max(Math.ceil(found.length / state.size), 1);
    const first = state.page * state.size;
    const part = found.slice(first, first + state.size);
    byId("list").replaceChildren(...part.map((row, index) => drawRow(row, first + index)));
    byId("found").textContent = part.length
      ? `Rows ${(first + 1).toLocaleString("en")} to ${(first + part.length).toLocaleString("en")} of ${count(found.length, "row")} found.`
      : "No row matches. Clear the search or choose All.";
    byId("place").textContent = `Page ${state.page + 1} of ${pages}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page >= pages - 1;
  }

  function drawFilters() {
    const button = (status, name, sign, number) => {
      const isOn = state.status === status && !state.reason;
      const node = make("button", { type: "button", class: status, "aria-pressed": String(isOn), "data-status": status });
      if (sign) node.append(make("span", { "aria-hidden": "true" }, sign));
      node.append(name, make("small", {}, number.toLocaleString("en")));
      node.addEventListener("click", () => filter(status, 0));
      return node;
    };
    const filters = Object.entries(STATUSES).flatMap(([status, [name, sign]]) => {
      const number = rows.filter((row) => row[STATUS] === status).length;
      return number ? [button(status, name, sign, number)] : [];
    });
    const focused = document.activeElement?.dataset?.status;
    byId("filters").replaceChildren(button("", "All", "", rows.length), ...filters);
    if (state.reason) {
      const number = rows.filter((row) => row[REASON] === state.reason).length;
      const node = button("", "One reason ✕", "", number);
      node.setAttribute("aria-pressed", "true");
      byId("filters").append(node);
    }
    if (focused !== undefined) byId("filters").querySelector(`[data-status="${focused}"]`)?.focus();
  }

  function filter(status, reason) {
    [state.status, state.reason] = [status, reason];
    choose();
  }

  function turn(by) {
    state.page += by;
    drawPage();
    byId("explorer").scrollIntoView({ block: "start" });
  }

  // One row

  function openRow(index) {
    opened = index;
    const row = found[index];
    const lines = columns.flatMap((column, place) => {
      const text = row[CELLS + place];
      return text ? [make("div", {}, make("dt", {}, column.name), make("dd", { dir: "auto" }, text))] : [];
    });
    byId("row-title").replaceChildren(`Row ${row[NUMBER].toLocaleString("en")} `, pill(row[STATUS]));
    byId("row-cells").replaceChildren(...lines);
    byId("row-previous").disabled = index === 0;
    byId("row-next").disabled = index >= found.length - 1;
    if (!byId("row").open) byId("row").showModal();
    byId("row").scrollTop = 0;
  }

  function closeRow() {
    const page = Math.floor(opened / state.size);
    if (page !== state.page) {
      state.page = page;
      drawPage();
    }
    rowButtons()[opened - page * state.size]?.focus();
  }

  // The keyboard

  const rowButtons = () => [...byId("list").querySelectorAll("button")];

  function walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const place = rowButtons().indexOf(document.activeElement);
    if (!step || place < 0) return;
    event.preventDefault();
    const next = rowButtons()[place + step];
    if (next) next.focus();
    else if (step > 0 && !byId("next").disabled) {
      turn(1);
      rowButtons()[0].focus();
    } else if (step < 0 && !byId("previous").disabled) {
      turn(-1);
      rowButtons().at(-1).focus();
    } else if (step < 0) byId("search").focus();
  }

  // Putting it together

  function drawColumns() {
    columns.forEach((column, place) => {
      const box = make("input", { type: "checkbox" });
      box.checked = shown.has(place);
      box.addEventListener("change", () => {
        if (box.checked) shown.add(place);
        else shown.delete(place);
        drawHead();
        drawPage();
      });
      byId("columns").append(make("label", {}, box, column.name));
    });
  }

  function showRows(status, reason) {
    byId("search").value = "";
    state.words = [];
    filter(status, reason);
    byId("rows").scrollIntoView({ block: "start" });
    rowButtons()[0]?.focus({ preventScroll: true });
  }

  let extras = 0;
  columns.forEach((column, place) => {
    const isOwn = place < 4;
    const hasText = rows.some((row) => row[CELLS + place]);
    if (hasText && (isOwn || (!column.is_aside && extras++ < EXTRA_COLUMNS_AT_FIRST))) shown.add(place);
  });

  let pause = 0;
  byId("search").addEventListener("input", (event) => {
    clearTimeout(pause);
    pause = setTimeout(() => {
      state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
      choose();
    }, SEARCH_PAUSE_MS);
  });
  byId("search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      rowButtons()[0]?.focus();
    }
  });
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("size").addEventListener("change", (event) => {
    state.size = Number(event.target.value);
    state.page = 0;
    drawPage();
  });
  byId("list").addEventListener("keydown", walk);
  byId("row-previous").addEventListener("click", () => openRow(opened - 1));
  byId("row-next").addEventListener("click", () => openRow(opened + 1));
  byId("row-close").addEventListener("click", () => byId("row").close());
  byId("row").addEventListener("close", closeRow);
  byId("row").addEventListener("click", (event) => {
    if (event.target === byId("row")) byId("row").close();
  });
  byId("columns-menu").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    byId("columns-menu").open = false;
    byId("columns-menu").querySelector("summary").focus();
  });
  for (const node of document.querySelectorAll("[data-show-status]")) {
    node.addEventListener("click", () => showRows(node.dataset.showStatus, 0));
  }
  for (const node of document.querySelectorAll("[data-show-reason]")) {
    node.addEventListener("click", () => showRows("", Number(node.dataset.showReason)));
  }

  drawHead();
  drawColumns();
  choose();
  byId("explorer").hidden = false;
})();
