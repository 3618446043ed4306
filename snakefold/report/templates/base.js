/* What all parts of the page use: its data, making of elements, formatting, settings. No framework, nothing from outside.
 *
 * Data arrive through `snakefoldReport.index/timings/prediction/pae(...)`, called by the files in data/, because scripts
 * load from file: addresses and fetch() does not. In single.html they are JSON blocks instead. Everything shown is put in
 * as text, never as HTML: target names, reasons and log lines come from outside.
 */
"use strict";

window.snakefold = {};

((app) => {
  // ---------------------------------------------------------------- data

  const received = { index: null, timings: null, prediction: null, pae: null };
  window.snakefoldReport = Object.fromEntries(Object.keys(received).map((kind) => [kind, (value) => { received[kind] = value; }]));

  function embedded(source) {
    const node = document.getElementById(source);
    return node && node.type === "application/json" ? node : null;
  }

  function loadScript(source) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = () => { script.remove(); resolve(); };
      script.onerror = () => { script.remove(); reject(new Error(`cannot read ${decodeURIComponent(source)}`)); };
      document.head.append(script);
    });
  }

  function load(source, kind) {
    const node = embedded(source);
    if (node) return Promise.resolve().then(() => JSON.parse(node.textContent));
    if (app.alone) return Promise.reject(new Error("this file holds the table of all predictions but not the data of this one; the report's folder has them"));
    // A script's onload follows its execution directly, so `received[kind]` is this script's value.
    return loadScript(source).then(() => {
      const value = received[kind];
      received[kind] = null;
      return value;
    });
  }

  const KEPT = 6; // predictions kept in memory; a thousand models would be too much
  const loaded = new Map();

  app.loadPrediction = (row) => {
    let promise = loaded.get(row.data);
    if (promise) loaded.delete(row.data);
    else promise = load(row.data, "prediction");
    promise.catch(() => loaded.delete(row.data));
    loaded.set(row.data, promise);
    while (loaded.size > KEPT) loaded.delete(loaded.keys().next().value);
    return promise;
  };
  // single.html holds the data of some predictions only.
  app.isThere = (row) => !app.alone || embedded(row.data) !== null;
  app.loadPae = (source) => load(source, "pae");

  let library = null;
  app.loadLibrary = () => (library ??= window.$3Dmol ? Promise.resolve(window.$3Dmol) : loadScript("assets/3Dmol-min.js").then(() => window.$3Dmol));

  app.readData = () => {
    const node = embedded("data/index.js");
    if (node) received.index = JSON.parse(node.textContent);
    app.index = received.index;
    app.timings = received.timings || {};
    app.alone = Boolean(app.index && app.index.alone);
    return app.index !== null;
  };

  // ---------------------------------------------------------------- settings of this browser

  // Reading or writing them may be forbidden, as it is for some browsers' file: pages: then they last as long as the page.
  const remembered = new Map();
  app.remember = (name, value) => {
    remembered.set(name, value);
    try { localStorage.setItem(`snakefold.${name}`, JSON.stringify(value)); } catch { /* see above */ }
  };
  app.recall = (name, otherwise) => {
    if (remembered.has(name)) return remembered.get(name);
    try {
      const text = localStorage.getItem(`snakefold.${name}`);
      return text === null ? otherwise : JSON.parse(text);
    } catch { return otherwise; }
  };
  app.forget = (name) => {
    remembered.delete(name);
    try { localStorage.removeItem(`snakefold.${name}`); } catch { /* see above */ }
  };

  // ---------------------------------------------------------------- elements

  const SVG = "http://www.w3.org/2000/svg";
  app.$ = (id) => document.getElementById(id);

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
  const h = (app.h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children));
  const s = (app.s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children));

  app.icon = (path) => s("svg", { viewBox: "0 0 14 14", "aria-hidden": "true", fill: "none", stroke: "currentColor",
    "stroke-width": 1.6, "stroke-linecap": "round", "stroke-linejoin": "round" }, s("path", { d: path }));

  app.segments = (legend, name, entries, chosen, onchoice, id) => h("fieldset", { class: "segments", id },
    h("legend", { class: "visually-hidden" }, legend),
    entries.map(([value, label]) => h("label", {},
      h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onchoice(value) }), label)));

  app.block = (title, ...children) => h("section", { class: "block" }, title ? h("h3", {}, title) : null, children);

  app.factTable = (entries, mono = false) => h("table", { class: "facts" }, h("tbody", {}, entries.map(([name, value]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: mono ? "mono" : null }, value)))));

  app.numberTable = (entries) => h("table", { class: "facts plain-numbers" }, h("tbody", {}, entries.map(([name, value]) =>
    h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "number" }, value)))));

  // A long name may break after its separators.
  app.breakable = (name) => name.split(/(?<=[_.-])/).flatMap((part, index) => (index ? [h("wbr"), part] : [part]));
  app.coded = (text) => text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));

  // ---------------------------------------------------------------- words and numbers

  const known = (app.known = (value) => value !== null && value !== undefined);
  app.fixed = (value, decimals) => (known(value) ? Number(value).toFixed(decimals) : "–");
  app.percent = (value) => (known(value) ? `${Math.round(100 * value)} %` : "–");
  app.plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
  app.words = (kind) => {
    const text = (kind || "").replaceAll("_", " ").replace(/\bmsa\b/, "MSA");
    return text.charAt(0).toUpperCase() + text.slice(1);
  };
  app.title3 = (code) => code.charAt(0) + code.slice(1).toLowerCase();
  app.plainValue = (value) => (known(value) ? (typeof value === "object" ? JSON.stringify(value) : String(value)) : "–");

  app.bytes = (count) => {
    if (count < 1000) return `${count} B`;
    if (count < 999500) return `${(count / 1e3).toFixed(count < 9950 ? 1 : 0)} kB`;
    return `${(count / 1e6).toFixed(1)} MB`;
  };

  app.seconds = (value) => {
    if (!known(value)) return "–";
    if (value < 90) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
    if (value < 5400) return `${Math.round(value / 60)} min`;
    return `${(value / 3600).toFixed(1)} h`;
  };

  app.evalue = (value, decimals = 1) => { // 3e-41, 0.002
    if (!known(value)) return "–";
    if (value === 0) return "0";
    return value < 1e-3 ? value.toExponential(0) : value.toPrecision(decimals + 1);
  };

  // ---------------------------------------------------------------- rows

  app.STATUSES = ["done", "skipped", "failed"];
  app.FLAGS = {
    too_far: ["distant template", "The engine calls its template too far from the target: the fold may be right, details will not be."],
    partial: ["partial model", "Some residues of the target are not in the model."],
    not_relaxed: ["not relaxed", "The model stands as the engine made it; the notes say why."],
    clashes: ["clashes", "Atoms of the final model lie too near to each other."],
    geometry: ["odd geometry", "Wrong chirality, twisted peptide bonds or chain breaks."],
  };
  app.keyOf = (row) => `${row.target}/${row.engine}`;
  app.hrefOf = (row) => `#p=${encodeURIComponent(app.keyOf(row))}`;
  app.rows = [];
  app.byKey = new Map();
  app.view = []; // the rows that the filters let through, in the order shown
  app.selected = null;

  app.wideScreen = matchMedia("(min-width: 1200px)");
  app.dark = matchMedia("(prefers-color-scheme: dark)");
})(window.snakefold);
