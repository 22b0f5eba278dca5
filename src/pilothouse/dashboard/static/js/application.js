// The page of an application: its objects, what differs from git field by field, its history, and its buttons.
import { ask, html, useEffect, useState, usePage, within } from "./ground.js";
import { Age, Empty, Mark, Problems, shortImage, shortRevision, toneOf } from "./parts.js";
import { Crumbs, EventsCard, Missing, Objects, encoded, nodesOf } from "./applications.js";
import { Actions, useRights } from "./actions.js";
import { LevelsCard } from "./levels.js";

export function ApplicationPage({ where, name, onLink }) {
  const page = usePage(`/api/pages/application/${encoded(where)}/${encoded(name)}`);
  const rights = useRights("applications", where);
  useEffect(() => onLink(page.link), [page.link]);
  useEffect(() => { document.title = `${name} · Pilothouse`; }, [name]);
  const { about, application: found } = page.items;
  if (!found) return about?.missing || about?.absent?.includes("applications") ? html`<${Missing} kind="application" where=${where} name=${name} />` : html`<${Problems} about=${about} />`;
  const told = { found, rights, path: `/api/applications/${encoded(where)}/${encoded(name)}` };
  const objects = html`<${Objects} key="objects" items=${page.items} />`;
  const differences = html`<${Differences} key="differences" items=${page.items} rights=${rights} where=${where} name=${name} at=${found.operationAt} />`;
  const unwell = found.message && found.health !== "Healthy";
  return html`<div class="head"><div class="title"><${Crumbs} where=${where} what="Application" /><h1>${name} <span class="pill ${toneOf(found.health)}"><${Mark} tone=${toneOf(found.health)} />${found.health}</span><span class="pill ${toneOf(found.sync)}">${found.sync === "OutOfSync" ? "Out of sync" : found.sync}</span></h1></div>
      <${Buttons} ...${told} /></div>
    <${Problems} about=${about} />
    ${found.conditions.length || unwell ? html`<ul class="notes">${unwell ? html`<li class="note ${toneOf(found.health)}"><${Mark} tone=${toneOf(found.health)} /><div>${found.message}</div></li>` : null}
      ${found.conditions.map((each) => html`<li class="note warn" key=${each.type}><${Mark} tone="warn" /><div><strong>${each.type}</strong><div class="muted">${each.message}</div></div></li>`)}</ul>` : null}
    <div class="columns"><div class="section">${found.sync === "OutOfSync" ? [differences, objects] : [objects, differences]}</div>
      <div class="section"><${Source} found=${found} /><${LevelsCard} levels=${within(page.items, "level/")} /><${History} ...${told} /><${EventsCard} items=${page.items} /></div></div>`;
}

const BUSY = "another operation goes on";

function Buttons({ found, rights, path }) {
  const revision = shortRevision(found.revision) || found.target;
  return html`<${Actions} label="Steer this application" rights=${rights} path=${path} offers=${[
    { verb: "sync", words: found.busy ? "Syncing…" : "Sync", tone: "main", key: "s", blocked: found.busy ? BUSY : "", done: "A sync was asked for.",
      confirm: { title: "Sync this application?", text: `The cluster is brought to what ${revision} says.`, label: "Sync", tone: "main", fields: [{ name: "prune", kind: "checkbox", label: "Delete what git has no more" }] } },
    { verb: "refresh", words: "Refresh", key: "r", done: "The repository is looked at." },
    found.automated && found.history.length > 1 && { verb: "reject", words: "Reject revision", tone: "danger", done: "The revision is rejected: the one before comes back.",
      confirm: { title: `Reject ${revision}?`, text: "The application goes back to the last revision that is not rejected, and stays there until git has something else.", label: "Reject", tone: "danger", fields: [{ name: "reason", kind: "text", label: "Why" }] } },
  ]} />`;
}

function Source({ found }) {
  const facts = [
    ["Source", html`${found.repo} <span class="faint">${found.path}</span>`], ["Follows", found.target],
    ["Revision", html`<span class="mono">${shortRevision(found.revision)}</span>`], ["Project", found.project], ["Into", found.destination],
    ["By itself", found.automated ? (found.selfHeals ? "yes, and other changes are undone" : "yes") : "no"],
    ["Last sync", found.operation ? html`${found.operation} <${Age} of=${found.operationAt} /><div class="muted">${found.operationMessage}</div>` : null],
    ["Rejected", found.rejected.length ? html`<span class="mono">${found.rejected.map(shortRevision).join(" ")}</span>` : null],
    ["Images", found.images.length ? html`<span class="mono">${found.images.map((each) => html`<div key=${each}>${shortImage(each)}</div>`)}</span>` : null],
  ].filter(([, value]) => value);
  return html`<section class="card"><header><h2>Source</h2></header><div class="body"><dl class="facts">${facts.map(([label, value]) => html`<dt key=${label}>${label}</dt><dd>${value}</dd>`)}</dl></div></section>`;
}

