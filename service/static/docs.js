// Shows the service's OpenAPI document: operations by their tags, and the schemas that they use.

import { byId, element, withCode } from "./dom.js";

const METHODS = ["get", "post", "patch", "put", "delete"];

/** Text with paragraphs, lists and code, as descriptions are written in Markdown. */
function buildText(text) {
  return (text ?? "").split(/\n{2,}/).filter(Boolean).map((block) => {
    const lines = block.split("\n");
    if (!lines.every((line) => line.startsWith("- "))) return element("p", {}, ...withCode(lines.join(" ")));
    return element("ul", {}, ...lines.map((line) => element("li", {}, ...withCode(line.slice(2)))));
  });
}

const nameOf = (reference) => reference.split("/").at(-1);
const linkTo = (name) => element("a", { href: `#schema-${name}`, text: name });

/** What kind of value a schema is, in words, with links to the schemas that it names. */
function buildKind(schema) {
  if (!schema || Object.keys(schema).length === 0) return ["anything"];
  if (schema.$ref) return [linkTo(nameOf(schema.$ref))];
  const choices = schema.oneOf ?? schema.anyOf ?? schema.allOf;
  if (choices) {
    return choices.flatMap((choice, index) => [...(index ? [schema.allOf ? " and " : " or "] : []), ...buildKind(choice)]);
  }
  if (schema.const !== undefined) return [element("code", { text: JSON.stringify(schema.const) })];
  if (schema.enum) {
    return schema.enum.flatMap((value, index) => [
      ...(index ? [" or "] : []),
      element("code", { text: JSON.stringify(value) }),
    ]);
  }
  if (schema.type === "array") return ["list of ", ...buildKind(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) return ["object of ", ...buildKind(schema.additionalProperties)];
  if (schema.format) return [`${schema.type} (${schema.format})`];
  return [schema.type ?? "anything"];
}

function limitsOf(schema) {
  const words = { minimum: "at least", exclusiveMinimum: "above", maximum: "at most", maxItems: "at most", minItems: "at least", maxLength: "at most" };
  const units = { maxItems: " items", minItems: " items", maxLength: " characters" };
  const own = [schema, ...(schema.anyOf ?? [])];
  const limits = own.flatMap((each) =>
    Object.entries(words)
      .filter(([name]) => each[name] !== undefined)
      .map(([name, word]) => `${word} ${each[name].toLocaleString("en")}${units[name] ?? ""}`),
  );
  if (schema.default !== undefined && schema.default !== null) limits.push(`default ${JSON.stringify(schema.default)}`);
  return limits.join(", ");
}

function buildField(name, schema, { isRequired, place = "" }) {
  const limits = limitsOf(schema);
  const notes = [place, isRequired ? "required" : "", limits].filter(Boolean).join("; ");
  return element(
    "div",
    { class: "docs-field" },
    element("dt", {}, element("code", { text: name }), " ", element("span", { class: "docs-kind" }, ...buildKind(schema))),
    element("dd", {}, notes && element("p", { class: "docs-notes", text: notes }), ...buildText(schema.description)),
  );
}

function buildContent(content) {
  return Object.entries(content ?? {}).flatMap(([type, { schema }]) => {
    const kind = element("p", {}, element("code", { text: type }), ": ", ...buildKind(schema ?? {}));
    if (!schema?.properties) return [kind];
    return [kind, buildProperties(schema)];
  });
}

function buildProperties(schema) {
  const required = schema.required ?? [];
  const fields = Object.entries(schema.properties ?? {}).map(([name, field]) =>
    buildField(name, field, { isRequired: required.includes(name) }),
  );
  return element("dl", { class: "docs-fields" }, ...fields);
}

function buildResponse(status, response) {
  return element(
    "div",
    { class: "docs-field" },
    element("dt", {}, element("code", { text: status })),
    element("dd", {}, ...buildText(response.description), ...buildContent(response.content)),
  );
}

function buildOperation(path, method, operation) {
  const parts = [...buildText(operation.description)];
  const given = (operation.parameters ?? []).map((parameter) =>
    buildField(
      parameter.name,
      { ...parameter.schema, description: parameter.description ?? parameter.schema?.description },
      { isRequired: parameter.required, place: `in the ${parameter.in}` },
    ),
  );
  if (given.length) parts.push(element("h4", { text: "Parameters" }), element("dl", { class: "docs-fields" }, ...given));
  if (operation.requestBody) {
    parts.push(element("h4", { text: "Body" }), ...buildContent(operation.requestBody.content));
  }
  const answers = Object.entries(operation.responses).map(([status, response]) => buildResponse(status, response));
  parts.push(element("h4", { text: "Answers" }), element("dl", { class: "docs-fields" }, ...answers));
  return element(
    "details",
    { class: "docs-operation", id: operation.operationId },
    element(
      "summary",
      {},
      element("span", { class: "docs-method", text: method.toUpperCase() }),
      element("code", { class: "docs-path", text: path }),
      element("span", { class: "docs-summary", text: operation.summary ?? "" }),
    ),
    element("div", { class: "docs-body" }, ...parts),
  );
}

function operationsOf(document) {
  return Object.entries(document.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, operation: item[method] })),
  );
}

function show(document) {
  const byTag = Map.groupBy(operationsOf(document), ({ operation }) => operation.tags?.[0] ?? "other");
  const sections = [...byTag].map(([tag, operations]) =>
    element(
      "section",
      { id: `tag-${tag}` },
      element("h2", { text: tag[0].toUpperCase() + tag.slice(1) }),
      ...operations.map(({ path, method, operation }) => buildOperation(path, method, operation)),
    ),
  );
  byId("docs-operations").replaceChildren(...sections);
  byId("docs-index").replaceChildren(
    ...[...byTag.keys(), "schemas"].map((tag) =>
      element("a", { href: tag === "schemas" ? "#docs-schemas" : `#tag-${tag}`, text: tag[0].toUpperCase() + tag.slice(1) }),
    ),
  );
  const schemas = Object.entries(document.components?.schemas ?? {}).map(([name, schema]) =>
    element(
      "details",
      { class: "docs-operation", id: `schema-${name}` },
      element("summary", {}, element("code", { class: "docs-path", text: name })),
      element(
        "div",
        { class: "docs-body" },
        ...buildText(schema.description),
        schema.properties ? buildProperties(schema) : element("p", {}, ...buildKind(schema)),
      ),
    ),
  );
  byId("docs-schemas-list").replaceChildren(...schemas);
  openTarget();
}

/** Opens what the address names. */
function openTarget() {
  const target = location.hash && byId(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.matches("details")) target.open = true;
  target.scrollIntoView();
}

window.addEventListener("hashchange", openTarget);
try {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(`The server answered with status ${response.status}.`);
  show(await response.json());
} catch (error) {
  byId("docs-about").textContent = `The description cannot be read. ${error.message}`;
}
