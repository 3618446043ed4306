/* The start: data in, parts built, and what the address asks for shown. */
"use strict";

((app) => {
  const { $ } = app;

  // #p=<target>/<engine> is a prediction's address; #<target> finds its first.
  function rowAt(hash) {
    let name = "";
    try { name = decodeURIComponent(hash.replace(/^#(p=)?/, "")); } catch { /* a mangled address names no prediction */ }
    return app.byKey.get(name) || (hash.startsWith("#p=") ? null : app.rows.find((row) => row.target === name)) || null;
  }

  app.goTo = (view) => { location.hash = `#${view}`; };

  function route(first) {
    const name = location.hash.slice(1);
    const row = rowAt(location.hash);
    if (row) {
      app.openPanel(row, !first);
    } else if (app.isView(name)) {
      app.showView(name);
      if (!first && !app.wideScreen.matches && app.selected) app.closePanel();
      scrollTo(0, 0); // the browser went to the view's heading
    } else if (!first && (name === "" || name === "none") && app.selected) app.closePanel();
  }

  function start() {
    if (!app.readData()) {
      $("nothing").replaceChildren("The table did not load: data/index.js is missing beside this page.");
      $("nothing").hidden = false;
      return;
    }
    app.rows = app.index.rows;
    app.byKey = new Map(app.rows.map((row) => [app.keyOf(row), row]));
    app.prepareRows();
    app.showView("predictions");
    if (!app.rows.length) $("nothing").replaceChildren("There are no predictions.");
    app.buildMasthead();
    app.buildTable();
    app.buildProblems();
    app.buildMade();
    app.buildKeys();
    window.addEventListener("hashchange", () => route(false));
    app.wideScreen.addEventListener("change", () => app.setModal(app.selected !== null));
    addEventListener("beforeprint", () => {
      // Without a word from one of the print buttons: the open prediction, else the view.
      document.body.dataset.print ??= app.selected ? "panel" : "page";
    });
    addEventListener("afterprint", () => { delete document.body.dataset.print; });
    route(true);
    // With room for both, begin with something to look at.
    if (!app.selected && app.wideScreen.matches && document.body.dataset.view === "predictions") {
      const begin = app.rows.find((row) => row.status === "done");
      if (begin) app.openPanel(begin, false);
    }
    document.body.dataset.ready = "yes";
    performance.mark("ready"); // bench/report.py reads these marks
  }

  start();
})(window.snakefold);