function History({ found, rights, path }) {
  if (!found.history.length) return null;
  const blocked = found.automated ? "it is synced by itself, which would undo a rollback; revert the commit, or reject the revision" : found.busy ? BUSY : "";
  return html`<section class="card"><header><h2>History</h2>${found.automated ? html`<span class="end">synced by itself</span>` : null}</header><div class="body"><table class="history"><tbody>${found.history.map((each, at) => html`<tr key=${each.id}>
    <td class="number faint">${each.id}</td><td class="mono">${each.revision.split(", ").map(shortRevision).join(" ")}</td><td class="muted">${each.by}</td><td class="right muted nowrap"><${Age} of=${each.at} /></td>
    <td class="right">${at ? html`<${Actions} says=${false} label=${`Go back to ${each.id}`} rights=${rights} path=${path} offers=${[{ verb: "rollback", words: "Roll back", name: `Roll back to ${each.id}`, tone: "small", blocked, body: { number: each.id }, done: `A rollback to ${shortRevision(each.revision)} was asked for.`,
        confirm: { title: `Roll back to ${each.id}?`, text: `What ${shortRevision(each.revision)} said is synced again. Git stays as it is, so the application is out of sync until it is changed.`, label: "Roll back", tone: "danger" } }]} />` : html`<span class="tag">now</span>`}</td></tr>`)}</tbody></table></div></section>`;
}

// What is not as git says: by object, as the controller compared it; field by field once that is asked for.
function Differences({ items, rights, where, name, at }) {
  const [changes, setChanges] = useState(null);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => setChanges(null), [at]); // an operation has made it old
  const listed = Object.values(nodesOf(items)).filter((each) => each.kind !== "Application" && each.sync && each.sync !== "Synced");
  const reason = rights ? rights.compare ?? "your rights are not known" : "";
  const compare = async () => {
    if (reason || busy) return;
    setBusy(true);
    setProblem(null);
    try {
      setChanges((await ask("GET", `/api/differences/${encoded(where)}/${encoded(name)}`)).changes);
    } catch (error) {
      setProblem(error);
    }
    setBusy(false);
  };
  const whatOf = (each) => (each.prune ? "Extra" : each.health === "Missing" ? "Missing" : "Differs");
  return html`<section class="card" aria-label="Differences"><header><h2>Differences</h2><span class="end">${rights ? html`<button class="button small" data-compare aria-disabled=${reason || busy ? "true" : undefined} title=${reason} aria-label=${reason ? `Field by field: ${reason}` : undefined} onClick=${compare}>${busy ? "Comparing…" : changes ? "Compare again" : "Field by field"}</button>` : null}</span></header>
    <div class="body">${problem ? html`<div class="note bad"><${Mark} tone="bad" /><div>${problem.message}${problem.hint ? html`<div class="muted">${problem.hint}</div>` : null}</div></div>` : null}
    ${changes ? (changes.length ? html`<div class="changes">${changes.map((each) => html`<${Change} change=${each} key=${each.object} />`)}</div>` : html`<${Empty} title="All is as git says">It was compared just now.</${Empty}>`)
      : listed.length ? html`<ul class="differing">${listed.map((each) => html`<li key=${`${each.kind}/${each.namespace}/${each.name}`}><span class="tag">${whatOf(each)}</span> <span><strong>${each.name}</strong> <span class="faint">${each.kind}${each.namespace ? ` in ${each.namespace}` : ""}</span></span></li>`)}</ul>`
      : html`<${Empty} title="All is as git says">As the controller last compared it.</${Empty}>`}</div></section>`;
}

function Change({ change }) {
  return html`<div class="change"><div class="top"><span class="tag">${change.what === "OutOfSync" ? "Differs" : change.what}</span><strong>${change.object}</strong></div>
    ${change.problem ? html`<p class="muted">${change.problem}</p>` : null}
    ${change.fields.length ? html`<dl class="fields">${change.fields.map((each) => html`<dt class="mono" key=${each.path}>${each.path}</dt>
      <dd>${each.live != null ? html`<pre class="live"><span class="sign" aria-label="in the cluster">−</span>${each.live}</pre>` : null}${each.wanted != null ? html`<pre class="wanted"><span class="sign" aria-label="in git">+</span>${each.wanted}</pre>` : null}</dd>`)}</dl>` : null}</div>`;
}
