/* The table of predictions: search, filters, sorting, choice of columns. */
"use strict";

((app) => {
  const { $, h, s, known, fixed, percent, plural, words } = app;
  const CHUNK = 60; // rows put into the page at a time
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  let columns = [];
  let rendered = 0;
  let oneKind = null;
  let oneEngine = false;
  let chosenColumns = false;

  const start = () => ({ text: "", status: "all", engines: new Set(), flags: new Set(), confidence: [null, null], length: [null, null], agreement: [null, null] });
  let choice = start();
  const sorting = { key: null, descending: false };

  // ---------------------------------------------------------------- cells

  const none = () => h("span", { class: "none" }, "–");
  const number = (decimals) => (row, key) => (known(row[key]) ? (decimals ? fixed(row[key], decimals) : row[key].toLocaleString("en")) : none());
  const share = (row, key) => (known(row[key]) ? percent(row[key]) : none());

  function meter(row) {
    const value = row.mean_confidence;
    if (!known(value)) return none();
    return [h("span", { class: "meter" },
      h("span", { class: "bar" }, h("i", { style: { width: `${value}%`, background: app.confidenceColour(value, row.confidence_kind) } })),
      h("span", { class: "value" }, fixed(value, 1))),
    oneKind ? null : h("small", { class: "kind" }, row.confidence_kind)];
  }

  function lengthCell(row) {
    if (!known(row.length)) return none();
    return [row.length.toLocaleString("en"), row.modelled < 1 ? h("small", { class: "kind", title: `${row.modelled_residues} residues have coordinates` }, `${percent(row.modelled)} modelled`) : null];
  }

  function targetCell(row) {
    const parts = [oneEngine ? null : row.engine, row.chains > 1 ? `${row.chains} chains` : null].filter(Boolean);
    return h("button", { type: "button", class: "row-button", "data-key": app.keyOf(row), title: row.target.length > 24 ? row.target : null }, h("span", { class: "name" }, app.breakable(row.target)),
      parts.length ? h("small", {}, parts.join(" · ")) : null);
  }

  function flagCell(row) {
    if (!row.flags.length) return none();
    return h("span", { class: "flag-words" }, row.flags.map((flag) => (app.FLAGS[flag] || [words(flag)])[0]).join(", "));
  }

  // `wide`: w1 needs the least width, w5 the most. `more` columns are shown only when chosen.
  // A column that is empty in every row is not offered.
  const COLUMNS = [
    { key: "target", label: "Target", cell: targetCell },
    { key: "status", label: "Status", cell: (row) => h("span", { class: `status ${row.status}` }, words(row.status)) },
    { key: "engine", label: "Engine", more: true, cell: (row) => row.engine },
    { key: "length", label: "Length", numeric: true, wide: "w1", cell: lengthCell },
    { key: "modelled", label: "Modelled", numeric: true, more: true, cell: share, hint: "share of the residues that have coordinates" },
    { key: "mean_confidence", label: "Confidence", numeric: true, cell: meter },
    { key: "tm_score", label: "TM-score", numeric: true, wide: "w2", cell: number(3), hint: "to the reference" },
    { key: "ptm", label: "pTM", numeric: true, wide: "w3", cell: number(3) },
    { key: "iptm", label: "ipTM", numeric: true, wide: "w3", cell: number(3) },
    { key: "lddt", label: "lDDT", numeric: true, wide: "w4", cell: number(3), hint: "all atoms, to the reference" },
    { key: "lddt_ca", label: "lDDT-CA", numeric: true, more: true, cell: number(3), hint: "to the reference" },
    { key: "rmsd_ca", label: "RMSD (Å)", numeric: true, more: true, cell: number(2), hint: "of CA, to the reference" },
    { key: "dockq", label: "DockQ", numeric: true, wide: "w5", cell: number(3), hint: "to the reference" },
    { key: "agreement_lddt", label: "Agreement", numeric: true, wide: "w3", cell: number(3), hint: "lDDT-CA to the models of the other engines, mean" },
    { key: "agreement_tm", label: "Agreement (TM)", numeric: true, more: true, cell: number(3), hint: "TM-score to the models of the other engines, mean" },
    { key: "template", label: "Template", wide: "w3", cell: (row) => row.template || none() },
    { key: "template_identity", label: "Identity", numeric: true, wide: "w4", cell: share, hint: "of the aligned residues to the template" },
    { key: "msa_depth", label: "MSA depth", numeric: true, wide: "w4", cell: number(0), hint: "rows of the shallowest MSA" },
    { key: "clashes", label: "Clashes", numeric: true, wide: "w5", cell: number(0), hint: "in the final model" },
    { key: "ramachandran_outliers", label: "Outliers", numeric: true, wide: "w5", cell: number(0), hint: "Ramachandran outliers" },
    { key: "flagged", label: "Flags", wide: "w5", cell: flagCell, hint: "what to know before trusting the model" },
    { key: "kind", label: "Cause", more: true, cell: (row) => (row.kind ? words(row.kind) : none()), hint: "why there is no model" },
    { key: "seconds", label: "Time", numeric: true, more: true, cell: (row) => (known(row.seconds) ? app.seconds(row.seconds) : none()), hint: "of computing" },
  ];
  const RANGES = { confidence: "mean_confidence", length: "length", agreement: "agreement_lddt" }; // what is filtered by numbers
  const FIXED = new Set(["target", "status"]);
  const offered = () => COLUMNS.filter(({ key }) => FIXED.has(key) || app.rows.some((row) => known(row[key])));
  const labelOf = (column) => (column.key === "mean_confidence" && oneKind ? (oneKind === "pLDDT" ? "Mean pLDDT" : words(oneKind)) : column.label);

  // ---------------------------------------------------------------- building

  app.prepareRows = () => {
    for (const row of app.rows) {
      row.clashes = row.clashes_after ?? row.clashes_before; // a model that was not relaxed has no "after"
      row.flags = row.flags ? row.flags.split(",") : [];
      row.flagged = row.flags.length ? row.flags.join(" ") : null;
      row.modelled = known(row.modelled_residues) && row.length ? row.modelled_residues / row.length : null;
      row.seconds = (app.timings.predictions || {})[app.keyOf(row)] ?? null;
      row.text = [row.target, row.engine, row.status, row.kind, row.template, row.reason].filter(Boolean).join(" ").toLowerCase();
    }
  };

  app.buildTable = () => {
    const kinds = new Set(app.rows.map((row) => row.confidence_kind).filter(Boolean));
    oneKind = kinds.size === 1 ? [...kinds][0] : kinds.size === 0 ? "confidence" : null;
    oneEngine = new Set(app.rows.map((row) => row.engine)).size <= 1;
    for (const status of ["all", ...app.STATUSES]) {
      const count = status === "all" ? app.rows.length : app.rows.filter((row) => row.status === status).length;
      $("status-filter").append(h("label", {},
        h("input", { type: "radio", name: "status", value: status, checked: status === "all",
          onchange: () => { choice.status = status; refresh(); } }),
        words(status), h("span", { class: "count" }, count.toLocaleString("en"))));
    }
    $("filter").addEventListener("input", (event) => { choice.text = event.target.value; refresh(); });
    $("clear-filter")?.addEventListener("click", () => { clear(); $("filter").focus(); });
    buildFilters();
    buildColumns();

    const body = $("table").tBodies[0];
    body.addEventListener("click", (event) => {
      const line = event.target.closest("tr");
      // Selecting text in the table is no choice of a row.
      if (line && (event.target.closest("button") || !String(getSelection()))) location.hash = app.hrefOf(app.byKey.get(line.dataset.key));
    });
    body.addEventListener("keydown", (event) => {
      const line = event.target.closest("tr");
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!line || !step) return;
      if (step > 0 && !line.nextElementSibling) renderMore();
      const next = step > 0 ? line.nextElementSibling : line.previousElementSibling;
      if (next) { next.querySelector("button").focus(); event.preventDefault(); }
    });
    new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) renderMore(); },
      { rootMargin: "800px" }).observe($("sentinel"));
    addEventListener("beforeprint", () => { while (rendered < app.view.length) renderMore(); });
    let width = 0;
    new ResizeObserver(([entry]) => {
      const now = Math.round(entry.contentRect.width);
      if (now && now !== width) { width = now; fit(); }
    }).observe($("table").parentElement);
    showColumns();
  };

  // A choice of columns is kept in the browser; without one the width decides.
  function showColumns() {
    const chosen = app.recall("columns", null);
    const asked = Array.isArray(chosen) ? new Set(chosen) : null;
    columns = offered().filter((column) => FIXED.has(column.key) || (asked ? asked.has(column.key) : !column.more));
    chosenColumns = asked !== null;
    $("table").parentElement.classList.toggle("chosen", asked !== null);
    $("table").tHead.rows[0].replaceChildren(...columns.map((column) =>
      h("th", { scope: "col", class: classOf(column), "data-key": column.key, title: column.hint },
        h("button", { type: "button", onclick: () => sortBy(column.key) }, labelOf(column),
          s("svg", { class: "arrow", viewBox: "0 0 8 8", "aria-hidden": "true" }, s("path", { d: "M4 1 7.5 7h-7z", fill: "currentColor" }))))));
    if (!columns.some((column) => column.key === sorting.key)) sorting.key = null;
    markSorting();
    refresh();
    fit();
  }

  // Columns that do not fit leave, the least needed first; all come back when there is room again.
  function fit() {
    const table = $("table");
    const frame = table.parentElement;
    const without = [5, 4, 3, 2, 1].map((level) => `without-${level}`);
    const heads = [...table.tHead.rows[0].cells];
    table.classList.remove(...without, "settled");
    for (const cell of heads) cell.style.width = "";
    if (!chosenColumns) {
      for (const name of without) {
        if (table.offsetWidth <= frame.clientWidth + 1) break;
        table.classList.add(name);
      }
    }
    // Widths stay as they are then: a browser would lay out all rows anew with each chunk, and columns would jump.
    const widths = heads.map((cell) => cell.getBoundingClientRect().width);
    heads.forEach((cell, index) => { if (widths[index]) cell.style.width = `${widths[index]}px`; });
    if (app.view.length) table.classList.add("settled");
  }

  const classOf = (column) => [column.numeric && "number", column.wide].filter(Boolean).join(" ") || null;

  function buildColumns() {
    const body = $("columns-menu");
    function fill() {
      const chosen = app.recall("columns", null);
      const shown = new Set(Array.isArray(chosen) ? chosen : offered().filter((column) => !column.more).map((column) => column.key));
      body.replaceChildren(
        h("fieldset", { class: "choices" }, h("legend", {}, "Columns"), offered().filter((column) => !FIXED.has(column.key)).map((column) =>
          h("label", { class: "check", title: column.hint }, h("input", { type: "checkbox", value: column.key, checked: shown.has(column.key), onchange: (event) => {
            if (event.target.checked) shown.add(column.key);
            else shown.delete(column.key);
            app.remember("columns", [...shown]);
            showColumns();
          } }), labelOf(column)))),
        h("button", { type: "button", class: "plain", onclick: () => { app.forget("columns"); showColumns(); fill(); } }, "Back to what fits"));
    }
    fill();
  }

  function buildFilters() {
    const body = $("filters-menu");
    const engines = [...new Set(app.rows.map((row) => row.engine))].sort(collator.compare);
    const flags = Object.keys(app.FLAGS).filter((flag) => app.rows.some((row) => row.flags.includes(flag)));
    const boxes = (legend, kind, values, label, count) => h("fieldset", { class: "choices" }, h("legend", {}, legend), values.map((value) =>
      h("label", { class: "check" }, h("input", { type: "checkbox", value, "data-filter": kind, onchange: (event) => {
        if (event.target.checked) choice[kind].add(value);
        else choice[kind].delete(value);
        refresh();
      } }), label(value), h("span", { class: "count" }, count(value).toLocaleString("en")))));
    const range = (legend, kind, most, step = 1) => {
      const values = app.rows.map((row) => row[RANGES[kind]]).filter(known);
      if (!values.length) return null;
      const decimals = step < 1 ? 2 : 0;
      const low = (Math.floor(values.reduce((a, b) => Math.min(a, b)) / step) * step).toFixed(decimals);
      const high = (Math.ceil(values.reduce((a, b) => Math.max(a, b)) / step) * step).toFixed(decimals);
      const end = (index, label, placeholder) => h("input", { type: "number", min: 0, max: most, step, "data-filter": `${kind}-${index ? "to" : "from"}`, "aria-label": `${legend} ${label}`, placeholder, oninput: (event) => {
        choice[kind][index] = event.target.value === "" ? null : event.target.valueAsNumber;
        refresh();
      } });
      return h("fieldset", { class: "range" }, h("legend", {}, legend), end(0, "from", low), h("span", {}, "to"), end(1, "to", high));
    };
    body.replaceChildren(...[
      range(oneKind && oneKind !== "confidence" ? words(oneKind) : "Confidence", "confidence", 100), range("Length", "length"), range("Agreement", "agreement", 1, 0.01),
      engines.length > 1 ? boxes("Engine", "engines", engines, (engine) => engine, (engine) => app.rows.filter((row) => row.engine === engine).length) : null,
      flags.length ? boxes("Flags", "flags", flags, (flag) => words(app.FLAGS[flag][0]), (flag) => app.rows.filter((row) => row.flags.includes(flag)).length) : null,
    ].filter(Boolean));
    $("filters").hidden = !body.childElementCount;
  }

  function clear() {
    choice = start();
    $("filter").value = "";
    document.querySelector('#status-filter input[value="all"]').checked = true;
    for (const input of $("filters-menu").querySelectorAll("input")) {
      if (input.type === "checkbox") input.checked = false;
      else input.value = "";
    }
    refresh();
  }

  // What is filtered by, each with a way to take it back.
  function showActive() {
    const active = [];
    const add = (label, drop) => active.push(h("button", { type: "button", class: "chip", onclick: drop, "aria-label": `No longer filter by: ${label}` }, label, app.icon("M4 4l6 6M10 4l-6 6")));
    for (const kind of Object.keys(RANGES)) {
      const [from, to] = choice[kind];
      if (!known(from) && !known(to)) continue;
      add(`${words(kind)} ${known(from) && known(to) ? `${from}–${to}` : known(from) ? `≥ ${from}` : `≤ ${to}`}`, () => {
        choice[kind] = [null, null];
        for (const input of $("filters-menu").querySelectorAll(`[data-filter^="${kind}-"]`)) input.value = "";
        refresh();
      });
    }
    for (const [kind, label] of [["engines", (value) => value], ["flags", (value) => words(app.FLAGS[value][0])]]) {
      for (const value of choice[kind]) {
        add(label(value), () => {
          choice[kind].delete(value);
          for (const input of $("filters-menu").querySelectorAll(`[data-filter="${kind}"]`)) if (input.value === value) input.checked = false;
          refresh();
        });
      }
    }
    $("active").replaceChildren(...active);
    $("active").hidden = !active.length;
    $("filters-count").textContent = active.length ? String(active.length) : "";
  }

  // ---------------------------------------------------------------- showing

  function sortBy(key) {
    if (sorting.key === key) sorting.descending = !sorting.descending;
    else Object.assign(sorting, { key, descending: false });
    markSorting();
    refresh();
  }

  function markSorting() {
    for (const cell of $("table").tHead.rows[0].cells) {
      if (cell.dataset.key === sorting.key) cell.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
  }

  const between = (value, [from, to]) => (!known(from) && !known(to)) || (known(value) && (!known(from) || value >= from) && (!known(to) || value <= to));

  function refresh() {
    const needles = choice.text.toLowerCase().split(/\s+/).filter(Boolean);
    app.view = app.rows.filter((row) => (choice.status === "all" || row.status === choice.status)
      && (!choice.engines.size || choice.engines.has(row.engine))
      && (!choice.flags.size || row.flags.some((flag) => choice.flags.has(flag)))
      && Object.entries(RANGES).every(([kind, key]) => between(row[key], choice[kind]))
      && needles.every((needle) => row.text.includes(needle)));
    if (sorting.key) {
      const key = sorting.key;
      const sign = sorting.descending ? -1 : 1;
      app.view.sort((a, b) => {
        if (!known(a[key]) || !known(b[key])) return known(a[key]) ? -1 : known(b[key]) ? 1 : 0; // unknown ones last, either way
        return sign * (typeof a[key] === "number" ? a[key] - b[key] : collator.compare(a[key], b[key]));
      });
    }
    $("table").tBodies[0].replaceChildren();
    rendered = 0;
    renderMore();
    $("table").parentElement.hidden = app.view.length === 0;
    $("nothing").hidden = app.view.length > 0;
    const all = app.view.length === app.rows.length;
    $("shown").textContent = all ? plural(app.rows.length, "prediction") : `${app.view.length.toLocaleString("en")} of ${plural(app.rows.length, "prediction")}`;
    showActive();
    app.updateSteps();
  }

  function renderMore() {
    const lines = app.view.slice(rendered, rendered + CHUNK).map((row) =>
      h("tr", { "data-key": app.keyOf(row) }, columns.map((column) => h("td", { class: classOf(column) }, column.cell(row, column.key)))));
    $("table").tBodies[0].append(...lines);
    rendered += lines.length;
    if (app.selected && lines.some((line) => line.dataset.key === app.keyOf(app.selected))) app.markSelected();
  }

  app.markSelected = () => {
    for (const line of $("table").tBodies[0].rows) {
      const is = app.selected !== null && line.dataset.key === app.keyOf(app.selected);
      line.classList.toggle("selected", is);
      if (is) line.querySelector("button").setAttribute("aria-current", "true");
      else line.querySelector("button").removeAttribute("aria-current");
    }
  };
})(window.snakefold);
