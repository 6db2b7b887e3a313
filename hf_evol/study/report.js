"use strict";
(() => {
  const PER_PAGE = 10;
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filter");
  const list = document.getElementById("pairs");
  const count = document.getElementById("count");
  const paging = document.getElementById("paging");
  const fields = form.elements;
  let page = 1;

  // Text reaches the page through textContent only.
  function element(name, className, ...children) {
    const made = document.createElement(name);
    if (className) made.className = className;
    for (const child of children) if (child !== null) made.append(child);
    return made;
  }
  const number = (value) => (value === null ? "–" : String(Number(value.toPrecision(4))).replace("-", "−"));
  const readable = (status) => status.replaceAll("_", " ");

  function option(select, value, label) {
    const made = element("option", "", label);
    made.value = value;
    select.append(made);
  }
  const distinct = (values) => [...new Set(values)].filter((value) => value !== null);

  function addOptions() {
    for (const round of distinct(data.pairs.map((pair) => pair.round)).sort((a, b) => a - b)) option(fields.round, round, round);
    for (const method of distinct(data.pairs.map((pair) => pair.method)).sort()) option(fields.method, method, readable(method));
    const reasons = data.pairs.flatMap((pair) => pair.by.map((cell) => cell && reason(cell)));
    for (const status of distinct(reasons).sort()) if (status !== "ok") option(fields.status, status, readable(status));
    data.measures.forEach((measure, place) => option(fields.measure, place, measure.label));
    data.labels.forEach((a, i) => data.labels.forEach((b, j) => {
      if (i !== j) option(fields.order, `${i}-${j}`, `${a} above ${b}`);
    }));
  }

  // A status may hold details after a colon.
  const reason = (cell) => cell.status.split(":", 1)[0];

  function searchable(pair) {
    if (pair.searchable === undefined) {
      const seed = data.seeds[pair.id];
      const cells = pair.by.filter(Boolean).flatMap((cell) => [cell.parts.join(""), cell.output.text]);
      pair.searchable = [pair.id, seed.text, seed.input.text, seed.context.text, ...cells].join("\n").toLowerCase();
    }
    return pair.searchable;
  }

  function difference(pair) {
    const [i, j] = fields.order.value.split("-").map(Number);
    const [a, b] = [pair.by[i], pair.by[j]];
    const place = Number(fields.measure.value);
    return !a || !b || a.values[place] === null || b.values[place] === null ? null : a.values[place] - b.values[place];
  }

  function chosen() {
    const words = fields.q.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { round, method, status } = fields;
    let pairs = data.pairs.filter((pair) =>
      (round.value === "" || String(pair.round) === round.value) &&
      (method.value === "" || pair.method === method.value) &&
      (status.value === "" || (status.value === "ok"
        ? pair.by.every((cell) => cell && reason(cell) === "ok")
        : pair.by.some((cell) => cell && reason(cell) === status.value))) &&
      words.every((word) => searchable(pair).includes(word)));
    if (compared()) {
      const found = new Map(pairs.map((pair) => [pair, difference(pair)]));
      pairs = pairs.filter((pair) => found.get(pair) > 0).sort((a, b) => found.get(b) - found.get(a));
    }
    return pairs;
  }
  const compared = () => fields.measure.value !== "" && fields.order.value !== "";

  function more(n) {
    return n ? element("span", "by", ` … and ${n} more characters`) : null;
  }

  function chip(place) {
    const made = element("span", "chip", data.labels[place]);
    made.style.setProperty("--c", data.colours[place]);
    return made;
  }

  function column(cell, place) {
    if (!cell) return element("div", "", element("h4", "", chip(place)), element("p", "dropped", "no row"));
    const text = element("p", "text", ...cell.parts.map((part, i) => (i % 2 ? element("ins", "", part) : part)), more(cell.more));
    text.dir = "auto";
    const values = element("dl", "values");
    if (cell.level !== null) values.append(element("div", "", element("dt", "", "level"), element("dd", "", cell.level)));
    data.measures.forEach((measure, i) => {
      if (cell.values[i] !== null) values.append(element("div", "", element("dt", "", measure.label), element("dd", "", number(cell.values[i]))));
    });
    const made = element("div", "", element("h4", "", chip(place)));
    if (cell.status !== "ok") made.append(element("p", "dropped", `left out: ${readable(cell.status)}`));
    made.append(text, values);
    if (cell.output.text) {
      const output = element("p", "text small", cell.output.text, more(cell.output.more));
      output.dir = "auto";
      made.append(element("details", "", element("summary", "", "Response"), output));
    }
    return made;
  }

  function card(pair) {
    const seed = data.seeds[pair.id];
    const text = element("p", "text", seed.text, more(seed.more));
    text.dir = "auto";
    const first = element("div", "", element("h4", "", data.rounds ? "seed" : "instruction"), text);
    if (seed.context.text) first.append(element("p", "text small", `Before:\n${seed.context.text}`, more(seed.context.more)));
    if (seed.input.text) first.append(element("p", "text small", `Input: ${seed.input.text}`, more(seed.input.more)));
    const about = !data.rounds ? "" : ` round ${pair.round}` + (pair.method === null ? "" : `, ${readable(pair.method)}`);
    return element("article", "pair", element("h3", "", pair.id, element("span", "", about)),
      element("div", "columns", first, ...pair.by.map(column)));
  }

  function show() {
    const pairs = chosen();
    const pages = Math.max(1, Math.ceil(pairs.length / PER_PAGE));
    page = Math.min(Math.max(1, page), pages);
    list.replaceChildren(...pairs.slice((page - 1) * PER_PAGE, page * PER_PAGE).map(card));
    count.textContent = `${pairs.length} of ${data.pairs.length} pairs` + (compared()
      ? `, largest difference first` : fields.order.value !== "" ? `; choose a measure to compare by` : "");
    paging.hidden = pages === 1;
    paging.querySelector("span").textContent = `Page ${page} of ${pages}`;
    const [previous, next] = paging.querySelectorAll("button");
    previous.disabled = page === 1;
    next.disabled = page === pages;
  }

  // The address keeps what was chosen, so that it can be passed on: #rows?q=river&round=2
  function remember() {
    const kept = new URLSearchParams();
    for (const field of form.querySelectorAll("[name]")) if (field.value !== "") kept.set(field.name, field.value);
    if (page > 1) kept.set("page", page);
    history.replaceState(null, "", String(kept) ? `#rows?${kept}` : "#rows");
  }

  function recall() {
    const [target, query] = location.hash.split("?");
    if (target !== "#rows" || query === undefined) return;
    const kept = new URLSearchParams(query);
    for (const field of form.querySelectorAll("[name]")) {
      field.value = kept.get(field.name) ?? "";
      if (field.selectedIndex === -1) field.value = "";
    }
    page = Number(kept.get("page")) || 1;
    form.scrollIntoView({ behavior: "instant" });
  }

  // What has to be scrolled sideways must be in reach of the keyboard, and nothing else in its way.
  function reachable() {
    for (const box of document.querySelectorAll(".canvas, .scroll")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  function changed() {
    page = 1;
    show();
    remember();
  }

  reachable();
  window.addEventListener("resize", reachable);
  addOptions();
  form.hidden = false;
  recall();
  show();
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(changed));
  window.addEventListener("hashchange", () => { recall(); show(); });
  paging.addEventListener("click", (event) => {
    if (event.target.tagName !== "BUTTON") return;
    page += Number(event.target.value);
    show();
    remember();
    list.previousElementSibling.scrollIntoView();
  });
})();
