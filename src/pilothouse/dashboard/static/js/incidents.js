// Incidents of a rollout: the verdict's evidence, canary beside stable, and what happened when.
import { html } from "./ground.js";
import { Age, Pill, shortRevision } from "./parts.js";

const REVERTS = { Reverted: "reverted in git", Pending: "being reverted in git", Failed: "could not be reverted in git", Off: "git is left as it is", NotNeeded: "git needs no revert" };
const words = (name) => name.replace(/([A-Z])/g, (letter) => ` ${letter.toLowerCase()}`).trim().replace(/^[a-z](?!\d)/, (letter) => letter.toUpperCase());
const since = (at, zero) => {
  const seconds = (Date.parse(at) - Date.parse(zero)) / 1000;
  return Number.isNaN(seconds) ? "" : `${seconds < 0 ? "−" : "+"}${Math.abs(seconds).toFixed(Math.abs(seconds) < 100 ? 1 : 0)} s`;
};

function Numbers({ evidence }) {
  const names = [...new Set([...Object.keys(evidence.canary), ...Object.keys(evidence.stable)])];
  if (!names.length) return null;
  return html`<div class="scroll"><table class="evidence"><thead><tr><th scope="col">${evidence.metric}</th><th scope="col" class="right of-canary">canary</th><th scope="col" class="right of-stable">stable</th></tr></thead>
    <tbody>${names.map((name) => html`<tr key=${name}><td class="muted">${words(name)}</td><td class="right number">${evidence.canary[name] || "–"}</td><td class="right number">${evidence.stable[name] || "–"}</td></tr>`)}</tbody></table></div>`;
}

export function Incidents({ incidents }) {
  if (!incidents.length) return null;
  const sorted = [...incidents].sort((a, b) => (a.decided < b.decided ? 1 : -1));
  return html`<section class="card" aria-label="Incidents"><header><h2>Incidents</h2><span class="end number">${sorted.length}</span></header><div class="body runs">${sorted.map((each, at) => html`<details class="run incident" key=${each.name} open=${at === 0}>
    <summary><span class="top"><span>Revision ${each.revision || "?"} <span class="faint">taken back <${Age} of=${each.decided} /></span></span><${Pill} tone=${each.phase === "Closed" ? "none" : "bad"}>${each.phase || "Open"}</${Pill}></span></summary>
    <p>${each.message}</p>
    ${each.evidence.map((one) => html`<${Numbers} key=${one.metric} evidence=${one} />`)}
    ${each.timeline.length ? html`<ol class="timeline">${each.timeline.map((moment) => html`<li key=${moment.at + moment.what}><time class="number faint" datetime=${moment.at} title=${new Date(moment.at).toLocaleString()}>${since(moment.at, each.decided)}</time><span><strong>${words(moment.what)}</strong>${moment.message && moment.what !== "Decided" ? html` <span class="muted">${moment.message}</span>` : null}</span></li>`)}</ol>` : null}
    ${each.samples.length ? html`<details class="more"><summary class="muted">${each.samples.length} of its bad answers</summary><pre class="samples">${each.samples.join("\n")}</pre></details>` : null}
    <p class="muted">${[each.commits.length ? `commit ${each.commits.map(shortRevision).join(", ")}` : "", REVERTS[each.git.state] || "", each.people.length ? `by ${each.people.join(", ")}` : ""].filter(Boolean).join(" · ")}</p></details>`)}</div></section>`;
}
