"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const plots = [...document.querySelectorAll(".plot")];

  const theme = () => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", "font.color": colour("--ink"),
    "xaxis.gridcolor": colour("--edge"), "yaxis.gridcolor": colour("--edge"),
    "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": colour("--soft"),
    "xaxis.zerolinecolor": colour("--edge"), "yaxis.zerolinecolor": colour("--edge"),
  });

  const draw = (plot) => {
    const spec = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    return Plotly.newPlot(plot, spec.data, { ...spec.layout, autosize: true }, { responsive: true, displaylogo: false, displayModeBar: "hover" })
      .then(() => Plotly.relayout(plot, theme()))
      .then(() => { plot.dataset.drawn = "yes"; });
  };

  // Figures are drawn when they come near the view: the page opens at once however many there are.
  const near = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting) { near.unobserve(entry.target); draw(entry.target); }
  }), { rootMargin: "800px" });
  plots.forEach((plot) => near.observe(plot));
  window.addEventListener("beforeprint", () => plots.filter((p) => !p.dataset.drawn).forEach(draw));
  dark.addEventListener("change", () => plots.filter((p) => p.dataset.drawn).forEach((p) => Plotly.relayout(p, theme())));

  const sorted = (rows, column, direction) => rows.sort((a, b) => {
    const x = a.cells[column].dataset.sort, y = b.cells[column].dataset.sort;
    if (x === "" || y === "") return (x === "") - (y === "");
    const number = Number(x) - Number(y);
    return direction * (Number.isNaN(number) ? x.localeCompare(y) : number);
  });
  document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    table.querySelectorAll("thead th").forEach((th) => th.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    body.append(...sorted([...body.rows], head.cellIndex, direction));
  }));
})();
