// A table of many rows, in pages: search, filters, sort by any column. Rows are numbers; columns say what they hold.
"use strict";

visavis.Table = class {
  /**
   * columns: [{title, value(row), cell(row) → node or text, number, name}], value is what is sorted by; name: of the
   * column in `sort`. filters: [{label, options: [[value, text]], keeps(row, value)}]. text(row): what is searched.
   */
  constructor({caption, rows, columns, filters = [], text, size = 25, found = () => {}}) {
    Object.assign(this, {caption, rows, columns, filters, text, size, found, page: 0, order: null, down: false});
    this.query = "";
    this.chosen = filters.map(() => "");
    this.element = visavis.el("div", {class: "listing"});
    this._controls();
    this.body = visavis.el("tbody");
    this.head = visavis.el("tr");
    const table = visavis.el("table", {}, visavis.el("caption", {class: "hidden"}, caption),
      visavis.el("thead", {}, this.head), this.body);
    this.element.append(visavis.el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption}, table), this.foot);
    this._heads();
    this.update();
  }

  _controls() {
    const search = visavis.el("input", {type: "search", "aria-label": `Search: ${this.caption}`, placeholder: "Search", oninput: () => {
      this.query = search.value.toLowerCase();
      this.update();
    }});
    const parts = this.filters.map((filter, n) => {
      const select = visavis.el("select", {onchange: () => {
        this.chosen[n] = select.value;
        this.update();
      }}, visavis.el("option", {value: ""}, "all"), ...filter.options.map(([value, text]) => visavis.el("option", {value}, text)));
      filter.select = select;
      return visavis.el("label", {}, `${filter.label} `, select);
    });
    this.search = search;
    this.before = visavis.el("button", {type: "button", onclick: () => this.turn(-1)}, "← Previous");
    this.after = visavis.el("button", {type: "button", onclick: () => this.turn(1)}, "Next →");
    this.where = visavis.el("span", {class: "quiet", role: "status"});
    this.element.append(visavis.el("div", {class: "controls bar"}, ...(this.text ? [search] : []), ...parts));
    this.foot = visavis.el("div", {class: "bar foot"}, this.where, visavis.el("span", {class: "controls bar"}, this.before, this.after));
  }

  _heads() {
    for (const column of this.columns) {
      const button = visavis.el("button", {type: "button", class: "sort", onclick: () => this.sort(column)}, column.title);
      column.head = visavis.el("th", {scope: "col", class: column.number ? "number" : ""}, column.value ? button : column.title);
      this.head.append(column.head);
    }
  }

  sort(column) {
    this.down = this.order === column ? !this.down : Boolean(column.number);
    this.order = column;
    for (const other of this.columns) other.head.removeAttribute("aria-sort");
    column.head.setAttribute("aria-sort", this.down ? "descending" : "ascending");
    this.update();
  }

  /** Chooses a filter's value from outside. */
  filter(label, value) {
    const n = this.filters.findIndex((filter) => filter.label === label);
    this.filters[n].select.value = this.chosen[n] = value;
    this.update();
  }

  update() {
    const wanted = this.filters.map((filter, n) => [filter, this.chosen[n]]).filter(([, value]) => value !== "");
    this.hits = this.rows.filter((row) => wanted.every(([filter, value]) => filter.keeps(row, value))
      && (!this.query || this.text(row).includes(this.query)));
    if (this.order) {
      const sign = this.down ? -1 : 1, key = new Map(this.hits.map((row) => [row, this.order.value(row)]));
      this.hits.sort((a, b) => {
        const one = key.get(a), other = key.get(b);
        if (one == null || other == null) return (one == null) - (other == null); // what is not known comes last
        return sign * (one < other ? -1 : one > other ? 1 : 0);
      });
    }
    this.page = 0;
    this.found(this.hits);
    this.show();
  }

  turn(by) {
    this.page += by;
    this.show();
  }

  show() {
    const first = this.page * this.size, rows = this.hits.slice(first, first + this.size);
    this.body.replaceChildren(...rows.map((row) => visavis.el("tr", {}, ...this.columns.map((column) =>
      visavis.el("td", {class: column.number ? "number" : column.kind ?? ""}, ...[column.cell(row)].flat())))));
    this.before.disabled = this.page === 0;
    this.after.disabled = first + this.size >= this.hits.length;
    const of = this.hits.length === this.rows.length ? "" : ` (of ${this.rows.length.toLocaleString("en")})`;
    this.where.textContent = this.hits.length
      ? `${(first + 1).toLocaleString("en")}–${(first + rows.length).toLocaleString("en")} of ${this.hits.length.toLocaleString("en")}${of}`
      : `nothing is found${of}`;
  }
};
