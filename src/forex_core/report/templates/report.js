"use strict";
// Replaces each static picture by a chart of the column's width that answers the pointer. Where anything fails,
// the static picture simply stays.
(() => {
  const specs = JSON.parse(document.getElementById("chart-specs").textContent);
  const options = {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true, // expressions are interpreted and not compiled, as the content security policy asks
    tooltip: { disableDefaultStyle: true },
  };
  const AXIS = 46; // room for the vertical axis of a small panel

  function fitted(spec, width) {
    const copy = JSON.parse(JSON.stringify(spec));
    if (copy.concat) {
      copy.columns = width < 480 ? 1 : width < 720 ? 2 : 3;
      const panel = Math.floor((width - 12) / copy.columns) - AXIS;
      copy.concat.forEach((part) => { part.width = panel; });
    } else {
      copy.width = width;
      // Marks of days would run together.
      if (width < 760 && copy.datasets.events_by_week) copy.datasets.events = copy.datasets.events_by_week;
      copy.autosize = { type: "fit-x", contains: "padding" };
    }
    return copy;
  }

  function show(chart) {
    const spec = specs[chart.dataset.chart];
    const live = chart.querySelector(".live");
    let shown = 0;
    let view = null;
    async function draw() {
      const width = Math.floor(chart.clientWidth);
      if (!width || width === shown) return;
      shown = width;
      live.hidden = false;
      try {
        const embedded = await vegaEmbed(live, fitted(spec, width), options);
        if (view) view.finalize();
        view = embedded;
        chart.classList.add("is-live");
      } catch (error) {
        live.hidden = true;
        chart.classList.remove("is-live");
      }
    }
    let waiting = 0;
    new ResizeObserver(() => {
      clearTimeout(waiting);
      waiting = setTimeout(draw, shown ? 150 : 0);
    }).observe(chart);
  }

  document.querySelectorAll("[data-chart]").forEach(show);
})();
