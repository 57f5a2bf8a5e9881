"use strict";
// Light or dark, what a chart tells of a day, a forecast of the past, two runs beside each other. Words of others are
// only ever put in as text. Without it every page stands as it is.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const remembered = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("theme");
      localStorage.setItem("theme", value);
    } catch { /* a page that may keep nothing */ }
    return value;
  };
  const chosen = remembered();
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const day = (iso) => `${+iso.slice(8, 10)} ${MONTHS[+iso.slice(5, 7) - 1]} ${iso.slice(0, 4)}`;
  const numberOf = (iso) => Date.parse(`${iso}T00:00:00Z`) / 864e5;
  const weekdaysTo = (n) => 5 * Math.floor((n + 3) / 7) + Math.min((n + 3) % 7, 5); // since a Monday
  const isoOf = (n) => new Date(n * 864e5).toISOString().slice(0, 10);
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const draw = (name, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const figure = (value, decimals) =>
    value === null || value === undefined || Number.isNaN(value) ? "–"
      : value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals }).replace("-", "−");
  const table = (caption, kind, columns, rows) => {
    const cell = (name, { text, look, words }, scope) => {
      const made = make(name, scope ? { scope } : {}, text);
      if (look || words) made.className = [look, words ? "words" : ""].filter(Boolean).join(" ");
      return made;
    };
    const head = make("thead", {}, make("tr", {}, ...columns.map((column) => cell("th", column, "col"))));
    const body = make("tbody", {}, ...rows.map((row) =>
      make("tr", {}, ...row.map((one, k) => (k ? cell("td", { ...one, words: columns[k].words }) : cell("th", one, "row"))))));
    const region = make("div", { role: "region", "aria-label": caption, tabindex: "0" },
      make("table", {}, make("caption", {}, make("span", {}, caption)), head, body));
    region.className = `scroll ${kind}${rows.length > 24 ? " tall" : ""}`;
    return region;
  };

  // --- Light or dark

  function themes() {
    const button = document.getElementById("theme");
    const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
    const name = () => { button.textContent = isDark() ? "Light" : "Dark"; };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      remembered(root.dataset.theme);
      name();
    });
    dark.addEventListener("change", name);
    name();
  }

  // --- What a chart tells of a day: the one that the pointer is near, or that the arrow keys come to

  const tip = make("div", { id: "tip", role: "status" });
  function hints(box) {
    const canvas = box.querySelector(".canvas");
    const tips = JSON.parse(box.querySelector(".tips").textContent);
    if (!tips.length) return;
    let line = null;
    let told = tips.length;
    const leave = () => { tip.classList.remove("shown"); if (line) line.remove(); line = null; };
    function tell(svg, k) {
      told = k;
      const [left, across, top, down] = svg.dataset.plot.split(" ").map(Number);
      const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
      const x = left + tips[k][0] * across;
      if (!line || line.parentNode !== svg) {
        if (line) line.remove();
        line = draw("path", { class: "cursor" });
        svg.append(line);
      }
      line.setAttribute("d", `M${x} ${top}v${down}`);
      if (tip.parentNode !== canvas) canvas.append(tip);
      tip.classList.add("shown");
      tip.textContent = tips[k][1];
      const beside = x * scale + 12;
      const width = tip.offsetWidth;
      const fits = beside + width <= canvas.clientWidth;
      tip.style.left = `${Math.max(0, fits ? beside : Math.min(x * scale - 12 - width, canvas.clientWidth - width))}px`;
      tip.style.top = `${top * scale}px`;
    }
    canvas.addEventListener("pointerleave", leave);
    canvas.addEventListener("pointermove", (event) => {
      const svg = event.target.closest("svg.plot");
      if (!svg) return leave();
      const [left, across] = svg.dataset.plot.split(" ").map(Number);
      const place = svg.getBoundingClientRect();
      const at = ((event.clientX - place.left) * svg.viewBox.baseVal.width / place.width - left) / across;
      let nearest = 0;
      tips.forEach((one, k) => { if (Math.abs(one[0] - at) < Math.abs(tips[nearest][0] - at)) nearest = k; });
      tell(svg, nearest);
    });
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "group");
    canvas.setAttribute("aria-label", "The chart's days, by the arrow keys");
    canvas.addEventListener("blur", leave);
    canvas.addEventListener("keydown", (event) => {
      const wanted = { ArrowLeft: told - 1, ArrowRight: told + 1, Home: 0, End: tips.length - 1 }[event.key];
      if (event.key === "Escape") leave();
      if (wanted === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const seen = [...canvas.querySelectorAll("svg.plot")].find((svg) => svg.getClientRects().length);
      tell(seen, Math.min(Math.max(wanted, 0), tips.length - 1));
    });
  }

  // --- A forecast of the past

  function paths(data) {
    const box = document.getElementById("path");
    const input = document.getElementById("origin");
    const [before, after] = ["before", "after"].map((id) => document.getElementById(id));
    const price = (value) => figure(value / data.scale, data.decimals);
    const unrecorded = new Set(data.unrecorded); // days of which the ledger has no outcome
    const came = new Map(data.rates.filter(([d]) => !unrecorded.has(d)));
    let shown = -1;
    let width = 0;

    const at = (k) => {
      const one = data.origins[k];
      const close = one.c;
      const [median, low80, high80, low95, high95] = ["m", "l8", "h8", "l9", "h9"].map((n) => one[n].map((v) => v + close));
      const days = one.t.map((t) => one.o + t);
      const outcomes = days.map((d) => came.get(d) ?? null);
      const fell = outcomes.map((v, h) => (v === null ? "" : v >= low80[h] && v <= high80[h] ? "inside 80 %"
        : v >= low95[h] && v <= high95[h] ? "inside 95 %" : v > high95[h] ? "above" : "below"));
      return { ...one, close, median, low80, high80, low95, high95, days, outcomes, fell };
    };

    function picture(one) {
      const narrow = width < 480;
      const height = narrow ? 240 : 300;
      const past = data.rates.filter(([d]) => d <= one.o && d >= one.o - data.history);
      if (!past.length || past[past.length - 1][0] !== one.o) past.push([one.o, one.close]);
      const known = one.days.map((d, h) => [d, one.outcomes[h]]).filter((p) => p[1] !== null);
      const all = [...past.map((p) => p[1]), ...known.map((p) => p[1]), ...one.low95, ...one.high95];
      let [low, high] = [Math.min(...all), Math.max(...all)];
      const room = 0.05 * (high - low || 1);
      [low, high] = [low - room, high + room];
      const step = [1, 2, 5, 10, 20].map((m) => m * 10 ** Math.floor(Math.log10((high - low) / 5)))
        .find((s) => (high - low) / s <= 6);
      const ticks = [];
      for (let v = Math.ceil(low / step) * step; v <= high; v += step) ticks.push(v);
      const needed = Math.max(0, -Math.floor(Math.log10(step / data.scale) + 1e-9));
      const said = ticks.map((v) => figure(v / data.scale, needed));
      const left = Math.max(...said.map((s) => s.length)) * 6.6 + 8;
      const right = width - (price(one.close).length * 6.8 + 14);
      const [top, bottom] = [10, height - 24];
      const [first, last] = [past[0][0], one.days[one.days.length - 1]];
      const x = (d) => left + (d - first) / (last - first) * (right - left);
      const y = (v) => bottom - (v - low) / (high - low) * (bottom - top);
      const line = (points) => `M${points.map(([d, v]) => `${x(d).toFixed(1)} ${y(v).toFixed(1)}`).join("L")}`;
      const isGap = ([a], [b]) => weekdaysTo(b) - weekdaysTo(a) > data.gap;
      const rate = (points) => {
        const pieces = [];
        points.forEach((one, k) => {
          if (k && !isGap(points[k - 1], one)) pieces[pieces.length - 1].push(one);
          else pieces.push([one]);
        });
        return pieces.map((piece) => line(piece) + (piece.length > 1 ? "" : "h0")).join("");
      };
      const start = [one.o, one.close];
      const along = (values) => [start, ...one.days.map((d, h) => [d, values[h]])];
      const ribbon = (lower, upper) => `${line([...along(upper), ...along(lower).reverse()])}Z`;
      const svg = draw("svg", {
        class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img",
        "data-plot": `${left} ${right - left} ${top} ${bottom - top}`,
        "aria-label": document.getElementById("told").textContent,
      });
      ticks.forEach((v, k) => svg.append(
        draw("path", { class: "rule", d: `M${left} ${y(v)}H${right}` }),
        draw("text", { class: "tick", x: left - 7, y: y(v) + 4, "text-anchor": "end" }, said[k])));
      const dates = narrow ? 3 : 6;
      for (let k = 0; k < dates; k += 1) {
        const d = Math.round(first + (last - first) * (k + 0.5) / dates);
        svg.append(draw("path", { class: "rule", d: `M${x(d)} ${bottom}v4` }),
          draw("text", { class: "tick", x: x(d), y: height - 7, "text-anchor": "middle" }, day(isoOf(d)).slice(0, -5)));
      }
      svg.append(
        draw("path", { class: "band95", d: ribbon(one.low95, one.high95) }),
        draw("path", { class: "band80", d: ribbon(one.low80, one.high80) }),
        draw("path", { class: "line walk dashed", d: line([start, [last, one.close]]) }),
        draw("path", { class: "line ink", d: rate(past) }),
        draw("path", { class: "line forecast strong", d: line(along(one.median)) }));
      if (known.length) svg.append(draw("path", { class: "line ink strong", d: rate([start, ...known]) }));
      if (known.length <= 25) known.forEach(([d, v]) => svg.append(draw("circle", { cx: x(d), cy: y(v), r: 3 })));
      const end = one.days.length - 1;
      const labels = [[one.high95[end], "muted"], [one.high80[end], "muted"], [one.median[end], "forecast"],
        [one.low80[end], "muted"], [one.low95[end], "muted"]];
      if (known.length && known[known.length - 1][0] === last) labels.push([known[known.length - 1][1], "ink"]);
      labels.sort((a, b) => b[0] - a[0]);
      let under = -Infinity;
      labels.forEach(([v, look]) => {
        under = Math.max(y(v), under + 14);
        svg.append(draw("text", { class: `label ${look}`, x: right + 6, y: under + 4 }, price(v)));
      });
      const span = last - first;
      const tips = [
        ...past.flatMap(([d, v], k) => {
          const own = [(d - first) / span, `${day(isoOf(d))}\n${price(v)}`];
          if (!k || !isGap(past[k - 1], past[k])) return [own];
          const [from] = past[k - 1];
          return [[((from + d) / 2 - first) / span, `No close on record between\n${day(isoOf(from))} and ${day(isoOf(d))}`], own];
        }),
        ...one.days.map((d, h) => [(d - first) / span, [day(isoOf(d)), `Median ${price(one.median[h])}`,
          `80 % ${price(one.low80[h])} to ${price(one.high80[h])}`, `95 % ${price(one.low95[h])} to ${price(one.high95[h])}`,
          ...(one.outcomes[h] === null ? [] : [`Came at ${price(one.outcomes[h])}, ${one.fell[h]}`])].join("\n")])];
      const holder = make("script", { type: "application/json", class: "tips" }, JSON.stringify(tips));
      const made = make("figure", { class: "drawn" }, make("div", { class: "canvas" }, svg), holder);
      hints(made);
      return made;
    }

    function words(one) {
      const end = one.days.length - 1;
      const said = `Said on ${day(isoOf(one.o))} (close ${price(one.close)})${one.live ? "" : ", in hindsight,"} for ` +
        `${day(isoOf(one.days[end]))}: ${price(one.median[end])}, 80 % band ${price(one.low80[end])} to ${price(one.high80[end])}.`;
      const outcome = one.outcomes[end];
      const scored = one.fell.filter(Boolean);
      const inside = scored.filter((f) => f === "inside 80 %").length;
      if (outcome !== null) {
        return `${said} It came at ${price(outcome)}, ${one.fell[end]}. Of the path, ${inside} of ${scored.length} days lay inside the 80 % band.`;
      }
      return scored.length ? `${said} So far ${inside} of ${scored.length} days lay inside the 80 % band.` : `${said} Nothing has come yet.`;
    }

    function show(k, rename = true) {
      shown = k;
      const one = at(k);
      document.getElementById("told").textContent = words(one);
      width = Math.max(320, Math.round(box.clientWidth));
      box.replaceChildren(picture(one));
      const rows = one.days.map((d, h) => [{ text: day(isoOf(d)) }, { text: price(one.median[h]) },
        { text: `${price(one.low80[h])} to ${price(one.high80[h])}` }, { text: `${price(one.low95[h])} to ${price(one.high95[h])}` },
        { text: one.outcomes[h] === null ? "–" : price(one.outcomes[h]) },
        { text: one.fell[h] || "–", look: one.fell[h].startsWith("inside") || !one.fell[h] ? "inside" : "outside" }]);
      const columns = ["Target date", "Median", "80 % band", "95 % band", "Came", "Fell"].map((text, n) => ({ text, words: !n }));
      document.getElementById("came").replaceChildren(
        table(`Forecast of ${day(isoOf(one.o))}${one.live ? "" : ", in hindsight,"} by target date, ${data.unit}`, "", columns, rows));
      input.value = isoOf(one.o);
      before.disabled = k === 0;
      after.disabled = k === data.origins.length - 1;
      if (rename) history.replaceState(null, "", `#${isoOf(one.o)}`);
    }

    function choose(iso) {
      const wanted = numberOf(iso);
      if (Number.isNaN(wanted)) return;
      const year = +iso.slice(0, 4);
      if ((wanted < data.origins[0].o || wanted > data.origins[data.origins.length - 1].o) && data.years[year]) {
        if (!location.pathname.endsWith(data.years[year])) {
          location.href = `${data.years[year]}#${iso}`;
          return;
        }
      }
      let k = 0;
      while (k + 1 < data.origins.length && data.origins[k + 1].o <= wanted) k += 1;
      if (k !== shown) show(k);
    }

    document.getElementById("chooser").hidden = false;
    input.addEventListener("change", () => { if (input.value) choose(input.value); });
    before.addEventListener("click", () => { if (shown > 0) show(shown - 1); });
    after.addEventListener("click", () => { if (shown < data.origins.length - 1) show(shown + 1); });
    addEventListener("hashchange", () => { if (/^#\d{4}-\d\d-\d\d$/.test(location.hash)) choose(location.hash.slice(1)); });
    let waiting = 0;
    new ResizeObserver(() => {
      clearTimeout(waiting);
      waiting = setTimeout(() => { if (Math.abs(box.clientWidth - width) > 1 && box.clientWidth >= 320) show(shown, false); }, 120);
    }).observe(box);
    if (/^#\d{4}-\d\d-\d\d$/.test(location.hash)) choose(location.hash.slice(1));
    if (shown < 0) show(data.chosen, false);
  }

  // --- Two runs beside each other

  function comparison(runs) {
    const sized = (value) => figure(value, value ? Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value)))) : 0);
    const [left, right] = ["left", "right"].map((id) => document.getElementById(id));
    for (const select of [left, right]) {
      select.append(...runs.map((run, k) => make("option", { value: k }, run.label)));
    }
    const second = runs.findIndex((run, k) => k > 0 && run.market === runs[0].market);
    left.value = 0;
    right.value = second < 0 ? Math.min(1, runs.length - 1) : second;
    const columns = (first) => [{ text: first, words: true }, ...[runs[left.value], runs[right.value]].map((run) => ({ text: run.short, words: true }))];
    function show() {
      const [a, b] = [runs[left.value], runs[right.value]];
      const said = [];
      if (a.id === b.id) said.push("This is one run.");
      if (a.market !== b.market) said.push(`They are of different markets or horizons (${a.market}, ${b.market}): their scores do not compare.`);
      if (a.window !== b.window) said.push(`They were scored over different windows (${a.window ?? "none"}; ${b.window ?? "none"}): scores of different weeks do not compare.`);
      document.getElementById("remark").textContent = said.join(" ");
      const names = [...new Set([...Object.keys(a.models), ...Object.keys(b.models)])];
      const facts = [["Started (UTC)", "started"], ["Market", "market"], ["Origin", "origin"], ["Status", "status"], ["Environment", "environment"],
        ["Model", "model"], ["Name", "name"], ["Error", "error"]]
        .filter(([, key]) => a[key] || b[key])
        .map(([name, key]) => [{ text: name }, { text: a[key] || "–" }, { text: b[key] || "–" }]);
      const parts = [table("The runs", "compare", columns("Fact").map((column) => ({ ...column, words: true })), facts)];
      if (names.length) {
        const scores = [["RMSE", 0], ["MAPE %", 1], ["Weight", 2]];
        const compares = a.market === b.market && a.window === b.window;
        const heads = [{ text: "Model", words: true }, ...scores.flatMap(([name]) => [{ text: `${name} ${a.short}` }, { text: `${name} ${b.short}` }])];
        const rows = names.map((name) => [{ text: a.names[name] ?? b.names[name] }, ...scores.flatMap(([, n]) => {
          const pair = [a, b].map((run) => run.models[name]?.[n] ?? null);
          const less = compares && n < 2 && pair[0] !== null && pair[1] !== null && pair[0] !== pair[1] ? (pair[0] < pair[1] ? 0 : 1) : -1;
          return pair.map((value, k) => ({ text: n ? figure(value, n + 1) : value === null ? "–" : sized(value), look: k === less ? "less" : "" }));
        })]);
        parts.push(table("Scores and weights of every model", "compare", heads, rows));
      }
      const params = [...new Set([...Object.keys(a.params), ...Object.keys(b.params)])].sort().filter((name) => a.params[name] !== b.params[name]);
      // A digest is told by its beginning; unfolded, it is there in full, to be read and copied.
      const told = (value) => {
        if (!/^[0-9a-f]{40,}$/.test(value ?? "")) return { text: value ?? "–" };
        return { text: make("details", { class: "digest" },
          make("summary", { title: value }, `${value.slice(0, 12)}…`), make("code", {}, value)) };
      };
      if (params.length) {
        parts.push(table("Params that differ", "compare", columns("Param"),
          params.map((name) => [{ text: name }, told(a.params[name]), told(b.params[name])])));
      }
      document.getElementById("compared").replaceChildren(...parts);
    }
    left.addEventListener("change", show);
    right.addEventListener("change", show);
    document.getElementById("comparison").hidden = false;
    document.getElementById("by-hand").hidden = true;
    show();
  }

  document.addEventListener("DOMContentLoaded", () => {
    themes();
    document.querySelectorAll("figure.drawn").forEach(hints);
    const past = document.getElementById("paths");
    if (past) paths(JSON.parse(past.textContent));
    const runs = document.getElementById("runs-data");
    if (runs) comparison(JSON.parse(runs.textContent));
  });
})();
