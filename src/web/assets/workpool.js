// Keeps the region "live" of a page as the server would render it now, copies, and tells what is under the pointer.
// Without this script everything works as well.
"use strict";
(() => {
  const EVERY_MS = 2000;
  const events = new URL("../api/events", document.currentScript.src);
  const region = () => document.getElementById("live");
  let source = null;
  let again = null;
  let streaming = false;
  let busy = false;
  let last = 0;
  let due = null;

  // Whoever is about to open, to confirm, to type or to select is not interrupted.
  const isHeld = () => {
    const focused = document.activeElement;
    const types = focused && focused.matches("input, select, button, summary") && region().contains(focused);
    return types || region().querySelector("details[open], input[type=checkbox]:checked");
  };

  const refresh = async () => {
    if (busy || document.hidden || !region() || isHeld()) return;
    busy = true;
    last = Date.now();
    try {
      const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      if (!answer.ok || !fresh || isHeld()) return;
      const focused = region().contains(document.activeElement) && document.activeElement.href;
      region().replaceWith(document.adoptNode(fresh));
      const link = focused && [...region().querySelectorAll("a")].find((a) => a.href === focused);
      if (link) link.focus();
      const counts = page.querySelectorAll(".count");
      document.querySelectorAll(".count").forEach((count, place) => {
        if (counts[place]) count.replaceWith(document.adoptNode(counts[place]));
      });
      document.body.classList.remove("stale");
    } catch {
      document.body.classList.add("stale");
    } finally {
      busy = false;
    }
  };

  // At most once a second, and once more after the last news.
  const soon = () => {
    if (due) return;
    due = setTimeout(() => { due = null; refresh(); }, Math.max(0, last + 1000 - Date.now()));
  };

  const listen = () => {
    clearTimeout(again);
    if (source || document.hidden) return;
    source = new EventSource(events);
    source.addEventListener("open", () => { streaming = true; });
    source.addEventListener("overview", soon);
    source.addEventListener("error", () => {
      streaming = false;
      // The browser tries again by itself, unless it was refused.
      if (source?.readyState === EventSource.CLOSED) {
        source = null;
        again = setTimeout(listen, 30000);
      }
    });
  };

  // A page that nobody sees takes no place from one that is looked at, and none of the few connections of its browser.
  const rest = () => {
    clearTimeout(again);
    source?.close();
    source = null;
    streaming = false;
  };

  document.documentElement.classList.add("script");
  if (navigator.clipboard) document.documentElement.classList.add("copies");

  document.addEventListener("click", async ({ target }) => {
    if (!target.matches(".copy")) return;
    try {
      await navigator.clipboard.writeText(target.dataset.copy);
      target.textContent = "Copied";
    } catch {
      target.textContent = "Not copied";
    }
    setTimeout(() => { target.textContent = "Copy"; }, 1500);
  });

  document.addEventListener("change", ({ target }) => {
    if (!target.matches(".all")) return;
    for (const one of target.closest("table").querySelectorAll("[name=id]")) one.checked = target.checked;
  });

  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") document.querySelectorAll(".menu[open]").forEach((menu) => { menu.open = false; });
  });

  document.addEventListener("pointerover", ({ target }) => {
    const chart = target.closest?.(".chart");
    if (!chart) return;
    const title = target.closest(".hit")?.querySelector("title");
    chart.querySelector(".readout").textContent = title ? title.textContent : "";
  });

  if (!region()) return;
  listen();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      rest();
    } else {
      listen();
      refresh();
    }
  });
  setInterval(() => { if (!streaming || region().hasAttribute("data-poll")) refresh(); }, EVERY_MS);
})();
