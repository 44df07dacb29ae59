// Forms and pages work without this script. With it, a form with `data-live` sends itself when something in it changes
// and puts the answer into the element that `data-live` names. An answer that is not done yet goes into the status box of
// that element (its id and `-status`) and asks again by `data-again`. What is `data-wrong` is also shown at its field. An
// element with `data-stream` shows what the server sends; `data-copy` copies the text of the element it names; a button
// says its `data-busy` from when it was pressed until the page that answers is there.
(() => {
  "use strict";
  const WAIT = 250; // ms after the last key
  const asking = new Map(); // element that is filled -> AbortController of the request that fills it

  // What a person has opened, scrolled and focused in a part stays so in the one that takes its place.
  const called = (details) => details.id || details.querySelector("summary").textContent;
  const put = (target, html) => {
    const open = new Set([...target.querySelectorAll("details[open]")].map(called));
    const scrolled = [...target.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    const reached = () => [...target.querySelectorAll("a, button, summary, [tabindex]")];
    const focused = reached().indexOf(document.activeElement);
    target.innerHTML = html;
    target.querySelectorAll("details").forEach((d) => { if (open.has(called(d))) d.open = true; });
    target.querySelectorAll(".scroll").forEach((box, number) => { box.scrollLeft = scrolled[number] || 0; });
    if (focused >= 0) reached()[focused]?.focus({ preventScroll: true });
    wake(target);
  };

  const statusOf = (target) => document.getElementById(`${target.id}-status`);

  // Each fault at its field, and none where there is none any more.
  const mark = (form, answer) => form.querySelectorAll("[aria-describedby]").forEach((field) => {
    const place = document.getElementById(`wrong-${field.id}`);
    const fault = answer.querySelector(`[data-wrong="${CSS.escape(field.id)}"]`);
    if (place) place.textContent = fault ? fault.textContent : "";
    if (fault) { field.setAttribute("aria-invalid", "true"); field.closest("details")?.setAttribute("open", ""); }
    else field.removeAttribute("aria-invalid");
  });

  const take = (target, answer, html) => {
    const status = statusOf(target);
    if (answer.headers.get("x-pending") && status) { put(status, html); return; }
    put(target, html);
    target.removeAttribute("aria-busy");
    if (status) status.textContent = "";
    document.querySelectorAll(`form[data-live="${target.id}"]`).forEach((form) => mark(form, target));
  };

  const ask = async (target, url, options = {}) => {
    asking.get(target)?.abort();
    const own = new AbortController();
    asking.set(target, own);
    target.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(url, { ...options, headers: { "X-Fragment": "1" }, signal: own.signal });
      const html = await answer.text();
      if (asking.get(target) !== own) return;
      if (answer.headers.get("x-address")) history.replaceState(null, "", answer.headers.get("x-address"));
      take(target, answer, html);
    } catch (fault) {
      if (fault.name === "AbortError") return;
      target.removeAttribute("aria-busy");
      target.innerHTML = '<p class="refusal" role="alert">The app does not answer: was <code>rankwise ui</code> ended? Start it again and open the address that it prints.</p>';
    }
  };

  const send = (form) => {
    const target = document.getElementById(form.dataset.live);
    const body = new FormData(form);
    const hasFile = form.enctype === "multipart/form-data";
    return ask(target, form.action, { method: "POST", body: hasFile ? body : new URLSearchParams(body) });
  };

  const live = (form) => {
    let waiting;
    const later = (wait) => { clearTimeout(waiting); waiting = setTimeout(() => send(form), wait); };
    form.addEventListener("input", () => later(WAIT));
    form.addEventListener("change", () => later(0));
    form.addEventListener("submit", (event) => {
      if (event.submitter?.hasAttribute("data-whole")) return; // an answer that is no part of this page
      event.preventDefault();
      later(0);
    });
  };

  const stream = (box) => {
    const source = new EventSource(box.dataset.stream);
    source.onmessage = (event) => put(box, event.data);
    source.addEventListener("end", () => {
      source.close();
      if (box.dataset.end === "reload") location.reload(); // what can be done with it is another thing now
    });
    addEventListener("pagehide", () => source.close());
  };

  const copy = async (button) => {
    const told = button.textContent;
    const text = document.getElementById(button.dataset.copy).textContent;
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(document.getElementById(button.dataset.copy)); button.textContent = "Selected: press Ctrl+C"; }
    setTimeout(() => { button.textContent = told; }, 2000);
  };

  const busy = (button) => {
    const told = button.textContent;
    button.form.addEventListener("submit", () => {
      button.textContent = button.dataset.busy;
      button.form.setAttribute("aria-busy", "true");
      setTimeout(() => { button.disabled = true; }); // once the form is on its way
    });
    addEventListener("pageshow", () => { button.textContent = told; button.disabled = false; button.form.removeAttribute("aria-busy"); });
  };

  // What came in needs what the page got when it opened.
  const wake = (part) => {
    part.querySelectorAll("form[data-live]").forEach(live);
    part.querySelectorAll("[data-stream]").forEach(stream);
    part.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button)));
    part.querySelectorAll("[data-busy]").forEach(busy);
    part.querySelectorAll("[data-again]").forEach((box) => setTimeout(() => {
      if (box.isConnected) ask(document.getElementById(box.dataset.into), box.dataset.again);
    }, Number(box.dataset.after)));
    if (typeof Plotly !== "undefined" && part !== document) {
      part.querySelectorAll("[data-no-chart]").forEach((note) => note.remove());
      charts.draw();
    }
  };

  wake(document);
  if (typeof Plotly !== "undefined") charts.start();
})();
