// Service levels: what is promised, how much of the error budget is left, and what became of deploys.
import { html, useEffect, useState, usePage, within } from "./ground.js";
import { Age, Empty, Mark, Pill, Problems, shortRevision } from "./parts.js";
import { Crumbs, Missing, encoded } from "./applications.js";

const WORDS = { good: "Within budget", warn: "Budget at risk", bad: "Budget spent", none: "No requests yet" };
const RANK = { bad: 0, warn: 1, none: 2, good: 3 };
const OUTCOMES = { Succeeded: ["good", "Succeeded"], RolledBack: ["bad", "Rolled back"], Overtaken: ["none", "Overtaken"], "": ["busy", "Under way"] };
const addressOf = (level) => `/slo/${encoded(level.namespace)}/${encoded(level.name)}`;
const dayOf = (text) => new Date(`${text}T00:00:00Z`).toLocaleDateString("en", { month: "short", day: "numeric", timeZone: "UTC" });
const percent = (share) => `${(share * 100).toFixed(share > 0.9999 || share === 0 ? 0 : 1)} %`;
const spaced = (text) => text.replace("%", " %");
const toneOfKept = (kept) => (kept == null ? "none" : kept <= 0 ? "bad" : kept < 0.5 ? "warn" : "good");

export function span(seconds) {
  if (seconds == null || seconds === "") return "–";
  const whole = Number(seconds);
  if (whole < 100) return `${+whole.toFixed(1)} s`;
  return whole < 6000 ? `${Math.round(whole / 60)} min` : whole < 172800 ? `${+(whole / 3600).toFixed(1)} h` : `${Math.round(whole / 86400)} d`;
}

// One bar a day: full where the day left its own share of the budget alone.
export function Days({ level, tall = false }) {
  const { days } = level;
  if (!days.length) return html`<div class="days none-yet">Nothing was counted yet.</div>`;
  const seen = days.filter((each) => each.requests);
  const spent = seen.filter((each) => each.kept <= 0);
  const said = `${days.length} days, ${seen.length} with requests${spent.length ? `, ${spent.length} over their share of the budget` : ""}`;
  return html`<figure class="days ${tall ? "tall" : ""}"><svg viewBox="0 0 ${days.length * 4} 40" preserveAspectRatio="none" role="img" aria-label=${said}>
      ${days.map((each, at) => {
        const height = each.requests ? Math.max(7, each.kept * 40) : 2;
        return html`<rect key=${each.day} class=${toneOfKept(each.requests ? each.kept : null)} x=${at * 4 + 0.4} width="3.2" y=${40 - height} height=${height} rx="0.6"><title>${`${each.day}: ${each.requests ? `${each.requests.toLocaleString("en")} requests, ${each.bad.toLocaleString("en")} bad, ${percent(Math.max(0, each.kept))} of its budget kept` : "no requests"}`}</title></rect>`;
      })}</svg><figcaption><span>${dayOf(days[0].day)}</span><span>${dayOf(days[days.length - 1].day)}</span></figcaption></figure>`;
}

// How much of the window's budget was left, day after day.
function Left({ level }) {
  const known = level.left.map((each, at) => [at, each]).filter(([, each]) => each != null);
  if (!known.length) return html`<${Empty} title="No requests yet">The budget begins with the first one.</${Empty}>`;
  const low = Math.max(-1, Math.min(0, ...known.map(([, each]) => each)));
  const y = (share) => 100 * (1 - (Math.max(low, share) - low) / (1 - low));
  const x = (at) => (100 * (at + 1)) / level.left.length;
  const from = Math.max(0, 100 * known[0][0] / level.left.length);
  const line = [`${from},${y(1)}`, ...known.map(([at, each]) => `${x(at)},${y(each)}`)].join(" ");
  const last = known[known.length - 1][1];
  const tone = last <= 0 ? "bad" : last < 0.25 ? "warn" : "good";
  return html`<figure class="left ${tone}"><div class="scale" aria-hidden="true"><span style=${{ top: "0%" }}>100 %</span>${low < 0 ? html`<span style=${{ top: `${y(0)}%` }}>0 %</span><span style=${{ top: "100%" }}>${low === -1 ? "−100 %" : percent(low).replace("-", "−")}</span>` : html`<span style=${{ top: "50%" }}>50 %</span><span style=${{ top: "100%" }}>0 %</span>`}</div>
    <svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label=${`${percent(last)} of the error budget is left`}>
      <line class="grid" x1="0" x2="100" y1="0" y2="0" /><line class="grid" x1="0" x2="100" y1=${low < 0 ? y(0) : 50} y2=${low < 0 ? y(0) : 50} /><line class="grid" x1="0" x2="100" y1="100" y2="100" />
      <polygon points=${`${from},${y(low < 0 ? 0 : low)} ${line} ${x(known[known.length - 1][0])},${y(low < 0 ? 0 : low)}`} /><polyline points=${line} /></svg>
    <figcaption><span>${dayOf(level.days[0].day)}</span><span>${dayOf(level.days[level.days.length - 1].day)}</span></figcaption></figure>`;
}

