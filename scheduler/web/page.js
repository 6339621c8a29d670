// Keeps the page fresh: fetches it again every two seconds while somebody can see it, and changes only what differs, so
// that scroll position, selection, focus and opened details stay. What cannot be fetched is said, and tried again.
"use strict";

const PERIOD = 2000; // milliseconds between an answer and the next question
const PATIENCE = 5000; // milliseconds until an answer counts as missing

const main = document.getElementById("main");
const connection = document.getElementById("connection");
const clock = document.getElementById("clock");
let fetching = false;
let timer = 0;

async function fetchPage() {
  const answer = await fetch(location.pathname + location.search, {
    headers: { Accept: "text/html" },
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (answer.status === 401) location.reload(); // who was logged in is not any more
  if (!answer.ok) throw new Error(`The scheduler answers with an error (${answer.status}).`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (!page.getElementById("main")) throw new Error("Something else answers here.");
  return page;
}

async function refresh() {
  if (document.hidden || fetching) return;
  clearTimeout(timer);
  fetching = true;
  let page = null;
  let trouble = "";
  try {
    page = await fetchPage();
  } catch (error) {
    trouble = error.name === "Error" ? error.message : "The scheduler does not answer.";
  }
  fetching = false;
  timer = setTimeout(refresh, PERIOD);
  answering(trouble);
  if (page) show(page);
}

function show(page) {
  const look = (one) => one.querySelector("link[rel=stylesheet]").getAttribute("href");
  if (look(page) !== look(document)) location.reload(); // the scheduler is another version now
  document.title = page.title;
  patch(main, page.getElementById("main"));
  patch(document.querySelector("h1"), page.querySelector("h1"));
}

// The status line is a live region: it changes only when the connection does, never each time the page is fetched.
function answering(trouble) {
  const text = trouble && `${trouble} Trying again.`;
  if (connection.textContent !== text) connection.textContent = text;
  document.body.classList.toggle("stale", Boolean(trouble));
  if (!trouble) clock.textContent = `as of ${new Date().toLocaleTimeString()}`;
}

function patch(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (!selected(old)) old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  patchChildren(old, fresh);
}

function patchChildren(old, fresh) {
  const wanted = new Set([...fresh.children].map(keyOf).filter(Boolean));
  const kept = new Map();
  for (const child of [...old.children]) {
    const key = keyOf(child);
    if (key && wanted.has(key)) kept.set(key, child);
    else if (key) child.remove();
  }
  let next = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child);
    const match = key ? kept.get(key) : alike(next, child) ? next : null;
    kept.delete(key);
    if (!match) {
      old.insertBefore(document.importNode(child, true), next);
      continue;
    }
    while (next !== match && next && !keyOf(next)) next = drop(next);
    if (next && match === next.nextElementSibling) {
      old.append(next); // it went down: move it, not all that are below it, for what is moved loses its selection
      next = match;
    }
    if (match === next) next = next.nextSibling;
    else old.insertBefore(match, next);
    patch(match, child);
  }
  while (next) next = drop(next);
}

function drop(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.id || node.getAttribute("data-key") : "";
}

function alike(old, fresh) {
  return old && !keyOf(old) && old.nodeName === fresh.nodeName;
}

// Text that is being selected stays as it is until the selection is gone.
function selected(node) {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(node, true);
}

document.addEventListener("visibilitychange", refresh);
answering("");
timer = setTimeout(refresh, PERIOD);
