(async () => {
  "use strict";
  const packed = document.getElementById("plotly-gzip-base64");
  if (!document.querySelector("[data-chart]") || !packed || typeof DecompressionStream === "undefined") return;

  const inflate = async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };

  const script = document.createElement("script");
  script.textContent = await inflate(packed.textContent.trim());
  document.head.append(script);
  if (typeof Plotly !== "undefined") charts.start();
})();
