// Logs in and out. Who is logged in is known by a cookie that this script cannot read.
"use strict";

const base = document.body.dataset.base;
const session = `${base}/api/v1/session`;

async function trouble(answer) {
  if (answer.ok) return "";
  const problem = await answer.json().catch(() => ({}));
  return problem.detail || `The scheduler answers with an error (${answer.status}).`;
}

async function logIn(form) {
  const said = document.getElementById("trouble");
  const button = form.querySelector("button");
  const { name, password } = Object.fromEntries(new FormData(form));
  button.disabled = true;
  said.textContent = "";
  try {
    const headers = { "Content-Type": "application/json", Accept: "application/json" };
    const known = await fetch(`${base}/api/v1/whoami`, { headers: { Accept: "application/json" } });
    const { csrf } = await known.json().catch(() => ({}));
    if (csrf) headers["X-CSRF-Token"] = csrf; // somebody is logged in here already
    const answer = await fetch(session, {
      method: "POST",
      headers,
      body: JSON.stringify({ name, password }),
    });
    said.textContent = await trouble(answer);
    if (answer.ok) location.replace(`${base}/`);
  } catch {
    said.textContent = "The scheduler does not answer.";
  }
  button.disabled = false;
}

async function logOut(button) {
  button.disabled = true;
  try {
    const answer = await fetch(session, {
      method: "DELETE",
      headers: { "X-CSRF-Token": button.dataset.csrf, Accept: "application/json" },
    });
    if (answer.ok) location.replace(`${base}/`);
  } finally {
    button.disabled = false;
  }
}

document.getElementById("log-in")?.addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(event.target);
});
document.getElementById("log-out")?.addEventListener("click", (event) => logOut(event.target));
