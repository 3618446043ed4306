/* Confidence, templates and MSA depth along each chain: a slider for the keyboard, a ruler to drag over with a pointer. */
"use strict";

((app) => {
  const { h, s, known, fixed, plural } = app;

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

  const MANY = 4; // chains from which tracks are drawn lower
  const SOURCES = ["#5b7083", "#c26a00", "#8c7ae6", "#009e73", "#cc79a7"]; // the templates of a chain, the main one first

  app.trackParts = (row, data, link) => {
    const outliers = new Set(((data.scores.ramachandran || {}).outlier_residues || []).map(([chain, residue]) => `${chain}:${residue}`));
    const figures = data.chains.map((chain, index) => track(row, data, chain, index, link, outliers));
    const key = (label, ...shapes) => h("span", {}, s("svg", { viewBox: "0 0 18 12", "aria-hidden": "true" }, shapes), label);
    const keys = [];
    if (data.chains.some((chain) => chain.lddt)) keys.push(key("lDDT-CA to the reference", s("path", { class: "lddt", d: "M0 9 5 4 10 7 18 2", fill: "none", stroke: "var(--line)", "stroke-width": 1.4 })));
    if (data.chains.some((chain) => chain.agreement)) keys.push(key(app.agreementName(row, data), s("rect", { y: 3, width: 9, height: 9, fill: app.agreementColour(0) }), s("rect", { x: 9, width: 9, height: 12, fill: app.agreementColour(100) })));
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
  };

  function track(row, data, chain, chainIndex, link, outliers) {
    const length = chain.sequence.length;
    const many = data.chains.length > MANY;
    const used = app.templatesOf(data, chainIndex);
    // An engine that only learns from its templates takes no residue from any.
    const sources = used.some((template) => (template.ranges || []).length) ? used : [];
    const coverage = chain.msa_coverage;
    const most = coverage ? coverage.reduce((high, count) => Math.max(high, count), 1) : 0;
    const LEFT = 34; const RIGHT = 8; const TOP = 8; const HEIGHT = many ? 44 : 84; const COVER = many ? 18 : 36; const LANE = 6;
    const AGREE = chain.agreement ? (many ? 16 : 30) : 0;
    const base = TOP + HEIGHT;
    const agreeBase = base + 14 + AGREE;
    const laneTop = AGREE ? agreeBase + 6 : base + 10;
    const coverTop = laneTop + (sources.length > 1 ? LANE + 10 : many ? 6 : 8);
    const axis = coverage ? coverTop + COVER : sources.length > 1 ? coverTop - 4 : AGREE ? agreeBase : base;
    const total = axis + 20;
    const svg = s("svg", { height: total, tabindex: 0, role: "slider", "aria-orientation": "horizontal", "aria-valuemin": 1, "aria-valuemax": length,
      "aria-valuenow": 1, "aria-label": `Residue of chain ${chain.name}` });
    const chosen = s("rect", { class: "chosen", y: TOP - 4, height: axis - TOP + 4, visibility: "hidden", rx: 2 });
    const cursor = s("g", { visibility: "hidden" });
    let width = 0;
    let at = 0;

    const x = (index) => LEFT + (index / length) * (width - LEFT - RIGHT);
    const y = (value) => base - (Math.max(0, Math.min(100, value)) / 100) * HEIGHT;
    const label = (text, top) => s("text", { x: LEFT - 6, y: top, "text-anchor": "end" }, text);

    // A bar for each residue, or for as many as there are pixels: the mean of those that share one.
    function bars(name, values, bottom, height, colourOf) {
      const bins = Math.min(length, Math.max(1, Math.floor(width - LEFT - RIGHT)));
      const group = s("g", { class: name, "shape-rendering": "crispEdges" });
      for (let bin = 0; bin < bins; bin++) {
        const [start, end] = [Math.floor((bin * length) / bins), Math.floor(((bin + 1) * length) / bins)];
        const there = values.slice(start, end).filter(known);
        if (!there.length) continue;
        const mean = there.reduce((sum, value) => sum + value, 0) / there.length;
        const tall = (Math.max(0, Math.min(100, mean)) / 100) * height;
        group.append(s("rect", { x: x(start), y: bottom - tall, width: x(end) - x(start), height: tall, fill: colourOf(mean) }));
      }
      return group;
    }

    function draw() {
      const inner = width - LEFT - RIGHT;
      svg.setAttribute("viewBox", `0 0 ${width} ${total}`);
      const [inventedFill, inventedPattern] = hatch("hatch-ink");
      const [absentFill, absentPattern] = hatch("hatch-line");
      const shapes = [s("defs", {}, inventedPattern, absentPattern), chosen];
      for (const value of many ? [0, 100] : [0, 50, 100]) {
        shapes.push(s("line", { class: value ? "grid" : "axis", x1: LEFT, x2: width - RIGHT, y1: y(value) + 0.5, y2: y(value) + 0.5 }), label(String(value), y(value) + 4));
      }
      for (const [start, end] of runsOf(chain.confidence.map((value) => !known(value)))) {
        shapes.push(s("rect", { class: "unmodelled", x: x(start), y: TOP, width: x(end) - x(start), height: HEIGHT, fill: absentFill, opacity: 0.6 }));
      }
      shapes.push(bars("bars", chain.confidence, base, HEIGHT, (value) => app.confidenceColour(value, row.confidence_kind)));
      if (AGREE) {
        shapes.push(bars("agreement", chain.agreement, agreeBase, AGREE, app.agreementColour),
          s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: agreeBase - AGREE + 0.5, y2: agreeBase - AGREE + 0.5 }),
          s("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: agreeBase + 0.5, y2: agreeBase + 0.5 }), label("100", agreeBase - AGREE + 4));
      }
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
      if (sources.length > 1) {
        shapes.push(s("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: laneTop + LANE / 2 + 2, y2: laneTop + LANE / 2 + 2 }));
        sources.forEach((template, index) => {
          for (const [start, end] of template.ranges || []) {
            shapes.push(s("rect", { class: "source", x: x(start), y: laneTop + 2, width: x(end) - x(start), height: LANE, fill: SOURCES[index % SOURCES.length] },
              s("title", {}, `${app.templateName(template)}: ${start + 1}–${end}`)));
          }
        });
      }
      if (coverage) {
        let path = `M${x(0)} ${axis}`;
        coverage.forEach((count, index) => { path += `L${x(index + 0.5).toFixed(1)} ${(axis - (count / most) * COVER).toFixed(1)}`; });
        shapes.push(s("path", { class: "coverage", d: `${path}L${x(length)} ${axis}Z` }),
          s("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: axis + 0.5, y2: axis + 0.5 }),
          label(most > 9999 ? `${Math.round(most / 1000)}k` : String(most), coverTop + 8));
      } else {
        shapes.push(s("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: axis + 0.5, y2: axis + 0.5 }));
      }
      const stride = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000].find((value) => (value / length) * inner >= 46) || 5000;
      for (let residue = stride; residue <= length; residue += stride) {
        // The last number would be cut off at the edge: it ends where the axis ends.
        const anchor = x(residue - 0.5) > width - RIGHT - 12 ? "end" : "middle";
        shapes.push(s("line", { class: "axis", x1: x(residue - 0.5), x2: x(residue - 0.5), y1: axis, y2: axis + 4 }),
          s("text", { x: anchor === "end" ? width : x(residue - 0.5), y: axis + 16, "text-anchor": anchor }, String(residue)));
      }
      shapes.push(cursor);
      svg.replaceChildren(...shapes);
      showRange(link.chosen);
    }

    function indexAt(event) {
      const bounds = svg.getBoundingClientRect();
      const index = Math.floor(((event.clientX - bounds.left - LEFT) / (width - LEFT - RIGHT)) * length);
      return Math.max(0, Math.min(length - 1, index));
    }
    const rangeOf = (one, other) => [chainIndex, Math.min(one, other), Math.max(one, other) + 1];

    let waiting = 0; // a pointer moves faster than a 3D view draws
    let from = null; // where a drag began: residue and position
    let dragged = false;
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = [indexAt(event), event.clientX];
      dragged = false;
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener("pointermove", (event) => {
      const index = indexAt(event);
      if (from && (dragged || Math.abs(event.clientX - from[1]) > 5)) {
        dragged = true;
        link.choose(rangeOf(from[0], index), { sketch: true });
      }
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(() => link.point([chainIndex, index]));
    });
    svg.addEventListener("pointerup", (event) => {
      if (!from) return;
      const [began] = from;
      from = null;
      if (dragged) {
        link.point(null, { pin: true });
        link.choose(rangeOf(began, indexAt(event)), { zoom: true });
      } else {
        if (link.chosen) link.choose(null);
        link.point([chainIndex, indexAt(event)], { pin: true, centre: true });
      }
    });
    svg.addEventListener("pointercancel", () => { from = null; });
    svg.addEventListener("pointerleave", () => { if (!from) { cancelAnimationFrame(waiting); link.point(null); } });
    svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) link.point([chainIndex, at], { pin: true }); });

    let anchor = null; // where a selection by Shift and arrows began
    svg.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Enter") {
        const range = link.chosen && link.chosen[0] === chainIndex ? link.chosen : rangeOf(Math.max(0, at - 5), Math.min(length - 1, at + 5));
        link.choose(range, { zoom: true });
        event.preventDefault();
        return;
      }
      if (event.key === "Escape" && link.chosen) {
        link.choose(null, { zoom: true });
        anchor = null;
        event.preventDefault();
        event.stopPropagation(); // it closes the panel otherwise
        return;
      }
      const moves = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, PageUp: at + 10, PageDown: at - 10, Home: 0, End: length - 1 };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const next = Math.max(0, Math.min(length - 1, moves[event.key]));
      if (event.shiftKey) {
        anchor ??= at;
        link.choose(rangeOf(anchor, next), {});
      } else anchor = null;
      link.point([chainIndex, next], { pin: true });
    });

    link.listen((place) => {
      const here = place && place[0] === chainIndex;
      cursor.setAttribute("visibility", here ? "visible" : "hidden");
      if (here) svg.setAttribute("aria-valuetext", app.describe(row, data, place).join(", "));
      else svg.setAttribute("aria-valuetext", `${length} residues`);
      if (!here) return;
      at = place[1];
      svg.setAttribute("aria-valuenow", at + 1);
      const middle = x(at + 0.5);
      cursor.replaceChildren(s("line", { class: "cursor", x1: middle, x2: middle, y1: TOP - 4, y2: axis }));
      if (known(chain.confidence[at])) cursor.append(s("circle", { class: "cursor-dot", cx: middle, cy: y(chain.confidence[at]), r: 3.5 }));
    });
    function showRange(range) {
      const here = range && range[0] === chainIndex;
      chosen.setAttribute("visibility", here ? "visible" : "hidden");
      if (!here) return;
      chosen.setAttribute("x", x(range[1]));
      chosen.setAttribute("width", Math.max(1, x(range[2]) - x(range[1])));
    }
    link.listenRange(showRange);

    const resize = new ResizeObserver(() => {
      const now = Math.round(svg.clientWidth);
      if (now > LEFT + RIGHT && now !== width) { width = now; draw(); link.point(null); }
    });
    resize.observe(svg);
    link.onStop(() => resize.disconnect());
    const depth = known(chain.msa_depth) ? `MSA ${plural(chain.msa_depth, "row")}${known(chain.msa_neff) ? `, Neff ${fixed(chain.msa_neff, 1)}` : ""}` : null;
    const lanes = sources.length > 1
      ? h("p", { class: "lanes" }, sources.map((template, index) => h("span", {}, h("i", { style: { background: SOURCES[index % SOURCES.length] } }), app.templateName(template)))) : null;
    return h("figure", { class: "track", "data-chain": chain.name },
      h("figcaption", {}, `Chain ${chain.name}`, h("span", {}, [plural(length, "residue"), depth].filter(Boolean).join(" · "))), svg, lanes);
  }
})(window.snakefold);
