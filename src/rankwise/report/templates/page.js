(async () => {
  "use strict";
  const charts = [...document.querySelectorAll("[data-chart]")];
  const packed = document.getElementById("plotly-gzip-base64");
  if (!charts.length || !packed || typeof DecompressionStream === "undefined") return;
  const root = document.documentElement;

  const inflate = async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const paint = (value, style) => {
    if (typeof value === "string") return value.startsWith("var(") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    if (Array.isArray(value)) return value.map((v) => paint(v, style));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, paint(v, style)]));
    return value;
  };
  const draw = (width) => charts.forEach((box) => {
    const figure = paint(JSON.parse(document.getElementById(box.dataset.chart).textContent), getComputedStyle(root));
    figure.layout.width = width || box.clientWidth || box.parentElement.clientWidth;
    Plotly.react(box, figure.data, figure.layout, { displayModeBar: false });
  });

  const script = document.createElement("script");
  script.textContent = await inflate(packed.textContent.trim());
  document.head.append(script);
  if (typeof Plotly === "undefined") return;
  document.querySelectorAll("[data-no-chart]").forEach((note) => note.remove());
  draw();

  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 120); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  addEventListener("beforeprint", () => { root.classList.add("on-paper"); draw(660); });
  addEventListener("afterprint", () => { root.classList.remove("on-paper"); draw(); });
})();
