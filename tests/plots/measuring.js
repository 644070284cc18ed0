// Draws FIGURES one after the other and measures them; writes what it found as JSON into the page.
const boxOf = (element, matrix, trim) => {
  // Corners of the element's own box on the page, so that slanted words are compared as they lie. The box of a line is
  // higher than its letters.
  const b = element.getBBox(), cut = trim ? [0.18 * trim, 0.14 * trim] : [0, 0];
  const [x0, x1, y0, y1] = [b.x, b.x + b.width, b.y + cut[0], b.y + b.height - cut[1]];
  return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]].map(([x, y]) =>
    [matrix.a * x + matrix.c * y + matrix.e, matrix.b * x + matrix.d * y + matrix.f]);
};
const depth = (p, q) => {
  // How far two convex shapes lie in each other: the least overlap over the directions of their edges.
  let least = Infinity;
  for (const shape of [p, q]) for (let i = 0; i < 2; i++) {
    const [a, b] = [shape[i], shape[i + 1]], length = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1;
    const axis = [(b[1] - a[1]) / length, -(b[0] - a[0]) / length];
    const reach = s => s.map(c => c[0] * axis[0] + c[1] * axis[1]);
    const [u, v] = [reach(p), reach(q)];
    least = Math.min(least, Math.min(Math.max(...u), Math.max(...v)) - Math.max(Math.min(...u), Math.min(...v)));
  }
  return least;
};
const rectangle = r => [[r.left, r.top], [r.right, r.top], [r.right, r.bottom], [r.left, r.bottom]];
const seen = e => {
  for (let n = e; n && n.nodeType === 1; n = n.parentNode) {
    const s = getComputedStyle(n);
    if (s.display === "none" || s.visibility === "hidden" || Number(s.opacity) === 0) return false;
  }
  return e.textContent.trim() !== "";
};
const measure = div => {
  const page = div.getBoundingClientRect();
  const result = {outside: [], overlapping: [], covered: [], clipped: [], turned: [], smallest: 99};
  const texts = [...div.querySelectorAll("svg text")].filter(seen).map(e => {
    const sizes = [e, ...e.querySelectorAll("tspan")]
      .filter(n => [...n.childNodes].some(c => c.nodeType === 3 && c.data.trim()))
      .map(n => parseFloat(getComputedStyle(n).fontSize));
    result.smallest = Math.min(result.smallest, ...sizes);
    return {text: e.textContent, box: boxOf(e, e.getScreenCTM(), sizes[0] || 12), element: e};
  });
  for (const {text, box} of texts)
    if (box.some(([x, y]) => x < page.left - 0.5 || x > page.right + 0.5 || y < page.top - 0.5 || y > page.bottom + 0.5))
      result.outside.push(text);
  texts.forEach((one, i) => texts.slice(i + 1).forEach(two => {
    if (depth(one.box, two.box) > TOLERANCE) result.overlapping.push([one.text, two.text]);
  }));
  // Ours lean by -40 or -90; plotly turns those that it finds no room for by 30 or 90.
  for (const {text, element} of texts.filter(t => t.element.closest("g[class^='x'][class*='tick']")))
    if (/rotate\((29|30|89|90)\b/.test(element.getAttribute("transform"))) result.turned.push(text);
  const plots = Object.entries(div._fullLayout._plots).map(([id, {xaxis: x, yaxis: y}]) => {
    const [left, top] = [page.left + x._offset, page.top + y._offset];
    return {id, panel: rectangle({left, top, right: left + x._length, bottom: top + y._length})};
  });
  for (const legend of div.querySelectorAll("g[class^='legend']")) {
    const frame = legend.querySelector("rect.bg");
    if (!frame) continue;
    const box = rectangle(frame.getBoundingClientRect());
    if (plots.some(({panel}) => depth(panel, box) > TOLERANCE)) result.covered.push("legend");
    // A legend is opaque: texts of others under it are hidden.
    for (const one of texts.filter(t => !legend.contains(t.element)))
      if (depth(one.box, box) > TOLERANCE) result.covered.push(one.text);
    for (const one of texts.filter(t => legend.contains(t.element)))
      if (one.box.some(([x, y]) => x < box[0][0] - 1 || x > box[1][0] + 1 || y < box[0][1] - 1 || y > box[2][1] + 1))
        result.clipped.push(one.text);
  }
  for (const one of texts.filter(t => t.element.closest("[class*='tick'], [class*='title']"))) {
    // The headings of a table may stand in its own panel.
    const own = one.element.closest(".subplot")?.classList;
    const others = plots.filter(({id}) => !own?.contains(id));
    if (others.some(({panel}) => depth(panel, one.box) > 2 * TOLERANCE)) result.covered.push(one.text);
  }
  result.texts = texts.length;
  return result;
};
const main = async () => {
  const results = {};
  for (const [name, figure] of Object.entries(FIGURES)) {
    const div = document.createElement("div");
    div.style.width = figure.layout.width + "px"; // else it is as wide as the window, and hides what is cut off at the right
    document.body.append(div);
    await Plotly.newPlot(div, figure.data, figure.layout, {staticPlot: true});
    results[name] = measure(div);
    if (IMAGES) {
      const {width, height} = figure.layout;
      const image = await Plotly.toImage(div, {format: "png", width, height, scale: SCALE});
      results[name].png = image.split(",")[1];
    }
    Plotly.purge(div);
    div.remove();
  }
  document.body.innerHTML = "";
  const out = document.createElement("pre");
  out.id = "results";
  out.textContent = JSON.stringify(results);
  document.body.append(out);
};
main().catch(error => { document.title = "failed"; console.error(error.stack || String(error)); });
