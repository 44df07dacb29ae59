// Charts of reports and of the app: a box names by `data-chart` the JSON that holds its figure; colours follow the page.
const charts = (() => {
  "use strict";
  const paint = (value, style) => {
    if (typeof value === "string") return value.startsWith("var(") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    if (Array.isArray(value)) return value.map((v) => paint(v, style));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v, style)]));
    return value;
  };
  const draw = (width) => document.querySelectorAll("[data-chart]").forEach((box) => {
    const source = document.getElementById(box.dataset.chart);
    if (!source) return;
    const figure = paint(JSON.parse(source.textContent), getComputedStyle(document.documentElement));
    figure.layout.width = width || box.clientWidth || box.parentElement.clientWidth;
    Plotly.react(box, figure.data, figure.layout, { displayModeBar: false });
  });
  const start = () => {
    const root = document.documentElement;
    document.querySelectorAll("[data-no-chart]").forEach((note) => note.remove());
    draw();
    let waiting;
    addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 120); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
    addEventListener("beforeprint", () => { root.classList.add("on-paper"); draw(660); });
    addEventListener("afterprint", () => { root.classList.remove("on-paper"); draw(); });
  };
  return { draw, start };
})();