// What is left is at least nothing; what was spent beyond is said as how many times.
const left = (level) => (!level.budgetLeft ? "–" : level.budgetLeft.startsWith("-") ? "0 %" : spaced(level.budgetLeft));
const spent = (level) => {
  const share = parseFloat(level.budgetLeft) / 100;
  return `of the error budget left${share < 0 ? `, spent ${(1 - share).toLocaleString("en", { maximumFractionDigits: share > -9 ? 1 : 0 })} times` : ""}`;
};

function figures(level) {
  return [
    ["Attained", level.attained ? spaced(level.attained) : "–", level.requests ? `of ${level.requests.toLocaleString("en")} requests` : ""],
    ["Burn rate", level.burn1h || "–", level.burn6h ? `last hour; ${level.burn6h} in 6 h` : "last hour"],
    ["Deploys", String(level.deployCount), level.deploysPerDay ? `${level.deploysPerDay} a day` : ""],
    ["Success rate", level.successRate ? spaced(level.successRate) : "–", "of deploys"],
    ["Lead time", span(level.leadTime), "median"],
    ["Time to restore", span(level.restore), "median"],
  ];
}

const Budget = ({ level }) => {
  const share = Math.max(0, Math.min(1, parseFloat(level.budgetLeft) / 100 || 0));
  return html`<span class="split budget" role="img" aria-label=${`${level.budgetLeft || "nothing known"} of the error budget left`}><i style=${{ flex: share, background: "var(--tone)" }}></i><i style=${{ flex: 1 - share }}></i></span>`;
};

const promise = (level) => `${spaced(level.objective)} good over ${level.window} days${level.latency ? `, within ${level.latency}` : ""}`;

export function LevelsPage({ namespace, onLink }) {
  const page = usePage(`/api/pages/slo/${encoded(namespace)}`);
  const [filter, setFilter] = useState("");
  useEffect(() => onLink(page.link), [page.link]);
  useEffect(() => { document.title = "Service levels · Pilothouse"; }, []);
  const about = page.items.about;
  const all = within(page.items, "level/");
  const found = all.filter((each) => `${each.namespace}/${each.name} ${each.application}`.toLowerCase().includes(filter.toLowerCase()))
    .sort((a, b) => RANK[a.tone ?? "none"] - RANK[b.tone ?? "none"] || (a.name < b.name ? -1 : 1));
  return html`<div class="head"><div class="title"><h1>Service levels</h1></div>
      <input class="field" type="search" data-filter aria-label="Filter by name" placeholder="Filter by name  /" value=${filter} onInput=${(event) => setFilter(event.target.value)} /></div>
    <${Problems} about=${about} />
    ${page.here && about && !about.loading && !all.length && !about.problems.length ? html`<div class="card"><${Empty} title="No service levels">A <span class="mono">ServiceLevel</span> names a rollout, its routes and an objective; from then on it is counted here.</${Empty}></div>` : null}
    <ul class="levels">${found.map((each) => html`<li key=${`${each.namespace}/${each.name}`}><${LevelCard} level=${each} /></li>`)}</ul>`;
}

function LevelCard({ level }) {
  if (level.problem) return html`<div class="card level bad"><div class="top"><span class="name">${level.name} <span class="faint">${level.namespace}</span></span></div><p class="muted">${level.problem}</p></div>`;
  return html`<article class="card level ${level.tone}"><div class="top"><span class="clip"><a class="name" href=${addressOf(level)} data-nav>${level.name}</a> <span class="faint">${level.namespace}</span></span><${Pill} tone=${level.tone}>${WORDS[level.tone]}</${Pill}></div>
    <p class="muted">${promise(level)}</p>
    <div class="budget-line"><span class="big number">${left(level)} <small>${spent(level)}</small></span><${Budget} level=${level} /></div>
    <${Days} level=${level} />
    <${Figures} level=${level} /></article>`;
}

