/* The masthead, and the views beside the table: what has no model and why, and how all was made. */
"use strict";

((app) => {
  const { $, h, known, plural, words, plainValue } = app;
  const VIEWS = ["predictions", "problems", "made"];

  app.showView = (name) => {
    for (const view of VIEWS) $(view).hidden = view !== name;
    for (const link of $("sections").querySelectorAll("a")) {
      if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.body.dataset.view = name;
  };
  app.isView = (name) => VIEWS.includes(name);

  app.print = (what) => {
    document.body.dataset.print = what;
    window.print();
  };

  app.buildMasthead = () => {
    const counts = Object.fromEntries(app.STATUSES.map((status) => [status, app.rows.filter((row) => row.status === status).length]));
    for (const status of app.STATUSES) {
      $("counts").append(h("div", { class: counts[status] ? status : `${status} zero` },
        h("dt", {}, status), h("dd", {}, counts[status].toLocaleString("en"))));
      if (counts[status]) $("proportion").append(h("span", { class: status, style: { flex: `${counts[status]} 1 0` } }));
    }
    const [predictions, problems] = $("sections").querySelectorAll("a");
    predictions.append(h("span", {}, app.rows.length.toLocaleString("en")));
    problems.append(h("span", {}, (counts.skipped + counts.failed).toLocaleString("en")));
    $("print-page").addEventListener("click", () => app.print("page"));
    if (app.alone && app.index.alone.held < app.index.alone.of) {
      $("alone").textContent = `This file holds the details of ${app.index.alone.held} of ${plural(app.index.alone.of, "prediction")}; the report's folder has all.`;
      $("alone").hidden = false;
    }
  };

  // ---------------------------------------------------------------- failed and skipped

  function logOf(row) {
    const box = h("pre", { tabindex: 0, "aria-label": "Last log lines" }, "…");
    return h("details", { ontoggle: (event) => {
      if (!event.target.open || box.dataset.ready) return;
      box.dataset.ready = "yes";
      app.loadPrediction(row).then((data) => { box.textContent = data.log.length ? data.log.join("\n") : "The log is empty."; },
        (error) => { box.textContent = error.message; });
    } }, h("summary", {}, `Last log lines of ${row.target}`), box);
  }

  app.buildProblems = () => {
    const kinds = new Map(); // status and kind -> reason -> rows
    for (const status of ["failed", "skipped"]) {
      for (const row of app.rows) {
        if (row.status !== status) continue;
        const name = `${status}\n${row.kind || ""}`;
        if (!kinds.has(name)) kinds.set(name, new Map());
        const reasons = kinds.get(name);
        const reason = row.reason || "No reason was recorded.";
        if (!reasons.has(reason)) reasons.set(reason, []);
        reasons.get(reason).push(row);
      }
    }
    const body = $("problems-body");
    if (!kinds.size) body.append(h("p", { class: "empty" }, "Nothing failed, and no prediction was skipped."));
    for (const reasons of kinds.values()) {
      const cases = [...reasons].sort((a, b) => b[1].length - a[1].length);
      const count = cases.reduce((sum, [, rows]) => sum + rows.length, 0);
      const { status, kind, remedy } = cases[0][1][0];
      const list = h("div");
      const group = h("article", { class: "group" },
        h("header", {}, h("span", { class: `status ${status}` }, words(status)),
          h("h3", {}, kind ? words(kind) : "Without a named cause"),
          h("span", { class: "muted" }, plural(count, "prediction"))),
        h("p", { class: "remedy" }, h("b", {}, "What to do: "), app.coded(remedy)), list);
      let shown = 0;
      const more = h("button", { type: "button", class: "button", onclick: () => show(200) });
      function show(number) {
        list.append(...cases.slice(shown, shown + number).map(([reason, rows]) => caseOf(reason, rows)));
        shown = Math.min(cases.length, shown + number);
        more.hidden = shown >= cases.length;
        more.textContent = `Show ${plural(Math.min(200, cases.length - shown), "more reason", "more reasons")}`;
      }
      show(20);
      group.append(more);
      body.append(group);
    }
  };

  const NAMED = 60; // predictions named below one reason until asked for the rest

  function caseOf(reason, rows) {
    const engines = new Set(app.rows.map((row) => row.engine));
    const names = (some) => some.map((row) => h("li", {}, h("a", { href: app.hrefOf(row) }, app.breakable(row.target)),
      engines.size > 1 ? h("span", { class: "muted" }, ` ${row.engine}`) : null));
    const list = h("ul", { class: "names" }, names(rows.slice(0, NAMED)));
    const steps = [...new Set(rows.map((row) => row.step).filter(Boolean))];
    return h("div", { class: "case" },
      h("p", { class: "reason" }, reason, h("span", { class: "muted" }, [rows.length > 1 ? ` · ${plural(rows.length, "prediction")}` : "", steps.length ? ` · at ${steps.join(", ")}` : ""])),
      list,
      rows.length > NAMED ? h("button", { type: "button", class: "plain", onclick: (event) => { list.append(...names(rows.slice(NAMED))); event.target.remove(); } }, `and ${rows.length - NAMED} more`) : null,
      rows.filter((row) => row.log).slice(0, 3).map(logOf));
  }

  // ---------------------------------------------------------------- how it was made

  const shortened = (digest) => h("span", { title: digest }, `${plainValue(digest).slice(0, 12)}…`);

  app.buildMade = () => {
    const run = app.index.run || {};
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
      cards.append(h("div", { class: "card" }, h("h3", {}, "Software"), app.factTable(Object.entries(run.software).map(([name, version]) => [name, plainValue(version)]))));
    }
    const rest = Object.entries(run).filter(([key]) => !["software", "databases"].includes(key));
    if (rest.length) {
      cards.append(h("div", { class: "card" }, h("h3", {}, "Settings"),
        app.factTable(rest.map(([key, value]) => [words(key), /digest|sha256/.test(key) ? h("code", {}, plainValue(value)) : plainValue(value)]))));
    }
    const order = ["download_database", "search_msa", "search_templates", "fold", "relax", "score"];
    const rank = ([name]) => (order.includes(name) ? order.indexOf(name) : order.length);
    const steps = Object.entries(app.timings.steps || {}).sort((a, b) => rank(a) - rank(b));
    if (steps.length) {
      cards.append(h("div", { class: "card" }, h("h3", {}, "Time"), app.factTable(steps.map(([name, value]) => [words(name), app.seconds(value)]))));
    }
    if (!cards.childElementCount) cards.append(h("p", { class: "fine" }, "Nothing was recorded."));
    const { single, summary } = app.index;
    $("made-body").append(cards, h("p", { class: "credits" },
      app.alone ? "The whole table is in summary.tsv of the run's results." : ["The whole table: ", h("a", { href: summary }, "summary.tsv"), "."],
      single ? [" This report in one file, to be sent to somebody: ", h("a", { href: single.href }, "single.html"), ` (${app.bytes(single.bytes)}).`] : null,
      " Structures are drawn by 3Dmol.js (", app.alone ? "BSD-3-Clause, University of Pittsburgh" : h("a", { href: "assets/3Dmol-LICENSE.txt" }, "licence"), ")."));
  };
})(window.snakefold);
