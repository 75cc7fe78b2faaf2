// Of every page: dark or light, elements made of text, data that lies in a block or in a script beside the page.
"use strict";

const visavis = {
  /** An element: `el("td", {class: "number"}, "12")`. Children are elements or text; text never becomes markup. */
  el(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== false && value != null) made.setAttribute(key, String(value));
    }
    made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
    return made;
  },

  /** What `<script type="application/json" id="NAME">` holds. */
  data(name) {
    return JSON.parse(document.getElementById(name).textContent);
  },

  async toClipboard(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // pages on a disk may have no right to it
      const field = visavis.el("textarea", {class: "hidden"}, text);
      document.body.append(field);
      field.select();
      document.execCommand("copy");
      field.remove();
    }
  },

  /** JSON as a file among the downloads. */
  save(name, text) {
    const url = URL.createObjectURL(new Blob([text], {type: "application/json"}));
    const link = visavis.el("a", {href: url, download: name});
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  },

  _waiting: new Map(),

  /** Data of a script beside the page that says `visavis.put(NAME, DATA)`: pages on a disk may not fetch. */
  load(path, name) {
    return new Promise((resolve, reject) => {
      visavis._waiting.set(name, resolve);
      const script = visavis.el("script", {src: path});
      script.addEventListener("error", () => reject(new Error(`${path} is missing`)));
      script.addEventListener("load", () => script.remove());
      document.head.append(script);
    });
  },

  put(name, data) {
    visavis._waiting.get(name)?.(data);
    visavis._waiting.delete(name);
  },
};

document.getElementById("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.dispatchEvent(new CustomEvent("theme"));
});
