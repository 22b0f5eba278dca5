// A tree of objects. Follows the tree view pattern of ARIA: one stop for Tab, arrows within.
import { html, useRef, useState } from "./ground.js";
import { Age, Mark, toneOf } from "./parts.js";

const encoded = (each) => encodeURIComponent(each);
// logs: by namespace, whether they may be read.
const linkOf = (node, logs) => {
  const at = `${encoded(node.namespace)}/${encoded(node.name)}`;
  if (node.kind === "Pod") return logs[node.namespace] ? `/logs/${at}` : "";
  if (node.kind === "Rollout") return `/rollouts/${at}`;
  if (node.kind === "Deployment") return `/deployments/${at}`;
  return node.kind === "Application" ? `/applications/${at}` : "";
};

export function Tree({ nodes, roles, logs }) {
  const [closed, setClosed] = useState({});
  const [at, setAt] = useState("");
  const ref = useRef(null);
  const children = {};
  for (const [key, node] of Object.entries(nodes)) {
    const parent = node.parent in nodes ? node.parent : "";
    (children[parent] ||= []).push(key);
  }
  const open = (key, is) => setClosed((now) => ({ ...now, [key]: !is }));
  const pressed = (event) => {
    const items = [...ref.current.querySelectorAll("[role=treeitem]")];
    const here = event.target.closest("[role=treeitem]");
    const key = here?.dataset.of;
    if (!key) return;
    const place = items.indexOf(here);
    const does = {
      ArrowDown: () => items[place + 1]?.focus(),
      ArrowUp: () => items[place - 1]?.focus(),
      Home: () => items[0].focus(),
      End: () => items[items.length - 1].focus(),
      ArrowRight: () => (closed[key] ? open(key, true) : here.querySelector("[role=treeitem]")?.focus()),
      ArrowLeft: () => (children[key] && !closed[key] ? open(key, false) : here.parentElement.closest("[role=treeitem]")?.focus()),
      Enter: () => event.target === here && here.querySelector("a")?.click(),
    }[event.key];
    if (does && !(event.key === "Enter" && event.target !== here)) {
      event.preventDefault();
      does();
    }
  };
  const first = at in nodes ? at : children[""]?.[0];
  const branch = (key) => {
    const node = nodes[key];
    const below = children[key] || [];
    const link = linkOf(node, logs);
    const role = roles[node.hash];
    return html`<li key=${key} role="treeitem" data-of=${key} tabindex=${key === first ? 0 : -1} aria-expanded=${below.length ? String(!closed[key]) : undefined}
      aria-label=${[node.kind, node.name, node.health, node.note].filter(Boolean).join(", ")} onFocus=${(event) => event.target.dataset.of === key && setAt(key)}>
      <div class="node ${toneOf(node.health)}"><span class="mark" title=${node.message || node.health}>${node.health ? html`<${Mark} tone=${toneOf(node.health)} />` : html`<span class="faint">·</span>`}</span>
        <span class="clip">${link ? html`<a class="name" href=${link} tabindex="-1" title=${node.kind === "Pod" ? "Logs" : ""}>${node.name}</a>` : html`<span class="name">${node.name}</span>`} <span class="kind">${node.kind}</span>
          ${role ? html` <span class="role of-${role}">${role}</span>` : null}</span>
        <span class="end">${node.sync && node.sync !== "Synced" ? html`<span class="health ${toneOf(node.sync)}">${node.sync === "OutOfSync" ? "out of sync" : node.sync}</span>` : null}
          ${node.restarts ? html`<span class="number">${node.restarts} restarts</span>` : null}
          ${node.note ? html`<span>${node.note}</span>` : null}${node.detail ? html`<span class="number">${node.detail}</span>` : null}
          ${node.created ? html`<${Age} of=${node.created} ago=${false} />` : null}</span></div>
      ${below.length && !closed[key] ? html`<ul role="group">${below.map(branch)}</ul>` : null}</li>`;
  };
  return html`<ul class="tree" role="tree" aria-label="Resources" ref=${ref} onKeyDown=${pressed}>${(children[""] || []).map(branch)}</ul>`;
}
