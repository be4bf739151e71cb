// A table of many rows: searched, sorted, and turned over page by page. Only the rows of one page
// are elements, so that 70,000 rows stay quick.
"use strict";

const SHOW = {
  text: (value) => value,
  count: (value) => value.toLocaleString("en"),
  percent: (value) => (100 * value).toFixed(1),
};
const NONE = "–";

for (const listing of document.querySelectorAll(".listing")) {
  const { columns, values } = JSON.parse(document.getElementById(listing.dataset.content).textContent);
  const size = values[columns[0].key].length;
  const [search, rows] = [listing.querySelector("input"), listing.querySelector("select")];
  const [previous, next] = [listing.querySelector(".previous"), listing.querySelector(".next")];
  const [body, status] = [listing.querySelector("tbody"), listing.querySelector(".status")];
  const buttons = [...listing.querySelectorAll("th button")];

  const texts = columns.filter((column) => column.kind === "text").map((column) => values[column.key]);
  const haystack = Array.from({ length: size }, (_, row) =>
    texts.map((each) => each[row]).join("\n").toLowerCase());
  let order = Array.from({ length: size }, (_, row) => row); // all rows, as sorted
  let found = order; // those that the search leaves
  let page = 0;

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = words.length
      ? order.filter((row) => words.every((word) => haystack[row].includes(word)))
      : order;
    page = 0;
    show();
  }

  function sort(button) {
    const head = button.closest("th");
    const column = columns.find((each) => each.key === button.dataset.key);
    const before = head.getAttribute("aria-sort");
    // Numbers begin with the largest, texts with A.
    const falling = before ? before === "ascending" : column.kind !== "text";
    for (const each of buttons) each.closest("th").removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = values[column.key];
    order = Array.from({ length: size }, (_, row) => row);
    order.sort((a, b) => {
      const [x, y] = [value[a], value[b]];
      if (x === y) return a - b;
      if (x === null || y === null) return x === null ? 1 : -1; // what is not known stands last
      return (x < y ? -1 : 1) * (falling ? -1 : 1);
    });
    filter();
  }

  function show() {
    const height = Number(rows.value);
    const first = page * height;
    const shown = found.slice(first, first + height);
    body.replaceChildren(...shown.map((row) => {
      const line = document.createElement("tr");
      columns.forEach(({ key, kind }, place) => {
        const cell = document.createElement(place ? "td" : "th");
        if (!place) cell.scope = "row";
        if (kind === "text") cell.className = "text";
        const value = values[key][row];
        cell.textContent = value === null || value === "" ? NONE : SHOW[kind](value);
        line.append(cell);
      });
      return line;
    }));
    previous.disabled = page === 0;
    next.disabled = first + height >= found.length;
    const [total, of] = [found.length.toLocaleString("en"), size.toLocaleString("en")];
    const range = `${(first + 1).toLocaleString("en")}–${(first + shown.length).toLocaleString("en")}`;
    status.textContent = found.length
      ? `${range} of ${total}${found.length < size ? `, out of ${of}` : ""}`
      : `none of ${of}`;
  }

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120); // while one types, nothing is searched in vain
  });
  rows.addEventListener("change", () => { page = 0; show(); });
  previous.addEventListener("click", () => { page -= 1; show(); });
  next.addEventListener("click", () => { page += 1; show(); });
  for (const button of buttons) button.addEventListener("click", () => sort(button));
  sort(buttons.find((button) => button.dataset.key === "support") ?? buttons[0]);
}

// What is folded is printed too.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details:not([open])")) {
    each.open = true;
    each.dataset.opened = "";
  }
});
addEventListener("afterprint", () => {
  for (const each of document.querySelectorAll("details[data-opened]")) {
    each.open = false;
    delete each.dataset.opened;
  }
});
