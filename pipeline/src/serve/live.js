// Fetches the changing part of the page every two seconds and puts in place what has changed.
"use strict";
const main = document.querySelector("main");
const live = document.getElementById("live");
let shown = null;
// What is as it was stays, with what is selected in it; a table that is replaced stays scrolled to where it was, and the head of a column
// keeps the keyboard.
function put(text) {
  const focused = document.activeElement && document.activeElement.id;
  replace(text);
  const again = focused && document.getElementById(focused);
  if (again && again !== document.activeElement) again.focus({ preventScroll: true });
}
function replace(text) {
  const template = document.createElement("template");
  template.innerHTML = text;
  const [before, after] = [[...main.children], [...template.content.children]];
  if (before.length !== after.length) return main.replaceChildren(template.content);
  before.forEach((old, index) => {
    if (old.outerHTML === after[index].outerHTML) return;
    const scrolled = old.scrollLeft;
    old.replaceWith(after[index]);
    after[index].scrollLeft = scrolled;
  });
}
async function refresh() {
  try {
    const part = location.search ? location.search + "&part" : "?part";
    const answer = await fetch(location.pathname + part, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    const text = await answer.text();
    if (shown !== null && text !== shown) put(text);
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
