"use strict";
const all = (query, root = document) => Array.from(root.querySelectorAll(query));

// Tabs: arrows, Home and End move between them; the address remembers which is open.
const tabs = all('[role="tab"]');
const panelOf = (tab) => document.getElementById(tab.getAttribute("aria-controls"));
function open(tab) {
  for (const other of tabs) {
    other.setAttribute("aria-selected", String(other === tab));
    other.tabIndex = other === tab ? 0 : -1;
    panelOf(other).hidden = other !== tab;
  }
}
tabs.forEach((tab, place) => {
  tab.addEventListener("click", () => {
    open(tab);
    try { history.replaceState(null, "", "#" + panelOf(tab).id); } catch (error) { /* a page without an address */ }
  });
  tab.addEventListener("keydown", (event) => {
    const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = tabs[(to + tabs.length) % tabs.length];
    open(next);
    next.focus();
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
});
if (tabs.length) open(tabs.find((tab) => "#" + panelOf(tab).id === location.hash) || tabs[0]);

// Tables: a click on a heading sorts; numbers by their value, the largest first.
all("th button").forEach((button) => button.addEventListener("click", () => {
  const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
  const valueOf = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const numeric = (text) => text !== "" && !Number.isNaN(Number(text));
  const values = Array.from(body.rows, valueOf).filter((text) => text !== "");
  const byNumber = values.length > 0 && values.every(numeric);
  const now = head.getAttribute("aria-sort");
  const order = now === "descending" ? "ascending" : now === "ascending" ? "descending" : byNumber ? "descending" : "ascending";
  all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const rows = Array.from(body.rows).sort((a, b) => {
    const x = valueOf(a), y = valueOf(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (byNumber ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true }));
  });
  body.append(...rows);
}));

// Filters of a table: one value a list, and words anywhere in the row.
all("[data-filters]").forEach((form) => {
  const rows = all("tbody tr", document.getElementById(form.dataset.filters)), shown = form.querySelector("output");
  const update = () => {
    const chosen = all("select", form).filter((one) => one.value !== "");
    const words = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const fits = chosen.every((one) => row.dataset[one.name] === one.value)
        && words.every((word) => row.textContent.toLowerCase().includes(word));
      row.hidden = !fits;
      count += fits;
    }
    shown.textContent = `${count} of ${rows.length} rows`;
  };
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
});

// Images: one outcome, or the worst or typical cases, or all.
all("[data-pills]").forEach((bar) => bar.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  all("button", bar).forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  const wanted = button.dataset.show;
  all(".case", document.getElementById(bar.dataset.pills)).forEach((one) => {
    one.hidden = wanted !== "" && one.dataset.outcome !== wanted && one.dataset.group !== wanted;
  });
}));

// Figures: a tooltip under the pointer; with the keyboard, arrows walk through the points of the figure in focus.
const note = document.getElementById("tip");
function tell(mark) {
  note.textContent = mark.dataset.tip;
  note.hidden = false;
  const box = mark.getBoundingClientRect();
  const left = Math.min(box.left + box.width / 2 + 10, document.documentElement.clientWidth - note.offsetWidth - 8);
  note.style.left = Math.max(8, left) + "px";
  note.style.top = Math.max(8, box.top - note.offsetHeight - 8) + "px";
}
const hush = () => { note.hidden = true; };
document.addEventListener("pointerover", (event) => {
  const mark = event.target.closest && event.target.closest(".tip");
  if (mark) tell(mark); else hush();
});
document.addEventListener("scroll", hush, true);
all("svg.figure").forEach((svg) => {
  const marks = all(".tip", svg);
  let place = -1;
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hush();
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !marks.length) return;
    event.preventDefault();
    place = (place + step + marks.length) % marks.length;
    tell(marks[place]);
  });
  svg.addEventListener("blur", hush);
});

// Light or dark, other than the system has it; and everything open on paper.
document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = root.dataset.theme || (dark ? "dark" : "light");
  root.dataset.theme = now === "dark" ? "light" : "dark";
});
addEventListener("beforeprint", () => all("details").forEach((one) => { one.dataset.was = String(one.open); one.open = true; }));
addEventListener("afterprint", () => all("details").forEach((one) => { one.open = one.dataset.was === "true"; }));
