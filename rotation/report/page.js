"use strict";
// Without it the page shows every row. With it tables can be searched, filtered and sorted, and show a page at a time.
document.documentElement.classList.add("js");

addEventListener("DOMContentLoaded", () => {
  const ROWS = 25; // shown at once
  const order = new Intl.Collator("en", { numeric: true });
  const tables = new Map();

  class Paged {
    constructor(table) {
      const part = (kind) => document.querySelector(`.${kind}[data-for="${table.id}"]`);
      this.body = table.tBodies[0];
      this.tiles = table.id === "secret-table" ? document.querySelectorAll("[data-show]") : [];
      this.heads = [...table.tHead.rows[0].cells];
      this.labels = this.heads.map((head) => head.textContent.trim());
      this.rows = [...this.body.rows].map((row) => ({ row, words: row.textContent.toLowerCase(), keys: [] }));
      this.shown = this.rows;
      this.page = 0;
      this.whole = false;
      this.tools = part("tools");
      this.pager = part("pager");
      this.search = this.tools.querySelector("input");
      this.select = this.tools.querySelector("select");
      this.listen();
      this.tools.hidden = false;
      table.dataset.ready = "";
      table.setAttribute("role", "table"); // on a phone rows are cards, which would no longer count as a table's
      this.find();
    }

    listen() {
      this.heads.forEach((head, column) => {
        const button = document.createElement("button");
        button.type = "button";
        button.append(...head.childNodes);
        button.addEventListener("click", () => this.sort(column));
        head.setAttribute("role", "columnheader");
        head.append(button);
      });
      this.search.addEventListener("input", () => this.find());
      this.select.addEventListener("change", () => this.find());
      for (const button of this.pager.querySelectorAll("button")) {
        button.addEventListener("click", () => {
          this.page += Number(button.dataset.step);
          this.draw();
        });
      }
    }

    find() {
      const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kind = this.select.value;
      this.shown = this.rows.filter(
        (one) => (!kind || one.row.dataset.kind === kind) && words.every((word) => one.words.includes(word)),
      );
      this.page = 0;
      this.draw();
      for (const tile of this.tiles) tile.setAttribute("aria-pressed", String(tile.dataset.show === kind));
    }

    sort(column) {
      const head = this.heads[column];
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of this.heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      for (const one of this.rows) one.keys[column] ??= key(one.row.cells[column]);
      const compare = (a, b) => {
        const [one, other] = [a.keys[column], b.keys[column]];
        if (one === "" || other === "") return (one === "") - (other === ""); // what has none comes last, either way
        const difference = typeof one === "number" && typeof other === "number" ? one - other : order.compare(one, other);
        return ascending ? difference : -difference;
      };
      this.rows.sort(compare);
      this.find();
    }

    draw() {
      const last = Math.max(Math.ceil(this.shown.length / ROWS) - 1, 0);
      this.page = Math.min(Math.max(this.page, 0), last);
      const first = this.page * ROWS;
      const drawn = this.whole ? this.shown : this.shown.slice(first, first + ROWS);
      this.body.replaceChildren(...drawn.map(({ row }) => this.labelled(row)));
      const all = this.rows.length;
      this.tools.querySelector("[role=status]").textContent =
        this.shown.length === all ? `${all.toLocaleString("en")} in all` : `${this.shown.length.toLocaleString("en")} of ${all.toLocaleString("en")}`;
      this.pager.hidden = last === 0;
      this.pager.querySelector("span").textContent = `Page ${this.page + 1} of ${last + 1}`;
      const [previous, next] = this.pager.querySelectorAll("button");
      previous.disabled = this.page === 0;
      next.disabled = this.page === last;
    }

    labelled(row) {
      if (!row.hasAttribute("role")) {
        row.setAttribute("role", "row");
        [...row.cells].forEach((cell, column) => {
          cell.setAttribute("role", cell.scope === "row" ? "rowheader" : "cell");
          cell.dataset.label = this.labels[column];
        });
      }
      return row;
    }

    print(whole) {
      this.whole = whole;
      this.draw();
    }
  }

  function key(cell) {
    const text = cell.dataset.sort ?? cell.textContent.trim();
    if (text === "–" || text === "") return "";
    return Number.isNaN(Number(text)) ? text : Number(text);
  }

  for (const table of document.querySelectorAll("table[data-paged]")) tables.set(table.id, new Paged(table));

  const secrets = tables.get("secret-table");
  for (const tile of secrets.tiles) {
    tile.addEventListener("click", () => {
      secrets.select.value = tile.getAttribute("aria-pressed") === "true" ? "" : tile.dataset.show;
      secrets.find();
      document.getElementById("secrets").scrollIntoView();
    });
  }
  addEventListener("beforeprint", () => tables.forEach((table) => table.print(true)));
  addEventListener("afterprint", () => tables.forEach((table) => table.print(false)));
});
