/* What the open panel's parts have in common: the current residue, the chosen range, and how a residue is told. */
"use strict";

((app) => {
  const { known, fixed, plural, title3 } = app;
  const THREE = { A: "ALA", R: "ARG", N: "ASN", D: "ASP", C: "CYS", Q: "GLN", E: "GLU", G: "GLY", H: "HIS", I: "ILE",
    L: "LEU", K: "LYS", M: "MET", F: "PHE", P: "PRO", S: "SER", T: "THR", W: "TRP", Y: "TYR", V: "VAL", U: "SEC", O: "PYL" };

  // One residue is current at a time, and one range is chosen. Tracks, viewer, plots and readout tell each other so.
  app.makeLink = (row, data) => {
    const listeners = [];
    const ranges = [];
    const cleanups = [];
    const chains = new Map(data.chains.map((chain, index) => [chain.name, index]));
    let pinned = null;
    let chosen = null;
    const told = (value, how, all) => { for (const listener of all) listener(value, how); };
    return {
      row, data,
      listen(listener) { listeners.push(listener); },
      listenRange(listener) { ranges.push(listener); },
      onStop(cleanup) { cleanups.push(cleanup); },
      start() { told(null, {}, listeners); },
      stop() { for (const cleanup of cleanups) cleanup(); },
      // `place` is [index of the chain, index of the residue], or null: back to the pinned one, if any.
      point(place, how = {}) {
        if (how.pin) pinned = place;
        told(place || pinned, how, listeners);
      },
      // `range` is [index of the chain, first residue, behind the last], or null. `how.zoom`: the model turns to it.
      choose(range, how = {}) {
        chosen = range;
        told(range, how, ranges);
      },
      named(chain, residue) {
        const index = chains.get(chain);
        return index === undefined || !data.chains[index].sequence[residue - 1] ? null : [index, residue - 1];
      },
      get pinned() { return pinned; },
      get chosen() { return chosen; },
    };
  };

  app.within = (ranges, index) => (ranges || []).some(([start, end]) => index >= start && index < end);
  app.templateName = (template) => [template.entry, template.chain].filter(Boolean).join("_");
  app.templatesOf = (data, chain) => (data.scores.templates || []).filter((template, index) => (template.chain_index ?? index) === chain);

  // The comparisons of this prediction with those of other engines: [pair, the other engine].
  app.ownPairs = (row, data) => data.pairs.filter((pair) => pair.engines.includes(row.engine))
    .map((pair) => [pair, pair.engines.find((engine) => engine !== row.engine)]);
  app.agreementName = (row, data) => {
    const others = app.ownPairs(row, data);
    return `lDDT-CA to ${others.length === 1 ? others[0][1] : "the other engines"}`;
  };

  app.residueName = (data, place) => {
    const chain = data.chains[place[0]];
    return `${data.chains.length > 1 ? `${chain.name} · ` : ""}${title3(THREE[chain.sequence[place[1]]] || "UNK")} ${place[1] + 1}`;
  };

  app.describe = (row, data, place) => {
    const chain = data.chains[place[0]];
    const index = place[1];
    const parts = [app.residueName(data, place)];
    const confidence = chain.confidence[index];
    if (known(confidence)) parts.push(`${row.confidence_kind || "confidence"} ${fixed(confidence, 0)}`);
    else parts.push("not modelled");
    if (chain.lddt && known(chain.lddt[index])) parts.push(`lDDT-CA to the reference ${fixed(chain.lddt[index], 0)}`);
    if (chain.agreement && known(chain.agreement[index])) parts.push(`${app.agreementName(row, data)} ${fixed(chain.agreement[index], 0)}`);
    if (chain.msa_coverage) parts.push(`${plural(chain.msa_coverage[index] ?? 0, "MSA row")}`);
    const sources = app.templatesOf(data, place[0]);
    if (sources.length > 1) {
      const source = sources.find((template) => app.within(template.ranges, index));
      if (source) parts.push(`from ${app.templateName(source)}`);
    }
    if (app.within(chain.invented, index)) parts.push("invented");
    return parts;
  };
})(window.snakefold);
