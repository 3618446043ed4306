/* Keys, and the overlay that tells them. */
"use strict";

((app) => {
  const { $, h } = app;

  const KEYS = [
    ["Anywhere", [
      [["?"], "this overview"],
      [["/"], "search"],
      [["j"], "next prediction"],
      [["k"], "previous prediction"],
      [["1", "2", "3"], "predictions, failed and skipped, provenance"],
      [["Esc"], "close a menu, the panel"],
    ]],
    ["The model", [
      [["c"], "next colouring"],
      [["r"], "reference on or off"],
      [["t"], "template on or off"],
      [["e"], "another engine's model on or off"],
      [["w"], "whole model"],
    ]],
    ["A track (reach it with Tab)", [
      [["←", "→"], "residue by residue; Page up and down by ten; Home, End"],
      [["Shift", "←", "→"], "choose a range"],
      [["Enter"], "zoom in on the range, or on the residue's neighbours"],
      [["Esc"], "drop the range"],
    ]],
  ];

  app.buildKeys = () => {
    const dialog = $("keys");
    dialog.querySelector(".keys-body").append(...KEYS.map(([title, entries]) => h("section", {}, h("h3", {}, title), h("dl", {}, entries.map(([keys, does]) =>
      h("div", {}, h("dt", {}, keys.map((key) => h("kbd", {}, key))), h("dd", {}, does)))))),
    h("label", { class: "check" }, h("input", { type: "checkbox", id: "single-keys", checked: app.recall("keys", true), onchange: (event) => app.remember("keys", event.target.checked) }), "Single-letter keys are on"));
    $("show-keys").addEventListener("click", () => dialog.showModal());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    $("close-keys").addEventListener("click", () => dialog.close());

    const actions = {
      "?": () => dialog.showModal(),
      "/": () => { app.showView("predictions"); $("filter").focus(); $("filter").select(); },
      j: () => app.step(1),
      k: () => app.step(-1),
      1: () => app.goTo("predictions"),
      2: () => app.goTo("problems"),
      3: () => app.goTo("made"),
      c: () => app.viewer?.nextColour(),
      r: () => app.viewer?.flip("reference"),
      t: () => app.viewer?.flip("template"),
      e: () => app.viewer?.flip("engine"),
      w: () => app.viewer?.whole(),
    };
    document.addEventListener("keydown", (event) => {
      if (dialog.open || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") {
        const menu = document.querySelector("details.menu[open]");
        if (menu) { menu.open = false; menu.querySelector("summary").focus(); }
        else if (app.selected && !(event.target.matches("input[type=search]") && event.target.value)) app.leavePanel();
        return;
      }
      const typing = event.target.matches("input:not([type=checkbox], [type=radio]), select, textarea");
      const action = Object.hasOwn(actions, event.key) ? actions[event.key] : null;
      // The page behind a panel that covers it has no search to go to.
      const covered = $("column").inert && ["/", "1", "2", "3"].includes(event.key);
      if (!action || typing || covered || !app.recall("keys", true)) return;
      event.preventDefault();
      action();
    });
    // A menu closes when something else is clicked.
    document.addEventListener("click", (event) => {
      for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
    });
  };
})(window.snakefold);
