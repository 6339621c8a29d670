// Shows the API's document: each operation, what it takes and gives, and the types by name.

const DOCUMENT = "v1/openapi.json";
const METHODS = ["get", "head", "post", "put", "patch", "delete"];

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A schema in words, in which named types are links.
function words(schema) {
  if (!schema) return ["anything"];
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return [element("a", { href: `#type-${name}` }, name)];
  }
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return choices.flatMap((one, index) => (index ? [" or ", ...words(one)] : words(one)));
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(", ")];
  if (schema.type === "array") return ["list of ", ...words(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) {
    return ["map of ", ...words(schema.additionalProperties)];
  }
  return [[schema.type || "anything", ...bounds(schema)].join(" ")];
}

function bounds(schema) {
  const names = {
    minimum: "≥", exclusiveMinimum: ">", maximum: "≤", minLength: "length ≥", maxLength: "length ≤",
    minItems: "items ≥", maxItems: "items ≤", pattern: "like",
  };
  return Object.entries(names).filter(([key]) => key in schema).map(([key, word]) => `${word} ${schema[key]}`);
}

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, ...cell))));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

function bodyOf(content) {
  const [mediaType, said] = Object.entries(content || {})[0] || [];
  if (!mediaType) return ["nothing"];
  return [...(said.schema ? words(said.schema) : ["bytes"]), ` (${Object.keys(content).join(", ")})`];
}

function operation(path, method, said, shared) {
  const box = element("details", { class: "operation", id: said.operationId });
  box.append(element("summary", {},
    element("span", { class: "method" }, method.toUpperCase()), element("code", {}, path), " ",
    element("span", { class: "about" }, said.summary || "")));
  if (said.description) box.append(element("p", {}, said.description));
  const parameters = [...(shared || []), ...(said.parameters || [])];
  if (parameters.length) {
    box.append(element("h3", {}, "Takes"), table(["name", "in", "type", "meaning"], parameters.map((one) => [
      [element("code", {}, one.name)], [one.in], words(one.schema), [one.description || ""],
    ])));
  }
  if (said.requestBody) {
    const need = said.requestBody.required ? "" : ", optional";
    box.append(element("h3", {}, `Body${need}`), element("p", {}, ...bodyOf(said.requestBody.content)));
  }
  box.append(element("h3", {}, "Answers"), table(["status", "meaning", "body"],
    Object.entries(said.responses).map(([status, one]) => [[status], [one.description], bodyOf(one.content)])));
  return box;
}

function type(name, schema) {
  const box = element("details", { class: "type", id: `type-${name}` });
  box.append(element("summary", {}, element("code", {}, name), " ",
    element("span", { class: "about" }, schema.description || "")));
  if (schema.properties) {
    box.append(table(["field", "type", "without it"], Object.entries(schema.properties).map(([field, one]) => [
      [element("code", {}, field)], words(one),
      [(schema.required || []).includes(field) ? "required" : JSON.stringify(one.default ?? null)],
    ])));
  } else {
    box.append(element("p", {}, ...words(schema)));
  }
  return box;
}

function filter(text) {
  const wanted = text.toLowerCase();
  for (const box of document.querySelectorAll("details")) {
    box.hidden = !box.querySelector("summary").textContent.toLowerCase().includes(wanted);
  }
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && "open" in target) target.open = true;
}

async function show() {
  const answer = await fetch(DOCUMENT, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`${DOCUMENT} answered ${answer.status}`);
  const said = await answer.json();
  document.getElementById("about").textContent = `${said.info.description} Version ${said.info.version}.`;
  const operations = document.getElementById("operations");
  for (const [path, item] of Object.entries(said.paths)) {
    for (const method of METHODS.filter((name) => name in item)) {
      operations.append(operation(path, method, item[method], item.parameters));
    }
  }
  const types = document.getElementById("types");
  for (const [name, schema] of Object.entries(said.components.schemas)) types.append(type(name, schema));
  document.getElementById("filter").addEventListener("input", (event) => filter(event.target.value));
  addEventListener("hashchange", openTarget);
  openTarget();
}

show().catch((error) => {
  document.getElementById("about").replaceChildren(element("span", { class: "problem", role: "alert" }, String(error)));
});
