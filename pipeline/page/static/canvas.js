// Pictures that a page draws: in its colours, sharp, and drawn anew when these change.
"use strict";

Object.assign(visavis, {
  /** A colour of the page, as it is now in dark or light. */
  colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  },

  /** A canvas that is sharp on this screen and drawn anew when its size or the theme changes. draw(context, w, h). */
  canvas(label, height, draw, attributes = {}) {
    const canvas = visavis.el("canvas", {role: "img", "aria-label": label, ...attributes});
    canvas.style.height = `${height}px`;
    canvas.redraw = () => {
      const width = canvas.clientWidth, tall = canvas.clientHeight || height, scale = devicePixelRatio || 1;
      if (!width) return;
      if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(tall * scale)) {
        canvas.width = Math.round(width * scale);
        canvas.height = Math.round(tall * scale);
      }
      const context = canvas.getContext("2d");
      context.setTransform(scale, 0, 0, scale, 0, 0);
      context.clearRect(0, 0, width, tall);
      draw(context, width, tall);
    };
    new ResizeObserver(canvas.redraw).observe(canvas);
    visavis._canvases.add(new WeakRef(canvas));
    return canvas;
  },

  _canvases: new Set(),

  redrawAll() {
    for (const kept of visavis._canvases) {
      const canvas = kept.deref();
      if (canvas) canvas.redraw();
      else visavis._canvases.delete(kept);
    }
  },
});

document.addEventListener("theme", () => visavis.redrawAll());

// Paper is white, and pictures are drawn in the colours of the page.
{
  const root = document.documentElement;
  let before; // the theme to go back to
  const show = (theme) => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    document.dispatchEvent(new CustomEvent("theme"));
  };
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    show("light");
  });
  addEventListener("afterprint", () => show(before));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => visavis.redrawAll());
