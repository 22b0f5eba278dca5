// The overview, the page of a deployment, and parts that pages of objects share.
import { ask, html, useEffect, useState, usePage, within } from "./ground.js";
import { Age, Empty, Events, Health, Mark, Problems, shortImage, shortRevision, toneOf } from "./parts.js";
import { Tree } from "./tree.js";

export const encoded = (each) => encodeURIComponent(each);
const fits = (each, filter) => !filter || `${each.namespace}/${each.name}`.toLowerCase().includes(filter.toLowerCase());
const RANK = { bad: 0, warn: 1, wait: 2, busy: 3, none: 4, good: 5 };
const worstFirst = (a, b) => RANK[toneOf(a.health)] - RANK[toneOf(b.health)] || (a.name < b.name ? -1 : 1);
const TALLY = [["Healthy", "good", "healthy"], ["Progressing", "busy", "progressing"], ["Suspended", "wait", "waiting"], ["Degraded", "bad", "degraded"]];

export function Overview({ namespace, onLink, onNames }) {
  const page = usePage(`/api/pages/overview/${encoded(namespace)}`);
  const [filter, setFilter] = useState("");
  useEffect(() => onLink(page.link), [page.link]);
  useEffect(() => { document.title = "Overview · Pilothouse"; }, []);
  const about = page.items.about;
  useEffect(() => { if (about?.namespaces?.length) onNames(about.namespaces); }, [about]);
  const all = ["application/", "rollout/", "deployment/"].map((each) => within(page.items, each));
  const [applications, rollouts, deployments] = all.map((list) => list.filter((each) => fits(each, filter)).sort(worstFirst));
  const everything = all.flat();
  const others = everything.filter((each) => !TALLY.some(([word]) => word === each.health)).length;
  const tally = [...TALLY.map(([word, tone, text]) => [everything.filter((each) => each.health === word).length, tone, text]), ...(others ? [[others, "none", "unknown"]] : [])];
  const isEmpty = page.here && about && !about.loading && !everything.length && !about.problems.length;
  return html`<div class="head"><div class="title"><h1>Overview</h1></div>
      <input class="field" type="search" data-filter aria-label="Filter by name" placeholder="Filter by name  /" value=${filter} onInput=${(event) => setFilter(event.target.value)} /></div>
    <${Problems} about=${about} />
    <section class="tally" aria-label="How all is">${tally.map(([count, tone, text]) => html`<div class="card ${tone} ${count ? "" : "zero"}" key=${text}><strong class="number">${count}</strong><span>${text}</span></div>`)}</section>
    ${isEmpty ? html`<div class="card"><${Empty} title="Nothing here yet">Applications, rollouts and deployments appear here by themselves.</${Empty}></div>` : null}
    <${Section} title="Rollouts" wide list=${rollouts}>${rollouts.map((each) => html`<${RolloutTile} key=${each.uid} rollout=${each} />`)}</${Section}>
    <${Section} title="Applications" list=${applications}>${applications.map((each) => html`<${ApplicationTile} key=${`${each.namespace}/${each.name}`} application=${each} />`)}</${Section}>
    <${Section} title="Deployments" list=${deployments}>${deployments.map((each) => html`<${DeploymentTile} key=${each.uid} deployment=${each} />`)}</${Section}>`;
}

const Section = ({ title, list, wide, children }) => (list.length ? html`<section class="section" aria-label=${title}><header><h2>${title}</h2><span class="count number">${list.length}</span></header>
  <ul class="tiles ${wide ? "wide" : ""}">${children}</ul></section>` : null);

const Tile = ({ href, each, children }) => html`<li><a class="card tile ${toneOf(each.health)}" href=${href} data-nav>
  <span class="top"><span class="clip"><span class="name">${each.name}</span><span class="faint"> ${each.namespace}</span></span>${each.stand ? html`<span class="health ${each.stand.tone}"><${Mark} tone=${each.stand.tone} />${each.stand.word}</span>` : html`<${Health} word=${each.health} />`}</span>${children}</a></li>`;

function ApplicationTile({ application: each }) {
  return html`<${Tile} href=${`/applications/${encoded(each.namespace)}/${encoded(each.name)}`} each=${each}>
    <span class="row"><span class="health ${toneOf(each.sync)}">${each.sync === "OutOfSync" ? "Out of sync" : each.sync}</span><span class="mono">${shortRevision(each.revision) || each.target}</span><span class="clip">${each.path}</span></span>
    <span class="row"><span class="number">${each.objects} ${each.objects === 1 ? "object" : "objects"}${each.unwell ? `, ${each.unwell} unwell` : ""}</span></span>
    ${each.message && each.health !== "Healthy" ? html`<span class="why">${each.message}</span>` : null}</${Tile}>`;
}

