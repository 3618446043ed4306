/* The panel of one prediction. */
"use strict";

((app) => {
  const { $, h, known, fixed, percent, plural, words, title3, block } = app;
  let opened = 0; // counts openings, so that a slow load of an earlier choice is dropped
  let current = null; // the link of the open panel
  app.viewer = null; // the viewer of the open panel, for the keyboard

  app.updateSteps = () => {
    const at = app.selected ? app.view.indexOf(app.selected) : -1;
    for (const [id, step] of [["panel-previous", -1], ["panel-next", 1]]) {
      const button = $(id);
      if (button) button.disabled = at < 0 || !app.view[at + step];
    }
  };

  app.step = (by) => {
    const at = app.selected ? app.view.indexOf(app.selected) : -1;
    const next = app.view[app.selected ? at + by : by > 0 ? 0 : app.view.length - 1];
    if (next && next !== app.selected) location.hash = app.hrefOf(next);
  };

  app.setModal = (on) => {
    // On a small screen the panel covers the page, which must then be out of reach of the keyboard as well.
    for (const id of ["masthead", "column"]) $(id).inert = on && !app.wideScreen.matches;
  };

  function leave() {
    opened += 1;
    if (current) current.stop();
    current = null;
    app.viewer = null;
  }

  app.closePanel = () => {
    const key = app.selected && app.keyOf(app.selected);
    app.selected = null;
    leave();
    $("panel").hidden = true;
    $("panel").replaceChildren();
    document.body.classList.remove("with-panel");
    app.setModal(false);
    app.markSelected();
    if (key) for (const line of $("table").tBodies[0].rows) if (line.dataset.key === key) line.querySelector("button").focus({ preventScroll: true });
  };

  app.openPanel = (row, focus) => {
    if (app.selected === row) return;
    app.selected = row;
    leave();
    const turn = opened;
    app.markSelected();
    const panel = $("panel");
    const took = (app.timings.predictions || {})[app.keyOf(row)];
    const facts = [row.engine, known(row.length) ? plural(row.length, "residue") : null, row.chains > 1 ? `${row.chains} chains` : null,
      known(took) ? app.seconds(took) : null];
    const body = h("div", { class: "panel-body" }, h("p", { class: "muted" }, "Loading …"));
    const button = (id, label, path, onclick) => h("button", { type: "button", class: "button", id, "aria-label": label, title: label, onclick }, app.icon(path));
    panel.replaceChildren(
      h("header", { class: "panel-head" },
        h("div", {}, h("h2", { id: "panel-title" }, app.breakable(row.target)),
          h("p", {}, h("span", { class: `status ${row.status}` }, words(row.status)), facts.filter(Boolean).map((fact) => h("span", {}, fact)))),
        h("nav", { "aria-label": "Predictions, one by one" },
          button("panel-print", "Print this prediction", "M4 5V2h6v3M4 10H2V5h10v5h-2M4 8h6v4H4z", () => app.print("panel")),
          button("panel-previous", "Previous prediction", "M2.5 9 7 4.5 11.5 9", () => app.step(-1)),
          button("panel-next", "Next prediction", "M2.5 5 7 9.5 11.5 5", () => app.step(1)),
          button("panel-close", "Close", "M3 3l8 8M11 3l-8 8", () => app.leavePanel()))),
      body);
    panel.hidden = false;
    panel.scrollTop = 0;
    document.body.classList.add("with-panel");
    app.setModal(true);
    app.updateSteps();
    if (focus) panel.focus({ preventScroll: true });
    app.loadPrediction(row).then((data) => { if (turn === opened) showPrediction(row, data, body); },
      (error) => { if (turn === opened) body.replaceChildren(h("p", { class: "reason" }, `This prediction's data did not load: ${error.message}.`)); });
  };

  app.leavePanel = () => {
    // An address that names nothing, so that going back in the history opens the panel again.
    location.hash = "#none";
    app.closePanel();
  };

  function showPrediction(row, data, body) {
    const parts = [];
    const done = row.status === "done";
    if (!done) {
      parts.push(h("div", { class: `banner ${row.status}` },
        h("h3", {}, [words(row.kind || row.status), row.step ? ` at ${row.step}` : ""].join("")),
        h("p", { class: "reason" }, row.reason || "No reason was recorded."),
        h("p", { class: "remedy" }, app.coded(row.remedy))));
      if (data.log.length) parts.push(block("Last log lines", h("pre", { tabindex: 0 }, data.log.join("\n"))));
    }
    const link = app.makeLink(row, data);
    current = link;
    if (done) parts.push(headline(row), flagList(row));
    let viewer = null;
    if (data.model) {
      viewer = app.viewerPart(row, data, link);
      parts.push(viewer.tools, viewer.box, viewer.under);
    } else if (done) {
      parts.push(h("p", { class: "muted" }, "This prediction's folder holds no model that can be drawn."));
    }
    if (data.chains.length) parts.push(block("Along the sequence", app.trackParts(row, data, link)));
    if (done) {
      parts.push(agreement(row, data));
      const plots = [app.ramachandranPlot(data, link), app.paePlot(data, link)].filter(Boolean);
      parts.push(block(null, h("div", { class: "pairs" }, geometry(data, link), plots, reference(data), msas(data))));
      parts.push(templates(data), interfaces(data));
    }
    if (data.alignment.length) parts.push(block("Template alignment", alignments(data, link)));
    if ((data.scores.notes || []).length) parts.push(block("Notes", h("ul", { class: "notes" }, data.scores.notes.map((note) => h("li", {}, note)))));
    if (data.files.length) {
      parts.push(block("Files", h("ul", { class: "downloads" }, data.files.map((file) =>
        h("li", {}, app.alone ? h("span", { class: "name" }, file.name) : h("a", { href: file.href, download: "" }, file.name), h("span", {}, app.bytes(file.bytes)))))),
      app.alone ? h("p", { class: "fine" }, `They lie in ${row.target}/${row.engine}/ of the run's results.`) : null);
    }
    if (done) parts.push(versions(data));
    body.replaceChildren(...parts.filter(Boolean));
    link.start();
    app.viewer = viewer;
    if (viewer) viewer.start();
  }

  function headline(row) {
    const items = [];
    if (known(row.mean_confidence)) items.push([`mean ${row.confidence_kind || "confidence"}`, fixed(row.mean_confidence, 1)]);
    if (known(row.ptm)) items.push(["pTM", fixed(row.ptm, 2)]);
    if (known(row.iptm)) items.push(["ipTM", fixed(row.iptm, 2)]);
    if (known(row.tm_score)) items.push(["TM-score", fixed(row.tm_score, 3)]);
    if (known(row.lddt)) items.push(["lDDT, all atoms", fixed(row.lddt, 3)]);
    if (known(row.rmsd_ca)) items.push(["RMSD of CA", [fixed(row.rmsd_ca, 2), h("small", {}, " Å")]]);
    if (known(row.dockq)) items.push(["DockQ", fixed(row.dockq, 2)]);
    if (known(row.agreement_lddt)) items.push(["agreement", fixed(row.agreement_lddt, 2)]);
    if (known(row.modelled_residues)) items.push(["residues modelled", [row.modelled_residues.toLocaleString("en"), h("small", {}, ` of ${row.length.toLocaleString("en")}`)]]);
    return h("dl", { class: "headline" }, items.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  function flagList(row) {
    if (!row.flags.length) return null;
    return h("ul", { class: "flags", "aria-label": "To know before trusting this model" }, row.flags.map((flag) => {
      const [label, why] = app.FLAGS[flag] || [words(flag), ""];
      const told = flag === "partial" ? `${label}, ${app.percent(row.modelled)}` : flag === "clashes" ? plural(row.clashes, "clash", "clashes") : label;
      return h("li", { title: why }, told);
    }));
  }

  // ---------------------------------------------------------------- numbers

  function group(title, entries, ...more) {
    const shown = entries.filter(([, value]) => known(value) && value !== "–");
    if (!shown.length && !more.some(Boolean)) return null;
    return h("div", {}, h("h3", {}, title), shown.length ? app.numberTable(shown) : null, more);
  }

  function chips(title, entries, most = 40) {
    if (!entries.length) return null;
    return [h("p", { class: "chips-title" }, title), h("div", { class: "chips" },
      entries.slice(0, most).map(([label, onclick]) => h("button", { type: "button", class: "chip", onclick }, label)),
      entries.length > most ? h("span", { class: "muted" }, `and ${entries.length - most} more`) : null)];
  }

  function geometry(data, link) {
    const { clashes, ramachandran, relaxed } = data.scores;
    const counts = ramachandran ? [ramachandran.favoured, ramachandran.allowed, ramachandran.outliers] : [];
    const sum = counts.reduce((total, value) => total + (value || 0), 0);
    const share = (value) => (known(value) ? `${value}${sum > 1 ? ` (${((100 * value) / sum).toFixed(1)} %)` : ""}` : null);
    const of = (name) => (data.scores.geometry || {})[name] || [];
    const named = ([chain, residue, name]) => `${data.chains.length > 1 ? `${chain} ` : ""}${title3(String(name))} ${residue + 1}`;
    const go = ([chain, residue], [chain2, residue2] = []) => () => {
      const place = link.named(chain, residue + 1);
      if (place) link.point(place, { pin: true, centre: true, with: known(chain2) ? link.named(chain2, residue2 + 1) : null });
    };
    const listed = (title, entries) => chips(title, entries.map((entry) => [named(entry), go(entry)]));
    return group("Geometry", [
      ["Clashes", clashes && (known(clashes.before) || known(clashes.after)) ? (known(clashes.before) && known(clashes.after) ? `${clashes.before} → ${clashes.after}` : String(clashes.after ?? clashes.before)) : null],
      ["Ramachandran favoured", share((ramachandran || {}).favoured)], ["Ramachandran outliers", share((ramachandran || {}).outliers)],
      // Oddities are named only where there are some.
      ["Wrong chirality", of("wrong_chirality").length || null], ["Twisted peptide bonds", of("twisted_peptides").length || null],
      ["Cis peptide bonds", of("cis_peptides").length || null], ["Chain breaks", of("breaks").length || null],
      ["Relaxed", known(relaxed) ? (relaxed ? "yes" : "no") : null]],
    listed("Ramachandran outliers", (ramachandran || {}).outlier_residues || []),
    chips("Clashes, worst first", ((clashes || {}).worst || []).map(([one, other, overlap]) =>
      [`${named(one)} ${one[3]} – ${named(other)} ${other[3]}, ${overlap} Å`, go(one, other)]), 12),
    listed("Wrong chirality", of("wrong_chirality")), listed("Twisted peptide bonds", of("twisted_peptides")), listed("Chain breaks", of("breaks")));
  }

  function reference(data) {
    const found = data.reference;
    return group(found.name ? `Against ${found.name}` : "Against the reference", [
      ["TM-score", fixed(found.tm_score, 3)], ["lDDT, all atoms", fixed(found.lddt, 3)], ["lDDT, CA", fixed(found.lddt_ca, 3)],
      ["RMSD of CA", known(found.rmsd_ca) ? `${fixed(found.rmsd_ca, 2)} Å` : null], ["DockQ", fixed(found.dockq, 3)],
      ["Residues compared", known(found.coverage) ? percent(found.coverage) : null]]);
  }

  const headed = (id, labels, rows) => h("div", { class: "scroll" }, h("table", { class: "facts", id },
    h("thead", {}, h("tr", {}, labels.map(([label, kind]) => h("th", { scope: "col", class: kind }, label)))),
    h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell, index) =>
      h(index ? "td" : "th", index ? { class: labels[index][1] } : { scope: "row" }, cell)))))));

  function msas(data) {
    const chains = data.chains.filter((chain) => known(chain.msa_depth));
    if (!chains.length) return null;
    const rows = chains.map((chain) => {
      const sorted = [...(chain.msa_coverage || [])].sort((a, b) => a - b);
      return [chain.name, chain.msa_depth.toLocaleString("en"), fixed(chain.msa_neff, 1),
        sorted.length ? sorted[Math.floor(sorted.length / 2)].toLocaleString("en") : "–", sorted.length ? sorted[0].toLocaleString("en") : "–"];
    });
    return h("div", {}, h("h3", {}, "MSA"), headed("msas", [["Chain"], ["Rows", "number"], ["Neff", "number"], ["Median", "number"], ["Least", "number"]], rows),
      h("p", { class: "fine" }, "Median and least: rows with a residue at a position."));
  }

  function agreement(row, data) {
    if (!data.pairs.length) return null;
    const dockq = data.pairs.some((pair) => known(pair.dockq));
    const named = (engine) => {
      const other = app.byKey.get(`${row.target}/${engine}`);
      return engine === row.engine || !other ? engine : h("a", { href: app.hrefOf(other) }, engine);
    };
    // Own comparisons first: those of the other engines with each other say which of them is the odd one.
    const own = (pair) => pair.engines.includes(row.engine);
    const rows = [...data.pairs].sort((a, b) => own(b) - own(a)).map((pair) => [
      h("span", {}, named(pair.engines[0]), "\u00a0– ", named(pair.engines[1])), fixed(pair.tm_score, 3), fixed(pair.lddt_ca, 3), fixed(pair.rmsd_ca, 2),
      ...(dockq ? [fixed(pair.dockq, 3)] : []), percent(pair.residues / row.length)]);
    return block("Agreement of engines",
      headed("agreement", [["Engines"], ["TM-score", "number"], ["lDDT-CA", "number"], ["RMSD (Å)", "number"], ...(dockq ? [["DockQ", "number"]] : []), ["Shared", "number"]], rows),
      h("p", { class: "fine" }, "Over the share of the target that both models have; to the TM-score the rest adds nothing. Engines that agree may both be wrong."));
  }

  const ranged = (ranges) => (ranges || []).map(([start, end]) => (end - start > 1 ? `${start + 1}–${end}` : `${start + 1}`)).join(", ");

  function templates(data) {
    const used = data.scores.templates || [];
    if (!used.length) return null;
    const several = data.chains.length > 1 || used.length > data.chains.length;
    const parts = used.some((template) => (template.ranges || []).length) && used.length > data.chains.length;
    const labels = [["Entry"], ...(several ? [["For chain"]] : []), ["Identity", "number"], ["Coverage", "number"], ["E-value", "number"], ...(parts ? [["Gave residues", "ranges"]] : [])];
    const rows = used.map((template, index) => [app.templateName(template), ...(several ? [data.chains[template.chain_index ?? index]?.name || "–"] : []),
      percent(template.identity), percent(template.coverage), app.evalue(template.evalue), ...(parts ? [ranged(template.ranges) || "–"] : [])]);
    return block(used.length === 1 ? "Template" : "Templates", headed("templates", labels, rows));
  }

  function interfaces(data) {
    const found = data.scores.interfaces || [];
    if (!found.length) return null;
    const scored = ["pdockq", "ipsae"].filter((name) => found.some((each) => known(each[name])));
    const names = { pdockq: "pDockQ", ipsae: "ipSAE" };
    const rows = found.map((each) => [each.chains.join(" – "), each.contacts.toLocaleString("en"), ...scored.map((name) => fixed(each[name], 3))]);
    return block(found.length === 1 ? "Interface" : "Interfaces",
      headed("interfaces", [["Chains"], ["Contacts", "number"], ...scored.map((name) => [names[name], "number"])], rows),
      h("p", { class: "fine" }, "Contacts: pairs of residues whose CB atoms lie within 8 Å."));
  }

  function versions(data) {
    const software = Object.entries(data.scores.software || {});
    const databases = data.scores.databases || [];
    if (!software.length && !databases.length) return null;
    return block("Made with", h("div", { class: "pairs" },
      software.length ? h("div", {}, h("h4", {}, "Programs"), app.factTable([...software, ["random seed", app.plainValue(data.scores.seed)]])) : null,
      databases.length ? h("div", {}, h("h4", {}, "Databases"), app.factTable(databases.map((database) =>
        [database.name, [database.version, database.licence].filter(Boolean).join(" · ")]))) : null));
  }

  // ---------------------------------------------------------------- alignment

  function alignments(data, link) {
    return data.alignment.map(({ chain, rows }) => {
      const target = rows[0][1];
      const names = rows.map(([name], index) => (index ? name.replace(" ", "_") : "target"));
      const label = Math.min(14, Math.max(...names.map((name) => name.length)));
      const cut = (name) => (name.length > label ? `${name.slice(0, label - 1)}…` : name).padEnd(label);
      const pre = h("pre", { class: "alignment", tabindex: 0, role: "region", "aria-label": `Alignment of chain ${data.chains[chain]?.name || chain + 1}` });
      let columnsShown = 0;
      const draw = () => {
        // The width of a character of this font at this size, about; rows wrap so that nothing needs scrolling sideways.
        const fit = Math.max(20, Math.floor((pre.clientWidth - 36) / 7.6) - label - 14);
        const columnsNow = Math.min(100, Math.floor(fit / 10) * 10);
        if (columnsNow === columnsShown || pre.clientWidth === 0) return;
        columnsShown = columnsNow;
        const position = rows.map(() => 0);
        const lines = [];
        for (let start = 0; start < target.length; start += columnsShown) {
          const top = target.slice(start, start + columnsShown);
          rows.forEach(([, aligned], at) => {
            const part = aligned.slice(start, start + columnsShown);
            const residues = part.replace(/-/g, "").length;
            const first = position[at] + (residues ? 1 : 0);
            position[at] += residues;
            if (!residues && at && rows.length > 2) return; // this template has nothing here
            lines.push(h("b", {}, `${cut(names[at])} ${String(first).padStart(5)} `));
            if (at === 0) lines.push(h("span", at === 0 && residues ? { class: "target", "data-first": first - 1 } : {}, part));
            else {
              // What is identical stands out by weight as well as by colour.
              let from = 0;
              for (let here = 1; here <= part.length; here++) {
                const same = (index) => part[index] === top[index] && part[index] !== "-";
                if (here < part.length && same(here) === same(from)) continue;
                lines.push(same(from) ? h("i", {}, part.slice(from, here)) : part.slice(from, here));
                from = here;
              }
            }
            lines.push(h("b", {}, ` ${position[at]}\n`));
          });
          if (start + columnsShown < target.length) lines.push("\n");
        }
        pre.replaceChildren(...lines);
      };
      // A click on the target's row leads to the residue.
      pre.addEventListener("click", (event) => {
        const row = event.target.closest(".target");
        if (!row || String(getSelection())) return;
        const bounds = row.getBoundingClientRect();
        const letters = row.textContent;
        const column = Math.min(letters.length - 1, Math.floor(((event.clientX - bounds.left) / bounds.width) * letters.length));
        if (letters[column] === "-") return;
        link.point([chain, Number(row.dataset.first) + letters.slice(0, column).replace(/-/g, "").length], { pin: true, centre: true });
      });
      const resize = new ResizeObserver(draw);
      resize.observe(pre);
      link.onStop(() => resize.disconnect());
      return h("div", {}, data.alignment.length > 1 ? h("p", { class: "muted" }, `Chain ${data.chains[chain]?.name || chain + 1}`) : null, pre);
    });
  }
})(window.snakefold);
