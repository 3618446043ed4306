/* Plots beside the tracks: backbone torsions, and aligned errors where an engine gives them. */
"use strict";

((app) => {
  const { h, s } = app;

  // ---------------------------------------------------------------- Ramachandran

  const CLASSES = [["general", "General"], ["isoleucine-valine", "Ile, Val"], ["pre-proline", "Before Pro"], ["glycine", "Gly"],
    ["trans-proline", "Pro"], ["cis-proline", "cis-Pro"]];

  function classOf(chain, index, cis) {
    const letter = chain.sequence[index];
    if (letter === "G") return "glycine";
    if (letter === "P") return cis.has(`${chain.name}:${index}`) ? "cis-proline" : "trans-proline";
    if (chain.sequence[index + 1] === "P") return "pre-proline";
    return letter === "I" || letter === "V" ? "isoleucine-valine" : "general";
  }

  app.ramachandranPlot = (data, link) => {
    const plot = data.scores.ramachandran || {};
    if (!plot.torsions || !plot.torsions.some((chain) => chain.length) || !app.index.ramachandran) return null;
    const cis = new Set(((data.scores.geometry || {}).cis_peptides || []).map(([chain, residue]) => `${chain}:${residue}`));
    const wrong = new Set((plot.outlier_residues || []).map(([chain, residue]) => `${chain}:${residue}`));
    const points = plot.torsions.flatMap((torsions, chain) => torsions.map(([index, phi, psi]) => ({
      place: [chain, index], phi, psi, kind: classOf(data.chains[chain], index, cis), outlier: wrong.has(`${data.chains[chain].name}:${index}`) })));
    const there = CLASSES.filter(([kind]) => points.some((point) => point.kind === kind));
    let kind = (there.find(([name]) => points.some((point) => point.kind === name && point.outlier)) || there[0])[0];

    const SIZE = 260; const LEFT = 34; const BOTTOM = 30; const TOP = 6; const RIGHT = 8;
    const x = (phi) => LEFT + ((phi + 180) / 360) * SIZE;
    const y = (psi) => TOP + ((180 - psi) / 360) * SIZE;
    const clip = "ramachandran-clip";
    const svg = s("svg", { class: "ramachandran", viewBox: `0 0 ${LEFT + SIZE + RIGHT} ${TOP + SIZE + BOTTOM}`, role: "img",
      "aria-label": `Ramachandran plot: ${plot.favoured} residues favoured, ${plot.allowed} allowed, ${plot.outliers} outliers` });
    const cursor = s("circle", { class: "cursor-dot", r: 5, visibility: "hidden" });

    function draw() {
      const shapes = [s("defs", {}, s("clipPath", { id: clip }, s("rect", { x: LEFT, y: TOP, width: SIZE, height: SIZE }))),
        s("rect", { class: "field", x: LEFT, y: TOP, width: SIZE, height: SIZE })];
      const [favoured, allowed] = app.index.ramachandran[kind];
      const outline = (corners, turn) => `M${corners.map(([phi, psi]) => `${x(phi).toFixed(1)} ${y(psi + turn).toFixed(1)}`).join("L")}Z`;
      for (const [regions, name] of [[allowed, "allowed"], [favoured, "favoured"]]) {
        // Outlines that cross the upper edge go on at the lower one.
        const path = regions.flatMap((corners) => [0, 360, -360].map((turn) => outline(corners, turn))).join("");
        shapes.push(s("path", { class: name, d: path, "clip-path": `url(#${clip})` }));
      }
      for (const value of [-180, -90, 0, 90, 180]) {
        shapes.push(s("line", { class: "grid", x1: x(value), x2: x(value), y1: TOP, y2: TOP + SIZE }), s("line", { class: "grid", x1: LEFT, x2: LEFT + SIZE, y1: y(value), y2: y(value) }));
        if (value % 180 === 0) shapes.push(s("text", { x: x(value), y: TOP + SIZE + 14, "text-anchor": value > 0 ? "end" : value < 0 ? "start" : "middle" }, String(value)), s("text", { x: LEFT - 5, y: y(value) + (value > 0 ? 9 : value < 0 ? 0 : 4), "text-anchor": "end" }, String(value)));
      }
      shapes.push(s("text", { x: LEFT + SIZE / 2, y: TOP + SIZE + 28, "text-anchor": "middle" }, "phi (°)"),
        s("text", { x: 9, y: TOP + SIZE / 2, "text-anchor": "middle", transform: `rotate(-90 9 ${TOP + SIZE / 2})` }, "psi (°)"));
      const shown = points.filter((point) => point.kind === kind).sort((a, b) => a.outlier - b.outlier);
      for (const point of shown) {
        const [px, py] = [x(point.phi), y(point.psi)];
        const title = s("title", {}, `${app.residueName(data, point.place)}: phi ${Math.round(point.phi)}, psi ${Math.round(point.psi)}`);
        const shape = point.outlier ? s("path", { class: "outlier", d: `M${px - 5} ${py + 4}h10l-5 -9z` }, title) : s("circle", { class: "point", cx: px, cy: py, r: 2.4 }, title);
        shape.addEventListener("pointerenter", () => link.point(point.place));
        shape.addEventListener("pointerleave", () => link.point(null));
        shape.addEventListener("click", () => link.point(point.place, { pin: true, centre: true }));
        shapes.push(shape);
      }
      svg.replaceChildren(...shapes, cursor);
    }
    const byPlace = new Map(points.map((point) => [point.place.join(":"), point]));
    link.listen((place) => {
      const point = place && byPlace.get(place.join(":"));
      const here = point && point.kind === kind;
      cursor.setAttribute("visibility", here ? "visible" : "hidden");
      if (here) { cursor.setAttribute("cx", x(point.phi)); cursor.setAttribute("cy", y(point.psi)); }
    });
    draw();
    const select = h("select", { "aria-label": "Kind of residue", onchange: (event) => { kind = event.target.value; draw(); } },
      there.map(([name, label]) => {
        const of = points.filter((point) => point.kind === name);
        const outliers = of.filter((point) => point.outlier).length;
        return h("option", { value: name, selected: name === kind }, `${label} (${of.length}${outliers ? `, ${app.plural(outliers, "outlier")}` : ""})`);
      }));
    return h("div", { class: "plot" }, h("div", { class: "plot-head" }, h("h3", {}, "Ramachandran plot"), select), svg,
      h("p", { class: "fine" }, "Darker: favoured, lighter: allowed. Outlines after MolProbity, drawn by hand."));
  };

  // ---------------------------------------------------------------- aligned errors

  app.paePlot = (data, link) => {
    if (!data.pae) return null;
    const canvas = h("canvas", { class: "pae", role: "img", "aria-label": "Predicted aligned errors of all pairs of residues" });
    const readout = h("p", { class: "fine" }, "Loading …");
    const legend = h("div");
    const starts = [];
    let length = 0;
    for (const chain of data.chains) { starts.push(length); length += chain.sequence.length; }
    const placeOf = (at) => {
      const chain = starts.findLastIndex((start) => start <= at);
      return [chain, at - starts[chain]];
    };
    const help = "Row: the residue that is aligned on; column: the residue whose error it is. Dark is sure.";
    let stopped = false;
    link.onStop(() => { stopped = true; });
    app.loadPae(data.pae).then((pae) => {
      if (stopped) return;
      const bytes = Uint8Array.from(atob(pae.values), (letter) => letter.charCodeAt(0));
      canvas.width = canvas.height = pae.bins;
      const context = canvas.getContext("2d");
      const picture = context.createImageData(pae.bins, pae.bins);
      const colours = Array.from({ length: 256 }, (_, value) => app.errorColour(value / 255));
      bytes.forEach((value, index) => { picture.data.set([...colours[value], 255], 4 * index); });
      context.putImageData(picture, 0, 0);
      // Borders between chains.
      context.fillStyle = "#000000";
      if (pae.length === length) {
        for (const start of starts.slice(1)) {
          const at = Math.round((start / length) * pae.bins);
          context.fillRect(at, 0, 1, pae.bins);
          context.fillRect(0, at, pae.bins, 1);
        }
      }
      legend.replaceChildren(app.errorLegend(pae.max));
      readout.textContent = help;
      const pairAt = (event) => {
        const bounds = canvas.getBoundingClientRect();
        const at = (value, size) => Math.max(0, Math.min(pae.length - 1, Math.floor((value / size) * pae.length)));
        return [at(event.clientY - bounds.top, bounds.height), at(event.clientX - bounds.left, bounds.width)];
      };
      canvas.addEventListener("pointermove", (event) => {
        const [row, column] = pairAt(event);
        const bin = (at) => Math.min(pae.bins - 1, Math.floor((at * pae.bins) / pae.length));
        const error = (bytes[bin(row) * pae.bins + bin(column)] / 255) * pae.max;
        if (pae.length !== length) { readout.textContent = `${error.toFixed(1)} Å`; return; }
        readout.textContent = `Aligned on ${app.residueName(data, placeOf(row))}, ${app.residueName(data, placeOf(column))} is off by ${error.toFixed(1)} Å`;
        link.point(placeOf(row), { with: placeOf(column) });
      });
      canvas.addEventListener("pointerleave", () => { readout.textContent = help; link.point(null); });
    }, (error) => { readout.textContent = `The errors did not load: ${error.message}.`; });
    return h("div", { class: "plot" }, h("div", { class: "plot-head" }, h("h3", {}, "Predicted aligned errors")), canvas, legend, readout);
  };
})(window.snakefold);