const Figures = ({ level }) => html`<dl class="figures">${figures(level).map(([label, value, more]) => html`<div key=${label}><dt>${label}</dt><dd class="number">${value} ${more ? html`<small>${more}</small>` : null}</dd></div>`)}</dl>`;

export function LevelPage({ where, name, onLink }) {
  const page = usePage(`/api/pages/servicelevel/${encoded(where)}/${encoded(name)}`);
  useEffect(() => onLink(page.link), [page.link]);
  useEffect(() => { document.title = `${name} · Service level · Pilothouse`; }, [name]);
  const { about, level } = page.items;
  if (!level) return about?.missing || about?.absent?.includes("servicelevels") ? html`<${Missing} kind="service level" where=${where} name=${name} />` : html`<${Problems} about=${about} />`;
  if (level.problem) return html`<div class="head"><div class="title"><${Crumbs} where=${where} what="Service level" /><h1>${name}</h1></div></div><ul class="notes"><li class="note bad"><${Mark} tone="bad" /><div>${level.problem}</div></li></ul>`;
  const [ofSpace, ofName] = level.application.split("/");
  return html`<div class="head"><div class="title"><div class="crumbs"><a href="/slo">Service levels</a><span aria-hidden="true">/</span><span>${where}</span></div>
      <h1>${name} <${Pill} tone=${level.tone}>${WORDS[level.tone]}</${Pill}></h1><p class="muted">${promise(level)}</p></div>
      <div class="actions"><a class="button" href=${`/rollouts/${encoded(where)}/${encoded(level.rollout)}`}>Rollout ${level.rollout}</a>${ofName ? html`<a class="button" href=${`/applications/${encoded(ofSpace)}/${encoded(ofName)}`}>Application ${ofName}</a>` : null}</div></div>
    <${Problems} about=${about} />
    <section class="card level ${level.tone}"><div class="budget-line"><span class="big number">${left(level)} <small>${spent(level)}</small></span><${Budget} level=${level} /></div><${Figures} level=${level} /></section>
    <div class="charts"><section class="card"><header><h2>Error budget left</h2><span class="end">${level.window} days</span></header><div class="body"><${Left} level=${level} /></div></section>
      <section class="card"><header><h2>Each day's own share</h2><span class="end">full: untouched</span></header><div class="body"><${Days} level=${level} tall /></div></section></div>
    <section class="card"><header><h2>Deploys</h2><span class="end">${level.countedUntil ? html`counted <${Age} of=${level.countedUntil} />` : null}</span></header><div class="body scroll">${level.deploys.length ? html`<table class="deploys"><thead><tr><th scope="col">Outcome</th><th scope="col">Version</th><th scope="col">Commit</th><th scope="col">Began</th><th scope="col">Why</th></tr></thead>
      <tbody>${level.deploys.map((each) => {
        const [tone, words] = OUTCOMES[each.outcome || ""] || ["none", each.outcome];
        return html`<tr key=${each.startedAt}><td><span class="health ${tone}"><${Mark} tone=${tone} />${words}</span></td><td class="mono nowrap">${each.version}</td><td class="mono nowrap">${each.revision ? shortRevision(each.revision) : "–"}</td><td class="muted nowrap"><${Age} of=${each.startedAt} /></td><td class="muted">${each.message || "–"}</td></tr>`;
      })}</tbody></table>` : html`<${Empty} title="No deploys yet">Each version of the rollout appears here.</${Empty}>`}</div></section>`;
}

// For pages of what it is about.
export function LevelsCard({ levels }) {
  if (!levels.length) return null;
  return html`<section class="card"><header><h2>Service levels</h2></header><div class="body levels-short">${levels.map((each) => html`<a class="level-short ${each.tone || "bad"}" href=${addressOf(each)} key=${`${each.namespace}/${each.name}`}>
    <span class="top"><span class="name">${each.name}</span><span class="health"><${Mark} tone=${each.tone || "bad"} />${each.problem ? "Not readable" : WORDS[each.tone]}</span></span>
    ${each.problem ? html`<span class="muted">${each.problem}</span>` : html`<${Budget} level=${each} /><span class="row muted number"><span>${each.budgetLeft ? `${left(each)} ${spent(each)}` : "nothing counted yet"}</span><span>objective ${spaced(each.objective)}</span>${each.attained ? html`<span>attained ${spaced(each.attained)}</span>` : null}${each.successRate ? html`<span>deploys ${spaced(each.successRate)} good</span>` : null}</span>`}</a>`)}</div></section>`;
}
