// Fetches the changing part of the page every two seconds and puts it in place where it has changed.
"use strict";
const main = document.querySelector("main");
const live = document.getElementById("live");
let shown = null;
async function refresh() {
  try {
    const answer = await fetch(location.pathname + "?part", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const text = await answer.text();
    if (shown !== null && text !== shown) main.innerHTML = text;
    shown = text;
    live.textContent = "live";
    live.className = "";
  } catch {
    live.textContent = "not reachable";
    live.className = "lost";
  }
}
refresh();
setInterval(() => { if (!document.hidden) refresh(); }, 2000);
