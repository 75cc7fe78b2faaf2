// What `visavis doctor` found in the run: what must be mended first, each with its surest items.
"use strict";

visavis.doctor = {
  show(found, place) {
    const section = visavis.el("section", {id: "doctor", "aria-labelledby": "doctor-title"}, visavis.el("h2", {id: "doctor-title"}, "Doctor"));
    const looked = Object.entries(found.looked_at).map(([what, count]) => `${count.toLocaleString("en")} ${what}`).join(", ");
    section.append(visavis.el("p", {}, `${visavis.count(found.findings.length, "finding")}; looked at ${looked}.`));
    if (found.findings.length) section.append(this.table(found.findings));
    for (const line of found.notes || []) section.append(visavis.note(`${line.charAt(0).toUpperCase()}${line.slice(1)}.`));
    for (const line of found.unknown) section.append(visavis.note(`Not asked: ${line}.`));
    place.append(section);
  },

  table(findings) {
    const number = (text) => visavis.el("td", {class: "number"}, text);
    const head = ["Finding", "Sure", "Items", "Of", "What to do"].map((text, n) => visavis.el("th", {scope: "col", class: n % 4 ? "number" : ""}, text));
    return visavis.el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Findings"}, visavis.el("table", {},
      visavis.el("thead", {}, visavis.el("tr", {}, ...head)),
      visavis.el("tbody", {}, ...findings.map((each) => visavis.el("tr", {},
        visavis.el("th", {scope: "row"}, each.severity === "mend" ? each.what : `${each.what} (look)`, this.items(each)),
        number(`${Math.round(100 * each.certainty)} %`), number(each.count.toLocaleString("en")), number(each.of.toLocaleString("en")),
        visavis.el("td", {}, each.advice))))));
  },

  items(finding) {
    const rows = finding.items.map((item) => visavis.el("li", {}, `${item.name || item.id}: ${item.detail}`));
    return visavis.el("details", {}, visavis.el("summary", {}, `${visavis.count(rows.length, "item")}, the surest first`), visavis.el("ul", {class: "small"}, ...rows));
  },
};
