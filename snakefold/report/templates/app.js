/* The report's page. No framework, nothing from outside.
 *
 * Data arrive through `snakefoldReport.index/timings/prediction(...)`, called by the files in data/, because scripts
 * load from file: addresses and fetch() does not. Everything shown is put in as text, never as HTML: target names,
 * reasons and log lines come from outside.
 */
"use strict";

(() => {
  // ---------------------------------------------------------------- data

  const received = { index: null, timings: null, prediction: null };
  window.snakefoldReport = {
    index(value) { received.index = value; },
    timings(value) { received.timings = value; },
    prediction(value) { received.prediction = value; },
  };

  const KEPT = 6; // predictions kept in memory; a thousand models would be too much
  const loaded = new Map();

  function loadScript(source) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = () => { script.remove(); resolve(); };
      script.onerror = () => { script.remove(); reject(new Error(`cannot read ${decodeURIComponent(source)}`)); };
      document.head.append(script);
    });
  }

  function loadPrediction(row) {
    let promise = loaded.get(row.data);
    if (promise) loaded.delete(row.data);
    // A script's onload follows its execution directly, so `received.prediction` is this script's value.
    else promise = loadScript(row.data).then(() => {
      const value = received.prediction;
      received.prediction = null;
      return value;
    });
    promise.catch(() => loaded.delete(row.data));
    loaded.set(row.data, promise);
    while (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
    return promise;
  }

  let library = null;
  const loadLibrary = () => (library ??= loadScript("assets/3Dmol-min.js").then(() => window.$3Dmol));

  // ---------------------------------------------------------------- small helpers

  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name === "style") for (const [key, entry] of Object.entries(value)) node.style.setProperty(key, entry);
      else node.setAttribute(name, value === true ? "" : value);
    }
    for (const child of children.flat(Infinity)) {
      if (child !== null && child !== undefined && child !== false) node.append(child);
    }
    return node;
  }
  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  const known = (value) => value !== null && value !== undefined;
  const fixed = (value, decimals) => (known(value) ? Number(value).toFixed(decimals) : "–");
  const percent = (value) => (known(value) ? `${Math.round(100 * value)} %` : "–");
  const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
  const words = (kind) => { const text = (kind || "").replaceAll("_", " ").replace(/\bmsa\b/, "MSA"); return text.charAt(0).toUpperCase() + text.slice(1); };
  const keyOf = (row) => `${row.target}/${row.engine}`;
  const hrefOf = (row) => `#p=${encodeURIComponent(keyOf(row))}`;
  const title3 = (code) => code.charAt(0) + code.slice(1).toLowerCase();

  function bytes(count) {
    if (count < 1000) return `${count} B`;
    if (count < 999500) return `${(count / 1e3).toFixed(count < 9950 ? 1 : 0)} kB`;
    return `${(count / 1e6).toFixed(1)} MB`;
  }

  function seconds(value) {
    if (!known(value)) return "–";
    if (value < 90) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
    if (value < 5400) return `${Math.round(value / 60)} min`;
    return `${(value / 3600).toFixed(1)} h`;
  }

  function score(value, decimals = 1) { // E-values: 3e-41, 0.002
    if (!known(value)) return "–";
    if (value === 0) return "0";
    return value < 1e-3 ? value.toExponential(0) : value.toPrecision(decimals + 1);
  }

  // A long name may break after its separators.
  const breakable = (name) => name.split(/(?<=[_.-])/).flatMap((part, index) => (index ? [h("wbr"), part] : [part]));
  const coded = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));

  const icon = (path) => s("svg", { viewBox: "0 0 14 14", "aria-hidden": "true", fill: "none", stroke: "currentColor",
    "stroke-width": 1.6, "stroke-linecap": "round", "stroke-linejoin": "round" }, s("path", { d: path }));

  // ---------------------------------------------------------------- colours

  // AlphaFold's four bands for pLDDT.
  const BANDS = [[90, "#0053d6", "very high (≥ 90)"], [70, "#65cbf3", "confident (70–90)"],
    [50, "#ffdb13", "low (50–70)"], [-Infinity, "#ff7d45", "very low (< 50)"]];
  // An estimated lDDT is another quantity, so it gets another look: purple to green, which people with any of the
  // common colour vision deficiencies tell apart.
  const RAMP = [[30, [104, 46, 140]], [50, [152, 100, 184]], [65, [184, 170, 204]], [75, [150, 198, 175]],
    [85, [78, 172, 136]], [95, [16, 128, 100]]];
  const CHAINS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c7ae6", "#a3a500"];
  const STRUCTURE = { h: ["#d1495b", "helix"], s: ["#1f78b4", "strand"], c: ["#9aa7b2", "coil"] };
  const UNKNOWN = "#9aa7b2";

  function confidenceColour(value, kind) {
    if (!known(value)) return UNKNOWN;
    if (kind === "pLDDT") return BANDS.find(([from]) => value >= from)[1];
    if (value <= RAMP[0][0]) return `rgb(${RAMP[0][1].join(",")})`;
    for (let i = 1; i < RAMP.length; i++) {
      const [high, to] = RAMP[i];
      if (value > high) continue;
      const [low, from] = RAMP[i - 1];
      const t = (value - low) / (high - low);
      return `rgb(${from.map((channel, j) => Math.round(channel + t * (to[j] - channel))).join(",")})`;
    }
    return `rgb(${RAMP.at(-1)[1].join(",")})`;
  }

  function confidenceLegend(kind) {
    if (kind === "pLDDT") {
      return h("div", { class: "legend" }, "pLDDT", BANDS.map(([, colour, label]) =>
        h("span", {}, h("i", { style: { background: colour } }), label)));
    }
    const [low, high] = [RAMP[0][0], RAMP.at(-1)[0]];
    const at = (value) => `${(100 * (value - low)) / (high - low)}%`;
    const stops = RAMP.map(([value, colour]) => `rgb(${colour.join(",")}) ${at(value)}`).join(", ");
    return h("div", { class: "ramp" }, kind || "confidence",
      h("div", { class: "gradient", style: { background: `linear-gradient(90deg, ${stops})` } }),
      h("div", { class: "ticks" }, [low, 50, 65, 80, high].map((value, index, all) =>
        h("span", { style: { left: at(value) } },
          index === 0 ? `≤ ${value}` : index === all.length - 1 ? `≥ ${value}` : String(value)))));
  }

  // ---------------------------------------------------------------- table

  const STATUSES = ["done", "skipped", "failed"];
  const CHUNK = 150; // rows put into the page at a time
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  let rows = [];
  let byKey = new Map();
  let columns = [];
  let view = [];
  let rendered = 0;
  let selected = null;
  const choice = { sort: null, descending: false, text: "", status: "all" };

  const number = (decimals) => (row, key) => (known(row[key]) ? fixed(row[key], decimals) : h("span", { class: "none" }, "–"));

  function meter(row) {
    const value = row.mean_confidence;
    if (!known(value)) return h("span", { class: "none" }, "–");
    return [h("span", { class: "meter" },
      h("span", { class: "bar" }, h("i", { style: { width: `${value}%`, background: confidenceColour(value, row.confidence_kind) } })),
      h("span", { class: "value" }, fixed(value, 1))),
    oneKind ? null : h("small", { class: "kind" }, row.confidence_kind)];
  }

  function targetCell(row) {
    const chains = row.chains > 1 ? `${row.chains} chains` : null;
    const parts = [oneEngine ? null : row.engine, chains].filter(Boolean);
    return h("button", { type: "button", class: "row-button", "data-key": keyOf(row) }, breakable(row.target),
      parts.length ? h("small", {}, parts.join(" · ")) : null);
  }

  // `wide`: w1 needs the least width, w5 the most. A column that is empty in every row is left out.
  const COLUMNS = [
    { key: "target", label: "Target", cell: targetCell },
    { key: "status", label: "Status", cell: (row) => h("span", { class: `status ${row.status}` }, words(row.status)) },
    { key: "length", label: "Length", numeric: true, wide: "w1", cell: number(0) },
    { key: "mean_confidence", label: "Confidence", numeric: true, cell: meter },
    { key: "tm_score", label: "TM-score", numeric: true, wide: "w2", cell: number(3), hint: "to the reference" },
    { key: "ptm", label: "pTM", numeric: true, wide: "w3", cell: number(3) },
    { key: "iptm", label: "ipTM", numeric: true, wide: "w3", cell: number(3) },
    { key: "lddt", label: "lDDT", numeric: true, wide: "w4", cell: number(3), hint: "all atoms, to the reference" },
    { key: "dockq", label: "DockQ", numeric: true, wide: "w5", cell: number(3), hint: "to the reference" },
    { key: "template", label: "Template", wide: "w3", cell: (row) => row.template || h("span", { class: "none" }, "–") },
    { key: "template_identity", label: "Identity", numeric: true, wide: "w4", cell: (row) => (known(row.template_identity) ? percent(row.template_identity) : h("span", { class: "none" }, "–")), hint: "of the aligned residues to the template" },
    { key: "msa_depth", label: "MSA depth", numeric: true, wide: "w4", cell: number(0), hint: "rows of the shallowest MSA" },
    { key: "clashes", label: "Clashes", numeric: true, wide: "w5", cell: number(0), hint: "in the final model" },
    { key: "ramachandran_outliers", label: "Outliers", numeric: true, wide: "w5", cell: number(0), hint: "Ramachandran outliers" },
  ];
  let oneKind = null;
  let oneEngine = false;

  function buildTable() {
    const kinds = new Set(rows.map((row) => row.confidence_kind).filter(Boolean));
    oneKind = kinds.size === 1 ? [...kinds][0] : kinds.size === 0 ? "confidence" : null;
    oneEngine = new Set(rows.map((row) => row.engine)).size <= 1;
    columns = COLUMNS.filter(({ key }) => ["target", "status"].includes(key) || rows.some((row) => known(row[key])));
    const head = $("table").tHead.rows[0];
    for (const column of columns) {
      let label = column.label;
      if (column.key === "mean_confidence" && oneKind) label = oneKind === "pLDDT" ? "Mean pLDDT" : words(oneKind);
      head.append(h("th", { scope: "col", class: [column.numeric && "number", column.wide].filter(Boolean).join(" ") || null,
        "data-key": column.key, title: column.hint },
        h("button", { type: "button", onclick: () => sortBy(column) }, label,
          s("svg", { class: "arrow", viewBox: "0 0 8 8", "aria-hidden": "true" }, s("path", { d: "M4 1 7.5 7h-7z", fill: "currentColor" })))));
    }
    for (const status of ["all", ...STATUSES]) {
      const count = status === "all" ? rows.length : rows.filter((row) => row.status === status).length;
      $("status-filter").append(h("label", {},
        h("input", { type: "radio", name: "status", value: status, checked: status === "all",
          onchange: () => { choice.status = status; refresh(); } }),
        words(status), h("span", { class: "count" }, count.toLocaleString("en"))));
    }
    $("filter").addEventListener("input", (event) => { choice.text = event.target.value; refresh(); });
    $("clear-filter").addEventListener("click", () => {
      choice.text = $("filter").value = "";
      document.querySelector('#status-filter input[value="all"]').click();
      refresh();
      $("filter").focus();
    });

    const body = $("table").tBodies[0];
    body.addEventListener("click", (event) => {
      const line = event.target.closest("tr");
      // Selecting text in the table is no choice of a row.
      if (line && (event.target.closest("button") || !String(getSelection()))) location.hash = hrefOf(byKey.get(line.dataset.key));
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
    window.addEventListener("beforeprint", () => { while (rendered < view.length) renderMore(); });
    refresh();
  }

  function sortBy(column) {
    if (choice.sort === column.key) choice.descending = !choice.descending;
    else { choice.sort = column.key; choice.descending = false; }
    for (const cell of $("table").tHead.rows[0].cells) {
      if (cell.dataset.key === choice.sort) cell.setAttribute("aria-sort", choice.descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    refresh();
  }

  function refresh() {
    const needles = choice.text.toLowerCase().split(/\s+/).filter(Boolean);
    view = rows.filter((row) => (choice.status === "all" || row.status === choice.status)
      && needles.every((needle) => row.text.includes(needle)));
    if (choice.sort) {
      const key = choice.sort;
      const sign = choice.descending ? -1 : 1;
      view.sort((a, b) => {
        if (!known(a[key]) || !known(b[key])) return known(a[key]) ? -1 : known(b[key]) ? 1 : 0; // unknown ones last, either way
        return sign * (typeof a[key] === "number" ? a[key] - b[key] : collator.compare(a[key], b[key]));
      });
    }
    $("table").tBodies[0].replaceChildren();
    rendered = 0;
    renderMore();
    $("table").parentElement.hidden = view.length === 0;
    $("nothing").hidden = view.length > 0;
    $("shown").textContent = view.length === rows.length ? plural(rows.length, "prediction")
      : `${view.length.toLocaleString("en")} of ${plural(rows.length, "prediction")}`;
    updateSteps();
  }

  function renderMore() {
    const body = $("table").tBodies[0];
    const lines = view.slice(rendered, rendered + CHUNK).map((row) =>
      h("tr", { "data-key": keyOf(row), class: row === selected ? "selected" : null },
        columns.map((column) => h("td", { class: [column.numeric && "number", column.wide].filter(Boolean).join(" ") || null },
          column.cell(row, column.key)))));
    body.append(...lines);
    rendered += lines.length;
    for (const line of lines) if (line.classList.contains("selected")) markSelected();
  }

  function markSelected() {
    for (const line of $("table").tBodies[0].rows) {
      const is = selected !== null && line.dataset.key === keyOf(selected);
      line.classList.toggle("selected", is);
      if (is) line.querySelector("button").setAttribute("aria-current", "true");
      else line.querySelector("button").removeAttribute("aria-current");
    }
  }

  // ---------------------------------------------------------------- masthead, problems, how it was made

  function buildMasthead() {
    const counts = Object.fromEntries(STATUSES.map((status) => [status, rows.filter((row) => row.status === status).length]));
    for (const status of STATUSES) {
      $("counts").append(h("div", { class: counts[status] ? status : `${status} zero` },
        h("dt", {}, status), h("dd", {}, counts[status].toLocaleString("en"))));
      if (counts[status]) $("proportion").append(h("span", { class: status, style: { flex: `${counts[status]} 1 0` } }));
    }
    const [predictions, problems] = $("sections").querySelectorAll("a");
    predictions.append(h("span", {}, rows.length.toLocaleString("en")));
    problems.append(h("span", {}, (counts.skipped + counts.failed).toLocaleString("en")));
  }

  function logOf(row) {
    const box = h("pre", { tabindex: 0, "aria-label": "Last log lines" }, "…");
    return h("details", { ontoggle: (event) => {
      if (!event.target.open || box.dataset.ready) return;
      box.dataset.ready = "yes";
      loadPrediction(row).then((data) => { box.textContent = data.log.length ? data.log.join("\n") : "The log is empty."; },
        (error) => { box.textContent = error.message; });
    } }, h("summary", {}, "Last log lines"), box);
  }

  function buildProblems() {
    const groups = new Map();
    for (const status of ["failed", "skipped"]) {
      for (const row of rows) {
        if (row.status !== status) continue;
        const name = `${status}\n${row.kind || ""}`;
        if (!groups.has(name)) groups.set(name, []);
        groups.get(name).push(row);
      }
    }
    const body = $("problems-body");
    if (!groups.size) body.append(h("p", { class: "fine" }, "Nothing failed, and no prediction was skipped."));
    for (const members of groups.values()) {
      const { status, kind, remedy } = members[0];
      const list = h("div");
      const group = h("article", { class: "group" },
        h("header", {}, h("span", { class: `status ${status}` }, words(status)),
          h("h3", {}, kind ? words(kind) : "Without a named cause"),
          h("span", { class: "muted" }, plural(members.length, "prediction"))),
        h("p", { class: "remedy" }, coded(remedy)), list);
      let shown = 0;
      const more = h("button", { type: "button", class: "button", onclick: () => show(200) });
      function show(count) {
        list.append(...members.slice(shown, shown + count).map((row) => h("div", { class: "case" },
          h("div", { class: "case-head" }, h("a", { href: hrefOf(row) }, row.target),
            h("span", { class: "muted" }, [row.engine, row.step ? `at ${row.step}` : null].filter(Boolean).join(" · "))),
          h("p", { class: "reason" }, row.reason || "No reason was recorded."), row.log ? logOf(row) : null)));
        shown = Math.min(members.length, shown + count);
        more.hidden = shown >= members.length;
        more.textContent = `Show ${Math.min(200, members.length - shown)} more`;
      }
      show(20);
      group.append(more);
      body.append(group);
    }
  }

  const plainValue = (value) => (known(value) ? (typeof value === "object" ? JSON.stringify(value) : String(value)) : "–");

  const shortened = (digest) => h("span", { title: digest }, `${plainValue(digest).slice(0, 12)}…`);

  function factTable(entries, mono = false) {
    return h("table", { class: "facts" }, h("tbody", {}, entries.map(([name, value]) =>
      h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: mono ? "mono" : null }, value)))));
  }

  function buildMade() {
    const run = received.index.run || {};
    const cards = h("div", { class: "made" });
    const listed = Array.isArray(run.databases) ? run.databases : [];
    if (listed.length) {
      const first = ["name", "version", "licence"];
      const keys = [...first.filter((key) => listed.some((entry) => known(entry[key]))),
        ...new Set(listed.flatMap((entry) => Object.keys(entry)).filter((key) => !first.includes(key)))];
      cards.append(h("div", { class: "card wide" }, h("h3", {}, "Databases"), h("div", { class: "scroll" },
        h("table", { class: "facts" },
          h("thead", {}, h("tr", {}, keys.map((key) => h("th", { scope: "col" }, words(key))))),
          h("tbody", {}, listed.map((entry) => h("tr", {}, keys.map((key, index) =>
            h(index ? "td" : "th", index ? { class: /digest|sha256/.test(key) ? "mono" : null } : { scope: "row" }, index && /digest|sha256/.test(key) ? shortened(entry[key]) : plainValue(entry[key]))))))))));
    }
    if (run.software && Object.keys(run.software).length) {
      cards.append(h("div", { class: "card" }, h("h3", {}, "Software"), factTable(Object.entries(run.software).map(([name, version]) => [name, plainValue(version)]))));
    }
    const rest = Object.entries(run).filter(([key]) => !["software", "databases"].includes(key));
    if (rest.length) {
      cards.append(h("div", { class: "card" }, h("h3", {}, "Settings"),
        factTable(rest.map(([key, value]) => [words(key), /digest|sha256/.test(key) ? h("code", {}, plainValue(value)) : plainValue(value)]))));
    }
    const order = ["download_database", "search_msa", "search_templates", "fold", "relax", "score"];
    const rank = ([name]) => (order.includes(name) ? order.indexOf(name) : order.length);
    const steps = Object.entries((received.timings || {}).steps || {}).sort((a, b) => rank(a) - rank(b));
    if (steps.length) {
      cards.append(h("div", { class: "card" }, h("h3", {}, "Time"), factTable(steps.map(([name, value]) => [words(name), seconds(value)]))));
    }
    if (!cards.childElementCount) cards.append(h("p", { class: "fine" }, "Nothing was recorded."));
    $("made-body").append(cards, h("p", { class: "credits" }, "The whole table: ", h("a", { href: received.index.summary }, "summary.tsv"),
      ". Structures are drawn by 3Dmol.js (", h("a", { href: "assets/3Dmol-LICENSE.txt" }, "licence"), ")."));
  }

  // ---------------------------------------------------------------- panel

  const THREE = { A: "ALA", R: "ARG", N: "ASN", D: "ASP", C: "CYS", Q: "GLN", E: "GLU", G: "GLY", H: "HIS", I: "ILE",
    L: "LEU", K: "LYS", M: "MET", F: "PHE", P: "PRO", S: "SER", T: "THR", W: "TRP", Y: "TYR", V: "VAL", U: "SEC", O: "PYL" };
  const wideScreen = matchMedia("(min-width: 1200px)");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let opened = 0; // counts openings, so that a slow load of an earlier choice is dropped
  let current = null; // what the open panel's parts share

  function updateSteps() {
    const at = selected ? view.indexOf(selected) : -1;
    for (const [id, step] of [["panel-previous", -1], ["panel-next", 1]]) {
      const button = $(id);
      if (button) button.disabled = at < 0 || !view[at + step];
    }
  }

  function step(by) {
    const next = view[view.indexOf(selected) + by];
    if (next) location.hash = hrefOf(next);
  }

  function setModal(on) {
    // On a small screen the panel covers the page, which must then be out of reach of the keyboard as well.
    for (const id of ["masthead", "column"]) $(id).inert = on && !wideScreen.matches;
  }

  function closePanel() {
    const key = selected && keyOf(selected);
    selected = null;
    opened += 1;
    if (current) current.stop();
    current = null;
    $("panel").hidden = true;
    $("panel").replaceChildren();
    document.body.classList.remove("with-panel");
    setModal(false);
    markSelected();
    if (key) for (const line of $("table").tBodies[0].rows) if (line.dataset.key === key) line.querySelector("button").focus({ preventScroll: true });
  }

  function openPanel(row, focus) {
    if (selected === row) return;
    selected = row;
    const turn = (opened += 1);
    if (current) current.stop();
    current = null;
    markSelected();
    const panel = $("panel");
    const facts = [row.engine, known(row.length) ? plural(row.length, "residue") : null, row.chains > 1 ? `${row.chains} chains` : null,
      (() => { const took = ((received.timings || {}).predictions || {})[keyOf(row)]; return known(took) ? seconds(took) : null; })()];
    const body = h("div", { class: "panel-body" }, h("p", { class: "muted" }, "Loading …"));
    panel.replaceChildren(
      h("header", { class: "panel-head" },
        h("div", {}, h("h2", { id: "panel-title" }, row.target),
          h("p", {}, h("span", { class: `status ${row.status}` }, words(row.status)), facts.filter(Boolean).map((fact) => h("span", {}, fact)))),
        h("nav", { "aria-label": "Predictions, one by one" },
          h("button", { type: "button", class: "button", id: "panel-previous", "aria-label": "Previous prediction", onclick: () => step(-1) }, icon("M2.5 9 7 4.5 11.5 9")),
          h("button", { type: "button", class: "button", id: "panel-next", "aria-label": "Next prediction", onclick: () => step(1) }, icon("M2.5 5 7 9.5 11.5 5")),
          h("button", { type: "button", class: "button", id: "panel-close", "aria-label": "Close", onclick: () => { location.hash = "#none"; closePanel(); } }, icon("M3 3l8 8M11 3l-8 8")))),
      body);
    panel.hidden = false;
    panel.scrollTop = 0;
    document.body.classList.add("with-panel");
    setModal(true);
    updateSteps();
    if (focus) panel.focus({ preventScroll: true });
    loadPrediction(row).then((data) => { if (turn === opened) showPrediction(row, data, body); },
      (error) => { if (turn === opened) body.replaceChildren(h("p", { class: "reason" }, `This prediction's data did not load: ${error.message}.`)); });
  }

  function showPrediction(row, data, body) {
    const parts = [];
    if (row.status !== "done") {
      parts.push(h("div", { class: `banner ${row.status}` },
        h("h3", {}, [words(row.kind || row.status), row.step ? ` at ${row.step}` : ""].join("")),
        h("p", { class: "reason" }, row.reason || "No reason was recorded."),
        h("p", { class: "remedy" }, coded(row.remedy))));
      if (data.log.length) parts.push(block("Last log lines", h("pre", { tabindex: 0 }, data.log.join("\n"))));
    }
    let viewer = null;
    const link = makeLink(data);
    current = link;
    if (row.status === "done") parts.push(headline(row));
    if (data.model) {
      viewer = viewerPart(row, data, link);
      parts.push(viewer.tools, viewer.box, viewer.under);
    } else if (row.status === "done") {
      parts.push(h("p", { class: "muted" }, "This prediction's folder holds no model that can be drawn."));
    }
    if (data.chains.length) parts.push(block("Along the sequence", trackParts(row, data, link)));
    if (row.status === "done") parts.push(block(null, numbers(row, data, link)));
    if (data.alignment.length) parts.push(block("Template alignment", alignmentPart(data)));
    if ((data.scores.notes || []).length) parts.push(block("Notes", h("ul", { class: "notes" }, data.scores.notes.map((note) => h("li", {}, note)))));
    if (data.files.length) {
      parts.push(block("Files", h("ul", { class: "downloads" }, data.files.map((file) =>
        h("li", {}, h("a", { href: file.href }, file.name), h("span", {}, bytes(file.bytes)))))));
    }
    body.replaceChildren(...parts);
    link.start();
    if (viewer) viewer.start();
  }

  const block = (title, ...children) => h("section", { class: "block" }, title ? h("h3", {}, title) : null, children);

  function headline(row) {
    const items = [];
    if (known(row.mean_confidence)) items.push([`mean ${row.confidence_kind || "confidence"}`, fixed(row.mean_confidence, 1)]);
    if (known(row.ptm)) items.push(["pTM", fixed(row.ptm, 2)]);
    if (known(row.iptm)) items.push(["ipTM", fixed(row.iptm, 2)]);
    if (known(row.tm_score)) items.push(["TM-score", fixed(row.tm_score, 3)]);
    if (known(row.lddt)) items.push(["lDDT, all atoms", fixed(row.lddt, 3)]);
    if (known(row.rmsd_ca)) items.push(["RMSD of CA", [fixed(row.rmsd_ca, 2), h("small", {}, " Å")]]);
    if (known(row.dockq)) items.push(["DockQ", fixed(row.dockq, 2)]);
    if (known(row.modelled_residues)) items.push(["residues modelled", [String(row.modelled_residues), h("small", {}, ` of ${row.length}`)]]);
    return h("dl", { class: "headline" }, items.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  // One residue is current at a time. Tracks, viewer and readout tell each other through this.
  function makeLink(data) {
    const listeners = [];
    const cleanups = [];
    const chains = new Map(data.chains.map((chain, index) => [chain.name, index]));
    let pinned = null;
    return {
      listen(listener) { listeners.push(listener); },
      onStop(cleanup) { cleanups.push(cleanup); },
      start() { for (const listener of listeners) listener(null, {}); },
      stop() { for (const cleanup of cleanups) cleanup(); },
      // `place` is [index of the chain, index of the residue], or null: back to the pinned one, if any.
      point(place, how = {}) {
        if (how.pin) pinned = place;
        const shown = place || pinned;
        for (const listener of listeners) listener(shown, how);
      },
      named(chain, residue) {
        const index = chains.get(chain);
        return index === undefined || !data.chains[index].sequence[residue - 1] ? null : [index, residue - 1];
      },
      get pinned() { return pinned; },
    };
  }

  const within = (ranges, index) => (ranges || []).some(([start, end]) => index >= start && index < end);

  function describe(row, data, place) {
    const chain = data.chains[place[0]];
    const index = place[1];
    const letter = chain.sequence[index];
    const parts = [`${data.chains.length > 1 ? `${chain.name} · ` : ""}${title3(THREE[letter] || "UNK")} ${index + 1}`];
    const confidence = chain.confidence[index];
    if (known(confidence)) parts.push(`${row.confidence_kind || "confidence"} ${fixed(confidence, 0)}`);
    else parts.push("not modelled");
    if (chain.lddt && known(chain.lddt[index])) parts.push(`lDDT-CA to the reference ${fixed(chain.lddt[index], 0)}`);
    if (chain.msa_coverage) parts.push(`${plural(chain.msa_coverage[index] ?? 0, "MSA row")}`);
    if (within(chain.invented, index)) parts.push("invented");
    return parts;
  }

  // ---------------------------------------------------------------- 3D view

  // One viewer for the page's life, moved from panel to panel: browsers allow a page some sixteen WebGL contexts.
  const stage = h("div", { class: "stage" });
  let sharedViewer = null;

  function viewerPart(row, data, link) {
    const state = { colour: "confidence", overlay: false, invented: true };
    const invented = data.chains.some((chain) => chain.invented.length);
    const modes = [["confidence", "Confidence"], ["chain", "Chain"], ["structure", "Secondary structure"]];
    const legend = h("div");
    const readout = h("p", { class: "readout", id: "readout" });
    const message = h("div", { class: "message" }, "Drawing the model …");
    const box = h("div", { class: "viewer", id: "viewer", role: "img", "aria-label": `Model of ${row.target} in three dimensions` }, message);
    let viewer = null;
    let model = null;
    let overlay = null;
    let atoms = new Map();
    let mark = null;
    let stopped = false;

    const check = (key, label) => h("label", { class: "check" },
      h("input", { type: "checkbox", "data-toggle": key, checked: state[key], onchange: (event) => { state[key] = event.target.checked; style(); } }), label);
    const tools = h("div", { class: "viewer-tools" },
      h("fieldset", { class: "segments", id: "colour-by" }, h("legend", { class: "visually-hidden" }, "Colour by"),
        modes.map(([value, label]) => h("label", {},
          h("input", { type: "radio", name: "colour", value, checked: value === state.colour, onchange: () => { state.colour = value; style(); } }), label))),
      data.overlay ? check("overlay", "Reference") : null,
      invented ? check("invented", "Mark invented loops") : null,
      h("button", { type: "button", class: "button", id: "reset-view", onclick: () => { if (viewer) { viewer.zoomTo({ model }, 300); link.point(null, { pin: true }); } } }, "Reset view"));
    const under = h("div", { class: "under-viewer" }, readout, legend);
    const index = new Map(data.chains.map((chain, at) => [chain.name, at]));

    function colourOf(atom) {
      const at = index.get(atom.chain) ?? 0;
      if (state.colour === "chain") return CHAINS[at % CHAINS.length];
      if (state.colour === "structure") return (STRUCTURE[atom.ss] || STRUCTURE.c)[0];
      return confidenceColour((data.chains[at]?.confidence || [])[atom.resi - 1], row.confidence_kind);
    }

    function showLegend() {
      let shown;
      if (state.colour === "confidence") shown = confidenceLegend(row.confidence_kind);
      else {
        const entries = state.colour === "chain" ? data.chains.map((chain, at) => [CHAINS[at % CHAINS.length], `chain ${chain.name}`]) : Object.values(STRUCTURE);
        shown = h("div", { class: "legend" }, entries.map(([colour, label]) => h("span", {}, h("i", { style: { background: colour } }), label)));
      }
      if (data.overlay && state.overlay) {
        const line = h("span", {}, h("i", { style: { background: overlayColour() } }), "reference");
        if (shown.classList.contains("legend")) shown.append(line);
        else shown = h("div", {}, shown, h("div", { class: "legend" }, line));
      }
      legend.replaceChildren(shown);
    }

    const overlayColour = () => (dark.matches ? "#c3ced7" : "#4a5560");

    function style() {
      showLegend();
      if (!viewer) return;
      const coloured = (atom) => colourOf(atom);
      model.setStyle({}, { cartoon: { colorfunc: coloured, arrows: true, thickness: 0.35 } });
      if (state.invented) {
        for (const chain of data.chains) {
          const numbers = chain.invented.flatMap(([start, end]) => Array.from({ length: end - start }, (_, at) => start + at + 1));
          // Sticks beside the ribbon: these residues have no counterpart in a template.
          if (numbers.length) model.setStyle({ chain: chain.name, resi: numbers },
            { cartoon: { colorfunc: coloured, arrows: true, thickness: 0.35 }, stick: { colorfunc: coloured, radius: 0.17 } });
        }
      }
      if (overlay) overlay.setStyle({}, state.overlay ? { cartoon: { style: "trace", color: overlayColour(), thickness: 0.16 } } : {});
      viewer.render();
    }

    link.listen((place, how) => {
      readout.replaceChildren();
      if (place) describe(row, data, place).forEach((part, at) => readout.append(at ? " · " : "", h(at ? "span" : "b", {}, part)));
      else readout.append(h("span", { class: "muted" }, "Point at a residue, here or in the track below; click to keep it."));
      if (!viewer) return;
      if (mark) { viewer.removeShape(mark); mark = null; }
      const at = place && atoms.get(`${data.chains[place[0]].name}:${place[1] + 1}`);
      if (at) mark = viewer.addSphere({ center: { x: at.x, y: at.y, z: at.z }, radius: 1.7, color: dark.matches ? "#ffffff" : "#16202a", opacity: 0.55 });
      if (at && how.centre) viewer.center({ model, chain: data.chains[place[0]].name, resi: place[1] + 1 }, 300);
      box.dataset.marked = at ? `${data.chains[place[0]].name}:${place[1] + 1}` : "";
      viewer.render();
    });

    // What lies far off fades into this colour; the canvas itself is transparent.
    function matchBackground() { viewer.setBackgroundColor(dark.matches ? "#171d23" : "#ffffff", 0); }
    function themeChanged() { if (viewer) matchBackground(); style(); }

    async function start() {
      showLegend();
      let lib;
      try { lib = await loadLibrary(); } catch (error) { message.textContent = `The viewer did not load: ${error.message}.`; return; }
      if (stopped) return;
      box.prepend(stage);
      try {
        sharedViewer ??= lib.createViewer(stage, { backgroundAlpha: 0, antialias: true, cartoonQuality: 7 });
        if (!sharedViewer) throw new Error("no WebGL");
      } catch {
        message.textContent = "This browser offers no WebGL, which the 3D view needs. The model is among the files below.";
        return;
      }
      viewer = sharedViewer;
      viewer.resize();
      model = viewer.addModel(data.model, "cif");
      atoms = new Map(model.selectedAtoms({ atom: "CA" }).map((atom) => [`${atom.chain}:${atom.resi}`, atom]));
      if (data.overlay) overlay = viewer.addModel(data.overlay, "cif");
      const select = { model };
      viewer.setHoverDuration(40);
      viewer.setHoverable(select, true, (atom) => link.point(link.named(atom.chain, atom.resi)), () => link.point(null));
      viewer.setClickable(select, true, (atom) => link.point(link.named(atom.chain, atom.resi), { pin: true }));
      matchBackground();
      style();
      viewer.zoomTo(select);
      viewer.zoom(1.12);
      viewer.render();
      message.remove();
      box.dataset.drawn = "yes";
    }

    // The wheel scrolls the page until the view has been clicked: a page must not trap who passes over it.
    let active = false;
    box.addEventListener("pointerdown", () => { active = true; });
    box.addEventListener("pointerleave", () => { active = false; link.point(null); });
    box.addEventListener("wheel", (event) => { if (!active && !event.ctrlKey) event.stopPropagation(); }, { capture: true });

    const resize = new ResizeObserver(() => { if (viewer) viewer.resize(); });
    resize.observe(box);
    dark.addEventListener("change", themeChanged);
    link.onStop(() => {
      stopped = true;
      resize.disconnect();
      dark.removeEventListener("change", themeChanged);
      if (viewer) { viewer.removeAllShapes(); viewer.removeAllModels(); viewer.render(); }
      stage.remove();
      viewer = null;
    });
    return { tools, box, under, start };
  }

  // ---------------------------------------------------------------- tracks along the sequence

  let patterns = 0;
  function hatch(className, size = 5) {
    const id = `hatch-${(patterns += 1)}`;
    return [`url(#${id})`, s("pattern", { id, width: size, height: size, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      s("line", { x1: 0, y1: 0, x2: 0, y2: size, class: className, "stroke-width": 2 }))];
  }

  const runsOf = (flags) => {
    const runs = [];
    flags.forEach((flag, index) => {
      if (!flag) return;
      if (runs.length && runs.at(-1)[1] === index) runs.at(-1)[1] = index + 1;
      else runs.push([index, index + 1]);
    });
    return runs;
  };

  function trackParts(row, data, link) {
    const outliers = new Set(((data.scores.ramachandran || {}).outlier_residues || []).map(([chain, residue]) => `${chain}:${residue}`));
    const figures = data.chains.map((chain, index) => track(row, data, chain, index, link, outliers));
    const key = (label, ...shapes) => h("span", {}, s("svg", { viewBox: "0 0 18 12", "aria-hidden": "true" }, shapes), label);
    const keys = [];
    if (data.chains.some((chain) => chain.lddt)) keys.push(key("lDDT-CA to the reference", s("path", { class: "lddt", d: "M0 9 5 4 10 7 18 2", fill: "none", stroke: "var(--line)", "stroke-width": 1.4 })));
    if (data.chains.some((chain) => chain.invented.length)) {
      const [fillValue, pattern] = hatch("hatch-ink");
      keys.push(key("invented, no template", s("defs", {}, pattern), s("rect", { width: 18, height: 12, fill: "var(--hatch)" }), s("rect", { width: 18, height: 12, fill: fillValue })));
    }
    if (data.chains.some((chain) => chain.confidence.some((value) => !known(value)))) {
      const [fillValue, pattern] = hatch("hatch-line");
      keys.push(key("not modelled", s("defs", {}, pattern), s("rect", { width: 18, height: 12, fill: fillValue, opacity: 0.6 })));
    }
    if (outliers.size) keys.push(key("Ramachandran outlier", s("path", { d: "M9 2 14 10H4z", fill: "var(--failed)" })));
    if (data.chains.some((chain) => chain.msa_coverage)) keys.push(key("MSA rows at each residue", s("rect", { y: 3, width: 18, height: 9, fill: "var(--coverage)" })));
    return [figures, keys.length ? h("div", { class: "key" }, keys) : null];
  }

  function track(row, data, chain, chainIndex, link, outliers) {
    const length = chain.sequence.length;
    const LEFT = 26; const RIGHT = 6; const TOP = 8; const HEIGHT = 84; const COVER = 24;
    const coverage = chain.msa_coverage;
    const base = TOP + HEIGHT;
    const coverTop = base + 10;
    const axis = coverage ? coverTop + COVER : base;
    const total = axis + 20;
    const svg = s("svg", { height: total, tabindex: 0, role: "slider", "aria-orientation": "horizontal", "aria-valuemin": 1, "aria-valuemax": length,
      "aria-valuenow": 1, "aria-label": `Residue of chain ${chain.name}` });
    const cursor = s("g", { visibility: "hidden" });
    let width = 0;
    let at = 0;

    const x = (index) => LEFT + (index / length) * (width - LEFT - RIGHT);
    const y = (value) => base - (Math.max(0, Math.min(100, value)) / 100) * HEIGHT;

    function draw() {
      const inner = width - LEFT - RIGHT;
      svg.setAttribute("viewBox", `0 0 ${width} ${total}`);
      const [inventedFill, inventedPattern] = hatch("hatch-ink");
      const [absentFill, absentPattern] = hatch("hatch-line");
      const shapes = [s("defs", {}, inventedPattern, absentPattern)];
      for (const value of [0, 50, 100]) {
        shapes.push(s("line", { class: value ? "grid" : "axis", x1: LEFT, x2: width - RIGHT, y1: y(value) + 0.5, y2: y(value) + 0.5 }),
          s("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
      }
      for (const [start, end] of runsOf(chain.confidence.map((value) => !known(value)))) {
        shapes.push(s("rect", { class: "unmodelled", x: x(start), y: TOP, width: x(end) - x(start), height: HEIGHT, fill: absentFill, opacity: 0.6 }));
      }
      // A bar for each residue, or for as many as there are pixels: the mean of those that share one.
      const bins = Math.min(length, Math.max(1, Math.floor(inner)));
      const bars = s("g", { class: "bars", "shape-rendering": "crispEdges" });
      for (let bin = 0; bin < bins; bin++) {
        const [start, end] = [Math.floor((bin * length) / bins), Math.floor(((bin + 1) * length) / bins)];
        const values = chain.confidence.slice(start, end).filter(known);
        if (!values.length) continue;
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
        bars.append(s("rect", { x: x(start), y: y(mean), width: x(end) - x(start), height: base - y(mean), fill: confidenceColour(mean, row.confidence_kind) }));
      }
      shapes.push(bars);
      for (const [start, end] of chain.invented) {
        shapes.push(s("rect", { class: "invented", x: x(start), y: TOP, width: x(end) - x(start), height: HEIGHT, fill: inventedFill, opacity: 0.75 }));
      }
      if (chain.lddt) {
        let path = "";
        let open = false;
        chain.lddt.forEach((value, index) => {
          if (known(value)) path += `${open ? "L" : "M"}${x(index + 0.5).toFixed(1)} ${y(value).toFixed(1)}`;
          open = known(value);
        });
        shapes.push(s("path", { d: path, fill: "none", stroke: "var(--surface)", "stroke-width": 3.4, opacity: 0.65 }), s("path", { class: "lddt", d: path }));
      }
      for (let index = 0; index < length; index++) {
        if (!outliers.has(`${chain.name}:${index}`)) continue;
        const middle = x(index + 0.5);
        shapes.push(s("path", { class: "outlier", d: `M${middle - 4} ${base + 8}h8L${middle} ${base + 1}z` }));
      }
      if (coverage) {
        const most = Math.max(1, ...coverage);
        let path = `M${x(0)} ${axis}`;
        coverage.forEach((count, index) => { path += `L${x(index + 0.5).toFixed(1)} ${(axis - (count / most) * COVER).toFixed(1)}`; });
        shapes.push(s("path", { class: "coverage", d: `${path}L${x(length)} ${axis}Z` }),
          s("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: axis + 0.5, y2: axis + 0.5 }),
          s("text", { x: LEFT - 6, y: coverTop + 8, "text-anchor": "end" }, most > 9999 ? `${Math.round(most / 1000)}k` : String(most)));
      }
      const stride = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000].find((value) => (value / length) * inner >= 46) || 5000;
      for (let residue = stride; residue <= length; residue += stride) {
        shapes.push(s("line", { class: "axis", x1: x(residue - 0.5), x2: x(residue - 0.5), y1: axis, y2: axis + 4 }),
          s("text", { x: x(residue - 0.5), y: axis + 16, "text-anchor": "middle" }, String(residue)));
      }
      shapes.push(cursor);
      svg.replaceChildren(...shapes);
    }

    function indexAt(event) {
      const bounds = svg.getBoundingClientRect();
      const index = Math.floor(((event.clientX - bounds.left - LEFT) / (width - LEFT - RIGHT)) * length);
      return Math.max(0, Math.min(length - 1, index));
    }
    let waiting = 0; // a pointer moves faster than a 3D view draws
    svg.addEventListener("pointermove", (event) => {
      const index = indexAt(event);
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => link.point([chainIndex, index]));
    });
    svg.addEventListener("pointerleave", () => { cancelAnimationFrame(waiting); link.point(null); });
    svg.addEventListener("click", (event) => link.point([chainIndex, indexAt(event)], { pin: true, centre: true }));
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) link.point([chainIndex, at], { pin: true }); });
    svg.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, PageUp: at + 10, PageDown: at - 10, Home: 0, End: length - 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      link.point([chainIndex, Math.max(0, Math.min(length - 1, moves[event.key]))], { pin: true });
    });
    link.listen((place) => {
      const here = place && place[0] === chainIndex;
      cursor.setAttribute("visibility", here ? "visible" : "hidden");
      svg.setAttribute("aria-valuetext", here ? describe(row, data, place).join(", ") : `${length} residues`);
      if (!here) return;
      at = place[1];
      svg.setAttribute("aria-valuenow", at + 1);
      const middle = x(at + 0.5);
      cursor.replaceChildren(s("line", { class: "cursor", x1: middle, x2: middle, y1: TOP - 4, y2: axis }));
      if (known(chain.confidence[at])) cursor.append(s("circle", { class: "cursor-dot", cx: middle, cy: y(chain.confidence[at]), r: 3.5 }));
    });

    const resize = new ResizeObserver(() => {
      const now = Math.round(svg.clientWidth);
      if (now > LEFT + RIGHT && now !== width) { width = now; draw(); link.point(null); }
    });
    resize.observe(svg);
    link.onStop(() => resize.disconnect());
    const depth = known(chain.msa_depth) ? `MSA ${plural(chain.msa_depth, "row")}${known(chain.msa_neff) ? `, Neff ${fixed(chain.msa_neff, 1)}` : ""}` : null;
    return h("figure", { class: "track", "data-chain": chain.name },
      h("figcaption", {}, `Chain ${chain.name}`, h("span", {}, [plural(length, "residue"), depth].filter(Boolean).join(" · "))), svg);
  }

  // ---------------------------------------------------------------- numbers

  function numbers(row, data, link) {
    const groups = h("div", { class: "pairs" });
    const add = (title, entries, ...more) => {
      const shown = entries.filter(([, value]) => known(value) && value !== "–");
      if (shown.length || more.some(Boolean)) groups.append(h("div", {}, h("h3", {}, title), numberTable(shown), more));
    };
    const reference = data.reference;
    add(reference.name ? `Against ${reference.name}` : "Against the reference", [
      ["TM-score", fixed(reference.tm_score, 3)], ["lDDT, all atoms", fixed(reference.lddt, 3)], ["lDDT, CA", fixed(reference.lddt_ca, 3)],
      ["RMSD of CA", known(reference.rmsd_ca) ? `${fixed(reference.rmsd_ca, 2)} Å` : null], ["DockQ", fixed(reference.dockq, 3)],
      ["Residues compared", known(reference.coverage) ? percent(reference.coverage) : null]]);

    const { clashes, ramachandran, relaxed } = data.scores;
    const counts = ramachandran ? [ramachandran.favoured, ramachandran.allowed, ramachandran.outliers] : [];
    const sum = counts.reduce((total, value) => total + (value || 0), 0);
    const share = (value) => (known(value) ? `${value}${sum > 1 ? ` (${((100 * value) / sum).toFixed(1)} %)` : ""}` : null);
    // Oddities are named only where there are some.
    const some = (name) => ((data.scores.geometry || {})[name] || []).length || null;
    const wrong = (ramachandran || {}).outlier_residues || [];
    add("Geometry", [
      ["Clashes", clashes && (known(clashes.before) || known(clashes.after)) ? (known(clashes.before) && known(clashes.after) ? `${clashes.before} → ${clashes.after}` : String(clashes.after ?? clashes.before)) : null],
      ["Ramachandran favoured", share((ramachandran || {}).favoured)], ["Ramachandran outliers", share((ramachandran || {}).outliers)],
      ["Wrong chirality", some("wrong_chirality")], ["Twisted peptide bonds", some("twisted_peptides")],
      ["Cis peptide bonds", some("cis_peptides")], ["Chain breaks", some("breaks")],
      ["Relaxed", known(relaxed) ? (relaxed ? "yes" : "no") : null]],
    wrong.length ? [h("p", { class: "chips-title" }, "The outliers"), h("div", { class: "chips" }, wrong.slice(0, 40).map(([chain, residue, name]) => h("button", { type: "button", class: "chip",
      onclick: () => { const place = link.named(chain, residue + 1); if (place) link.point(place, { pin: true, centre: true }); } },
    `${data.chains.length > 1 ? `${chain} ` : ""}${title3(String(name))} ${residue + 1}`)), wrong.length > 40 ? h("span", { class: "muted" }, `and ${wrong.length - 40} more`) : null)] : null);

    const templates = data.scores.templates || [];
    if (templates.length) {
      groups.append(h("div", {}, h("h3", {}, templates.length === 1 ? "Template" : "Templates"), h("div", { class: "scroll" },
        h("table", { class: "facts", id: "templates" },
          h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Entry"), ["Identity", "Coverage", "E-value"].map((label) => h("th", { scope: "col", class: "number" }, label)))),
          h("tbody", {}, templates.map((template) => h("tr", {}, h("th", { scope: "row" }, [template.entry, template.chain].filter(Boolean).join("_")),
            h("td", { class: "number" }, percent(template.identity)), h("td", { class: "number" }, percent(template.coverage)),
            h("td", { class: "number" }, score(template.evalue)))))))));
    }
    return groups;
  }

  const numberTable = (entries) => h("table", { class: "facts" }, h("tbody", {}, entries.map(([name, value]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, value)))));

  // ---------------------------------------------------------------- alignment

  function alignmentPart(data) {
    return data.alignment.map((records, index) => {
      const target = records[0][1];
      const names = records.map(([name]) => name);
      const label = Math.min(14, Math.max(...names.map((name) => name.length)));
      const cut = (name) => (name.length > label ? `${name.slice(0, label - 1)}…` : name).padEnd(label);
      const pre = h("pre", { class: "alignment", tabindex: 0, "aria-label": `Alignment of chain ${data.chains[index]?.name || index + 1}` });
      let columnsShown = 0;
      const draw = () => {
        // The width of a character of this font at this size, about; rows wrap so that nothing needs scrolling sideways.
        const fit = Math.max(20, Math.floor((pre.clientWidth - 36) / 7.75) - label - 14);
        const columnsNow = Math.min(100, Math.floor(fit / 10) * 10);
        if (columnsNow === columnsShown || pre.clientWidth === 0) return;
        columnsShown = columnsNow;
        const position = records.map(() => 0);
        const lines = [];
        for (let start = 0; start < target.length; start += columnsShown) {
          records.forEach(([, aligned], at) => {
            const part = aligned.slice(start, start + columnsShown);
            const residues = part.replace(/[-.]/g, "").length;
            const first = position[at] + (residues ? 1 : 0);
            position[at] += residues;
            if (at > 0) {
              const reference = target.slice(start, start + columnsShown);
              const same = [...part].map((letter, place) => (letter === reference[place] && /[A-Za-z]/.test(letter) ? "|" : " ")).join("");
              lines.push(h("b", {}, `${" ".repeat(label + 7)}${same}\n`));
            }
            lines.push(h("b", {}, `${cut(names[at])} ${String(first).padStart(5)} `), part, h("b", {}, ` ${position[at]}\n`));
          });
          if (start + columnsShown < target.length) lines.push("\n");
        }
        pre.replaceChildren(...lines);
      };
      const resize = new ResizeObserver(draw);
      resize.observe(pre);
      current.onStop(() => resize.disconnect());
      return h("div", {}, data.alignment.length > 1 ? h("p", { class: "muted" }, `Chain ${data.chains[index]?.name || index + 1}`) : null, pre);
    });
  }

  // ---------------------------------------------------------------- start

  function route(first) {
    const match = location.hash.match(/^#p=(.*)$/);
    if (match) {
      let key = "";
      try { key = decodeURIComponent(match[1]); } catch { /* a mangled address names no prediction */ }
      const row = byKey.get(key);
      if (row) openPanel(row, !first);
    } else if (first !== true && (location.hash === "" || location.hash === "#none")) {
      if (selected) closePanel();
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    if (!received.index) {
      $("nothing").replaceChildren("The table did not load: data/index.js is missing beside this page.");
      $("nothing").hidden = false;
      return;
    }
    rows = received.index.rows;
    byKey = new Map(rows.map((row) => [keyOf(row), row]));
    for (const row of rows) {
      row.clashes = row.clashes_after ?? row.clashes_before; // a model that was not relaxed has no "after"
      row.text = [row.target, row.engine, row.status, row.kind, row.template, row.reason].filter(Boolean).join(" ").toLowerCase();
    }
    buildMasthead();
    buildTable();
    buildProblems();
    buildMade();
    window.addEventListener("hashchange", () => route(false));
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && selected && !(event.target.matches("input[type=search]") && event.target.value)) {
        location.hash = "#none";
        closePanel();
      }
    });
    wideScreen.addEventListener("change", () => setModal(selected !== null));
    route(true);
    // With room for both, begin with something to look at.
    if (!selected && wideScreen.matches) {
      const begin = rows.find((row) => row.status === "done");
      if (begin) openPanel(begin, false);
    }
    document.body.dataset.ready = "yes";
  });
})();
