/* The model in three dimensions, with the reference, the templates and other engines' models laid over it. */
"use strict";

((app) => {
  const { h } = app;
  const LARGE = 1500; // residues from which the ribbon is drawn more coarsely

  // One viewer for the page's life, moved from panel to panel: browsers allow a page some sixteen WebGL contexts.
  const stage = h("div", { class: "stage" });
  let sharedViewer = null;

  const MODES = [["confidence", "Confidence"], ["chain", "Chain"], ["structure", "Secondary structure"], ["agreement", "Agreement"]];

  // Puts another engine's model on this one: the pair's superposition moves its second model on its first.
  app.carry = (pair, engine) => {
    const { rotation, shift } = pair.superposition;
    const times = (matrix, vector) => matrix.map((line) => line.reduce((sum, value, at) => sum + value * vector[at], 0));
    if (pair.engines[1] === engine) return (xyz) => times(rotation, xyz).map((value, at) => value + shift[at]);
    const back = rotation.map((_, column) => rotation.map((line) => line[column]));
    return (xyz) => times(back, xyz.map((value, at) => value - shift[at]));
  };

  app.viewerPart = (row, data, link) => {
    const shown = app.recall("viewer", {});
    const modes = MODES.filter(([value]) => value !== "agreement" || data.chains.some((chain) => chain.agreement));
    const state = { colour: modes.some(([value]) => value === shown.colour) ? shown.colour : "confidence", invented: true };
    const size = data.chains.reduce((sum, chain) => sum + chain.sequence.length, 0);
    const invented = data.chains.some((chain) => chain.invented.length);
    const templates = (data.scores.templates || []).filter((template) => template.overlay).map(app.templateName);
    // What can be laid over the model; another engine's model is fetched when it is asked for.
    const overlays = [
      { key: "reference", kind: "reference", label: "Reference", name: data.reference.name ? `Reference ${data.reference.name}` : "Reference", text: data.overlays.reference },
      { key: "template", kind: "template", label: "Template", name: [...new Set(templates)].slice(0, 3).join(", ") || "templates", text: data.overlays.template },
    ].filter((overlay) => overlay.text);
    for (const [pair, engine] of app.ownPairs(row, data)) {
      const other = app.byKey.get(`${row.target}/${engine}`);
      if (other && app.isThere(other)) overlays.push({ key: `engine-${engine}`, kind: "engine", label: engine, name: `Model of ${engine}`, row: other, move: app.carry(pair, engine) });
    }
    const legend = h("div");
    const readout = h("p", { class: "readout", id: "readout", "aria-live": "polite" });
    const message = h("div", { class: "message" }, "Drawing the model …");
    const box = h("div", { class: "viewer", id: "viewer", role: "img", "aria-label": `Model of ${row.target} in three dimensions. Its residues can be reached in the tracks below.` }, message);
    let viewer = null;
    let model = null;
    const laid = {};
    let atoms = new Map();
    let marks = [];
    let stopped = false;

    const check = (key, label, hint) => h("label", { class: "check", title: hint },
      h("input", { type: "checkbox", "data-toggle": key, checked: state[key], onchange: (event) => { state[key] = event.target.checked; lay(key); style(); } }), label);
    const whole = h("button", { type: "button", class: "button", id: "reset-view", onclick: () => { link.choose(null); link.point(null, { pin: true }); zoom(null); } }, "Whole model");
    const tools = h("div", { class: "viewer-tools" },
      app.segments("Colour by", "colour", modes, state.colour, (value) => { state.colour = value; app.remember("viewer", { colour: value }); style(); }, "colour-by"),
      h("div", { class: "checks" },
        overlays.map(({ key, label, name }) => check(key, label, `Lay ${name} over the model`)),
        invented ? check("invented", "Mark invented loops", "Draw what has no template as sticks as well") : null));
    const frame = h("div", { class: "viewer-frame" }, box, whole);
    const under = h("div", { class: "under-viewer" }, readout, legend);
    const index = new Map(data.chains.map((chain, at) => [chain.name, at]));

    function colourOf(atom) {
      const at = index.get(atom.chain) ?? 0;
      if (state.colour === "chain") return app.chainColour(at);
      if (state.colour === "structure") return app.structureColour(atom.ss);
      if (state.colour === "agreement") return app.agreementColour((data.chains[at]?.agreement || [])[atom.resi - 1]);
      return app.confidenceColour((data.chains[at]?.confidence || [])[atom.resi - 1], row.confidence_kind);
    }

    function showLegend() {
      const keys = (entries) => entries.map(([colour, label]) => h("span", {}, h("i", { style: { background: colour } }), label));
      const parts = [];
      if (state.colour === "confidence") parts.push(app.confidenceLegend(row.confidence_kind));
      else if (state.colour === "agreement") parts.push(app.agreementLegend(app.agreementName(row, data)));
      else if (state.colour === "structure") parts.push(h("div", { class: "legend" }, keys(app.structureEntries)));
      else {
        const few = data.chains.slice(0, app.chainColours);
        parts.push(h("div", { class: "legend" }, keys(few.map((chain, at) => [app.chainColour(at), data.chains.length > 1 ? chain.name : `chain ${chain.name}`])),
          data.chains.length > few.length ? h("span", {}, `and again for ${data.chains.length - few.length} more chains`) : null));
      }
      const over = overlays.filter(({ key }) => state[key]);
      if (over.length) parts.push(h("div", { class: "legend" }, keys(over.map((overlay) => [app.overlayColour(overlay), overlay.name]))));
      legend.replaceChildren(...parts);
    }

    function ribbon() {
      const look = { colorfunc: colourOf, arrows: true, thickness: 0.35 };
      model.setStyle({}, { cartoon: look });
      if (state.invented) {
        for (const chain of data.chains) {
          const numbers = chain.invented.flatMap(([start, end]) => Array.from({ length: end - start }, (_, at) => start + at + 1));
          // Sticks beside the ribbon: these residues have no counterpart in a template.
          if (numbers.length) model.setStyle({ chain: chain.name, resi: numbers }, { cartoon: look, stick: { colorfunc: colourOf, radius: 0.17 } });
        }
      }
      const range = link.chosen;
      if (range && range[2] - range[1] <= 60) model.setStyle(selectionOf(range), { cartoon: look, stick: { colorfunc: colourOf, radius: 0.14 } });
    }

    function style() {
      showLegend();
      if (!viewer) return;
      ribbon();
      for (const overlay of overlays) {
        laid[overlay.key]?.setStyle({}, state[overlay.key] ? { cartoon: { style: "trace", color: app.overlayColour(overlay), thickness: 0.16 } } : {});
      }
      box.dataset.overlays = overlays.filter(({ key }) => state[key] && laid[key]).map(({ key }) => key).join(" ");
      viewer.render();
    }

    function lay(key) {
      const overlay = overlays.find((each) => each.key === key);
      if (!overlay || !viewer || laid[key]) return;
      if (overlay.text) { laid[key] = viewer.addModel(overlay.text, "cif"); return; }
      app.loadPrediction(overlay.row).then((other) => {
        if (stopped || laid[key]) return;
        if (!other.model) throw new Error("the page has no model of it");
        laid[key] = viewer.addModel(other.model, "cif");
        for (const atom of laid[key].selectedAtoms({})) [atom.x, atom.y, atom.z] = overlay.move([atom.x, atom.y, atom.z]);
        style();
      }).catch((error) => {
        if (stopped) return;
        const toggle = tools.querySelector(`[data-toggle="${key}"]`);
        toggle.checked = false;
        toggle.disabled = true;
        state[key] = false;
        style();
        readout.textContent = `${overlay.name} did not load: ${error.message}.`;
      });
    }

    function selectionOf([chain, start, end]) {
      return { chain: data.chains[chain].name, resi: `${start + 1}-${end}` };
    }

    function zoom(range) {
      if (!viewer) return;
      const selection = range ? { model, ...selectionOf(range) } : { model };
      if (range && !model.selectedAtoms(selectionOf(range)).length) return;
      viewer.zoomTo(selection, app.calm() ? 0 : 300);
    }

    link.listen((place, how) => {
      const range = link.chosen;
      if (place) readout.replaceChildren(...app.describe(row, data, place).flatMap((part, at) => (at ? [" · ", h("span", {}, part)] : [h("b", {}, part)])));
      else if (range) readout.replaceChildren(h("b", {}, `${data.chains.length > 1 ? `${data.chains[range[0]].name} · ` : ""}Residues ${range[1] + 1}–${range[2]}`));
      else readout.replaceChildren(h("span", { class: "muted" }, "Point at a residue, here or in the track below; click to keep it, drag along the track to zoom in."));
      if (!viewer) return;
      for (const mark of marks) viewer.removeShape(mark);
      marks = [];
      const at = place && atoms.get(`${data.chains[place[0]].name}:${place[1] + 1}`);
      if (at) marks.push(viewer.addSphere({ center: { x: at.x, y: at.y, z: at.z }, radius: 1.7, color: app.dark.matches ? "#ffffff" : "#16202a", opacity: 0.55 }));
      const other = how.with && atoms.get(`${data.chains[how.with[0]].name}:${how.with[1] + 1}`);
      if (other) marks.push(viewer.addSphere({ center: { x: other.x, y: other.y, z: other.z }, radius: 1.7, color: "#d55e00", opacity: 0.55 }));
      if (at && how.centre) viewer.center({ model, chain: data.chains[place[0]].name, resi: place[1] + 1 }, app.calm() ? 0 : 300);
      box.dataset.marked = at ? `${data.chains[place[0]].name}:${place[1] + 1}` : "";
      viewer.render();
    });
    link.listenRange((range, how) => {
      box.dataset.range = range ? `${data.chains[range[0]].name}:${range[1] + 1}-${range[2]}` : "";
      if (!viewer || how.sketch) return;
      style();
      if (how.zoom) zoom(range);
    });

    // What lies far off fades into this colour; the canvas itself is transparent.
    function matchBackground() { viewer.setBackgroundColor(app.dark.matches ? "#39444d" : "#ffffff", 0); }
    function themeChanged() { if (viewer) matchBackground(); style(); }

    async function start() {
      showLegend();
      let lib;
      try { lib = await app.loadLibrary(); } catch (error) { message.textContent = `The viewer did not load: ${error.message}.`; return; }
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
      viewer.setDefaultCartoonQuality?.(size > LARGE ? 3 : 7);
      viewer.resize();
      model = viewer.addModel(data.model, "cif");
      atoms = new Map(model.selectedAtoms({ atom: "CA" }).map((atom) => [`${atom.chain}:${atom.resi}`, atom]));
      for (const { key, text } of overlays) if (text || state[key]) lay(key);
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
      performance.mark("drawn");
    }

    // The wheel scrolls the page until the view has been clicked: a page must not trap who passes over it.
    let active = false;
    box.addEventListener("pointerdown", () => { active = true; });
    box.addEventListener("pointerleave", () => { active = false; link.point(null); });
    box.addEventListener("wheel", (event) => { if (!active && !event.ctrlKey) event.stopPropagation(); }, { capture: true });

    // A canvas may print empty: its picture is put in its place for as long as the page prints.
    let picture = null;
    function beforePrint() {
      if (!viewer || picture) return;
      viewer.render();
      picture = h("img", { class: "printed", alt: `Model of ${row.target}`, src: viewer.pngURI() });
      box.append(picture);
    }
    function afterPrint() { picture?.remove(); picture = null; }
    addEventListener("beforeprint", beforePrint);
    addEventListener("afterprint", afterPrint);

    const resize = new ResizeObserver(() => { if (viewer) viewer.resize(); });
    resize.observe(box);
    app.dark.addEventListener("change", themeChanged);
    link.onStop(() => {
      stopped = true;
      resize.disconnect();
      app.dark.removeEventListener("change", themeChanged);
      removeEventListener("beforeprint", beforePrint);
      removeEventListener("afterprint", afterPrint);
      if (viewer) { viewer.removeAllShapes(); viewer.removeAllModels(); viewer.render(); }
      stage.remove();
      viewer = null;
    });

    function flip(kind) { tools.querySelector(`[data-toggle^="${kind}"]`)?.click(); }
    function nextColour() {
      const at = modes.findIndex(([value]) => value === state.colour);
      tools.querySelector(`#colour-by input[value="${modes[(at + 1) % modes.length][0]}"]`).click();
    }
    return { tools, box: frame, under, start, flip, nextColour, whole: () => whole.click() };
  };

  const still = matchMedia("(prefers-reduced-motion: reduce)");
  app.calm = () => still.matches;
})(window.snakefold);