function RolloutTile({ rollout: each }) {
  const weight = each.weight ?? (each.updating ? 0 : 100);
  return html`<${Tile} href=${`/rollouts/${encoded(each.namespace)}/${encoded(each.name)}`} each=${each}>
    ${each.steps.length ? html`<span class="progress ${each.stand.tone}" role="img" aria-label=${`step ${each.step} of ${each.steps.length}`}>${each.steps.map((step, at) => html`<i key=${at} class=${each.aborted ? "" : at < each.step || !each.updating ? "done" : at === each.step ? "here" : ""} />`)}</span>` : null}
    <span class="row"><span class="clip">${each.aborted ? "Back on the stable version" : each.updating ? (each.steps[each.step] ? `Step ${each.step + 1} of ${each.steps.length}: ${each.steps[each.step].text}` : "Last step done") : "On one version"}</span>
      ${each.updating && !each.aborted && each.weight != null ? html`<span class="number of-canary">Canary ${weight} %</span>` : null}<span class="number">${each.ready}/${each.replicas} pods</span></span>
    <span class="row mono clip">${each.images.map(shortImage).join(" ")}</span>
    ${each.stand.text && each.stand.tone !== "good" ? html`<span class="why">${each.stand.text}</span>` : null}</${Tile}>`;
}

function DeploymentTile({ deployment: each }) {
  return html`<${Tile} href=${`/deployments/${encoded(each.namespace)}/${encoded(each.name)}`} each=${each}>
    <span class="row"><span class="number">${each.ready}/${each.replicas} pods</span><span class="mono clip">${each.images.map(shortImage).join(" ")}</span></span>
    ${each.message && each.health !== "Healthy" ? html`<span class="why">${each.message}</span>` : null}</${Tile}>`;
}

export const Missing = ({ kind, where, name }) => html`<div class="card"><${Empty} title=${`There is no ${kind} ${name} in ${where}`}>It may have been deleted. <a class="link" href="/">Overview</a></${Empty}></div>`;

export const Crumbs = ({ where, what }) => html`<div class="crumbs"><a href="/">Overview</a><span aria-hidden="true">/</span><span>${where}</span><span aria-hidden="true">/</span><span>${what}</span></div>`;

export const nodesOf = (items) => Object.fromEntries(Object.entries(items).filter(([key]) => key.startsWith("node/")).map(([key, value]) => [key.slice(5), value]));

export function Objects({ items, roles }) {
  const nodes = nodesOf(items);
  const pods = Object.values(nodes).filter((each) => each.kind === "Pod").length;
  const spaces = [...new Set(Object.values(nodes).filter((each) => each.kind === "Pod").map((each) => each.namespace))].sort();
  const [logs, setLogs] = useState({});
  useEffect(() => {
    for (const space of spaces) ask("GET", `/api/rights/logs/${encoded(space)}`).then((found) => setLogs((now) => ({ ...now, [space]: found.allowed })), () => {});
  }, [spaces.join()]);
  return html`<section class="card"><header><h2>Resources</h2><span class="end number">${Object.keys(nodes).length - 1} objects, ${pods} pods</span></header>
    <div class="body"><${Tree} nodes=${nodes} roles=${roles || {}} logs=${logs} /></div></section>`;
}

export const EventsCard = ({ items }) => html`<section class="card"><header><h2>Events</h2></header><div class="body"><${Events} events=${within(items, "event/")} short /></div></section>`;

export function DeploymentPage({ where, name, onLink }) {
  const page = usePage(`/api/pages/deployment/${encoded(where)}/${encoded(name)}`);
  useEffect(() => onLink(page.link), [page.link]);
  useEffect(() => { document.title = `${name} · Pilothouse`; }, [name]);
  const { about, workload: found } = page.items;
  if (!found) return about?.missing ? html`<${Missing} kind="deployment" where=${where} name=${name} />` : html`<${Problems} about=${about} />`;
  return html`<div class="head"><div class="title"><${Crumbs} where=${where} what="Deployment" /><h1>${name} <span class="pill ${toneOf(found.health)}"><${Mark} tone=${toneOf(found.health)} />${found.health}</span></h1></div></div>
    <${Problems} about=${about} />
    ${found.message ? html`<ul class="notes"><li class="note ${toneOf(found.health)}"><${Mark} tone=${toneOf(found.health)} /><div>${found.message}</div></li></ul>` : null}
    <div class="columns"><${Objects} items=${page.items} /><div class="section"><section class="card"><header><h2>Pods</h2></header><div class="body"><dl class="facts">
      <dt>Ready</dt><dd class="number">${found.ready} of ${found.replicas}</dd><dt>Up to date</dt><dd class="number">${found.updated}</dd><dt>Images</dt><dd class="mono">${found.images.map(shortImage).join(" ")}</dd>
      <dt>Since</dt><dd><${Age} of=${found.created} /></dd></dl></div></section><${EventsCard} items=${page.items} /></div></div>`;
}
