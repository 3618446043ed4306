/* Colours with a meaning. tests/e2e/test_report_page.py holds that they stay apart in simulated colour blindness. */
"use strict";

((app) => {
  const { h, known } = app;

  // AlphaFold's four bands for pLDDT.
  const BANDS = [[90, "#0053d6", "very high (≥ 90)"], [70, "#65cbf3", "confident (70–90)"],
    [50, "#ffdb13", "low (50–70)"], [-Infinity, "#ff7d45", "very low (< 50)"]];
  // An estimated lDDT is another quantity, so it gets another look: purple to green, as in ColorBrewer's PRGn, which
  // people with any of the common colour vision deficiencies tell apart.
  const RAMP = [[30, [104, 46, 140]], [50, [152, 100, 184]], [65, [184, 170, 204]], [75, [150, 198, 175]],
    [85, [78, 172, 136]], [95, [16, 128, 100]]];
  // Okabe and Ito's palette (2008), its yellow and black replaced, which do not show on white and on dark.
  const CHAINS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c7ae6", "#a3a500"];
  const STRUCTURE = { h: ["#d1495b", "helix"], s: ["#1f78b4", "strand"], c: ["#9aa7b2", "coil"] };
  const UNKNOWN = "#9aa7b2";
  // Agreement of engines is neither: orange to blue, after ColorBrewer's PuOr.
  const AGREEMENT = [[30, [166, 80, 6]], [50, [226, 132, 28]], [65, [228, 178, 108]], [80, [128, 140, 200]], [95, [62, 66, 164]]];
  // As many engines as there are have colours of their own.
  const OVERLAYS = {
    light: { reference: "#3d4853", template: "#c26a00",
      engines: ["#5a1e78", "#2d874b", "#0f87ff", "#e12d96", "#780f1e", "#d200e1", "#ff0f4b", "#0f0ff0"] },
    dark: { reference: "#d3dce3", template: "#f2a83b",
      engines: ["#a596ff", "#69c387", "#00d2ff", "#f078c3", "#ff7869", "#fff0a5", "#b4ff0f", "#0fff69"] },
  };
  // Aligned errors: dark where the error is small.
  const ERRORS = [[0, [10, 74, 92]], [0.35, [52, 142, 142]], [0.7, [178, 214, 190]], [1, [252, 250, 238]]];

  function blend(ramp, value) {
    if (value <= ramp[0][0]) return ramp[0][1];
    for (let i = 1; i < ramp.length; i++) {
      const [high, to] = ramp[i];
      if (value > high) continue;
      const [low, from] = ramp[i - 1];
      const t = (value - low) / (high - low);
      return from.map((channel, j) => Math.round(channel + t * (to[j] - channel)));
    }
    return ramp.at(-1)[1];
  }
  const rgb = (colour) => `rgb(${colour.join(",")})`;

  app.palettes = { bands: BANDS.map(([, colour]) => colour), ramp: RAMP.map(([, colour]) => rgb(colour)),
    agreement: AGREEMENT.map(([, colour]) => rgb(colour)), chains: CHAINS,
    structure: Object.values(STRUCTURE).map(([colour]) => colour), errors: ERRORS.map(([, colour]) => rgb(colour)), overlays: OVERLAYS };
  app.chainColour = (index) => CHAINS[index % CHAINS.length];
  app.chainColours = CHAINS.length;
  app.structureColour = (kind) => (STRUCTURE[kind] || STRUCTURE.c)[0];
  app.structureEntries = Object.values(STRUCTURE);
  // An engine wears the same colour in every panel of a page.
  app.overlayColour = ({ kind, label }) => {
    const colours = OVERLAYS[app.dark.matches ? "dark" : "light"];
    if (kind !== "engine") return colours[kind];
    const engines = [...new Set(app.rows.map((row) => row.engine))].sort();
    return colours.engines[engines.indexOf(label) % colours.engines.length];
  };
  app.errorColour = (share) => blend(ERRORS, share);

  app.confidenceColour = (value, kind) => {
    if (!known(value)) return UNKNOWN;
    if (kind === "pLDDT") return BANDS.find(([from]) => value >= from)[1];
    return rgb(blend(RAMP, value));
  };

  app.agreementColour = (value) => (known(value) ? rgb(blend(AGREEMENT, value)) : UNKNOWN);

  app.gradient = (stops, low, high) => `linear-gradient(90deg, ${stops.map(([value, colour]) => `${rgb(colour)} ${(100 * (value - low)) / (high - low)}%`).join(", ")})`;

  app.confidenceLegend = (kind) => {
    if (kind === "pLDDT") {
      return h("div", { class: "legend" }, "pLDDT", BANDS.map(([, colour, label]) =>
        h("span", {}, h("i", { style: { background: colour } }), label)));
    }
    return rampLegend(kind || "confidence", RAMP);
  };
  app.agreementLegend = (label) => rampLegend(label, AGREEMENT);

  function rampLegend(label, ramp) {
    const [low, high] = [ramp[0][0], ramp.at(-1)[0]];
    const at = (value) => `${(100 * (value - low)) / (high - low)}%`;
    return h("div", { class: "ramp" }, label,
      h("div", { class: "gradient", style: { background: app.gradient(ramp, low, high) } }),
      h("div", { class: "ticks" }, [low, 50, 65, 80, high].map((value, index, all) =>
        h("span", { style: { left: at(value) } },
          index === 0 ? `≤ ${value}` : index === all.length - 1 ? `≥ ${value}` : String(value)))));
  }

  app.errorLegend = (most) => h("div", { class: "ramp" }, "aligned error (Å)",
    h("div", { class: "gradient", style: { background: app.gradient(ERRORS, 0, 1) } }),
    h("div", { class: "ticks" }, [0, 0.5, 1].map((share) => h("span", { style: { left: `${100 * share}%` } }, String(Math.round(most * share))))));
})(window.snakefold);
