// The live page of a rollout: how it stands, its steps, traffic and judgement as they move, and its buttons.
import { html, useEffect, useMemo, usePage, within } from "./ground.js";
import { Age, Empty, Mark, Pill, Problems, duration, rate, share, shortImage, toneOf } from "./parts.js";
import { Actions, useRights } from "./actions.js";
import { Incidents } from "./incidents.js";
import { LevelsCard } from "./levels.js";
import { Crumbs, EventsCard, Missing, Objects, encoded } from "./applications.js";
import { Chart } from "./charts.js";

const REGION_COLOURS = ["canary", "accent", "wait", "busy", "bad", "good"];
export function RolloutPage({ where, name, onLink }) {
  const page = usePage(`/api/pages/rollout/${encoded(where)}/${encoded(name)}`);
  const rights = useRights("rollouts", where);
  useEffect(() => onLink(page.link), [page.link]);
  useEffect(() => { document.title = `${name} · Pilothouse`; }, [name]);
  const { about, rollout: found } = page.items;
  const path = `/api/rollouts/${encoded(where)}/${encoded(name)}`;
  if (!found) return about?.missing || about?.absent?.includes("rollouts") ? html`<${Missing} kind="rollout" where=${where} name=${name} />` : html`<${Problems} about=${about} />`;
  return html`<div class="head"><div class="title"><${Crumbs} where=${where} what="Rollout" />
      <h1>${name} <${Pill} tone=${toneOf(found.health)}>${found.phase}</${Pill}><span class="tag mono">${found.images.map(shortImage).join(" ")}</span></h1></div>
      <${Buttons} rollout=${found} rights=${rights} path=${path} /></div>
    <${Problems} about=${about} />
    <${Hero} rollout=${found} samples=${page.samples} />
    ${found.steps.length ? html`<${Steps} rollout=${found} />` : null}
    <${Numbers} rollout=${found} samples=${page.samples} noNumbers=${page.noNumbers} />
    <div class="columns"><div class="section"><${Objects} items=${page.items} roles=${{ [found.stable]: "stable", ...(found.updating ? { [found.current]: "canary" } : {}) }} />
      <${Incidents} incidents=${within(page.items, "incident/")} /></div>
      <div class="section"><${Runs} runs=${within(page.items, "run/")} /><${LevelsCard} levels=${within(page.items, "level/")} />
        <${Revisions} rollout=${found} revisions=${within(page.items, "revision/")} rights=${rights} path=${path} /><${EventsCard} items=${page.items} /></div></div>`;
}

function Buttons({ rollout, rights, path }) {
  const active = rollout.updating && !rollout.aborted;
  return html`<${Actions} label="Steer this rollout" rights=${rights} path=${path} offers=${[
    rollout.aborted && { verb: "retry", words: "Retry", tone: "main", done: "Trying the new version again." },
    (active || rollout.paused) && !rollout.aborted && { verb: "promote", words: "Promote", tone: "main", key: "p", done: "Promoted." },
    active && { verb: "promote-full", words: "Promote fully", done: "Promoted fully.",
      confirm: { title: "Promote fully?", text: "All remaining steps, pauses and analyses are skipped: everybody gets the new version.", label: "Promote fully", tone: "main" } },
    rollout.userPaused && { verb: "resume", words: "Resume", done: "Resumed." },
    active && !rollout.userPaused && { verb: "pause", words: "Pause", done: "Paused." },
    active && { verb: "abort", words: "Abort", tone: "danger", key: "a", done: "Aborted: traffic goes back to the stable version.",
      confirm: { title: "Abort this rollout?", text: "All traffic goes back to the stable version at once, then the new pods are scaled down.", label: "Abort", tone: "danger" } },
    { verb: "restart", words: "Restart", done: "Pods are replaced, a few at a time.",
      confirm: { title: "Restart all pods?", text: "They are replaced by new ones of the same version, a few at a time.", label: "Restart", tone: "main" } },
  ]} />`;
}

function Revisions({ rollout, revisions, rights, path }) {
  if (!revisions.length) return null;
  const sorted = [...revisions].sort((a, b) => Number(b.revision) - Number(a.revision));
  const roleOf = (each) => (each.hash === rollout.current && rollout.updating ? "canary" : each.hash === rollout.stable ? "stable" : "");
  return html`<section class="card"><header><h2>Revisions</h2></header><div class="body"><table class="history"><tbody>${sorted.map((each) => html`<tr key=${each.revision}><td class="number faint">${each.revision}</td>
    <td><span class="mono">${each.images.map(shortImage).join(" ")}</span>${roleOf(each) ? html` <span class="role of-${roleOf(each)}">${roleOf(each)}</span>` : null}</td><td class="right muted nowrap"><${Age} of=${each.created} /></td>
    <td class="right">${each.hash === rollout.current ? html`<span class="tag">now</span>` : html`<${Actions} says=${false} label=${`Go back to ${each.revision}`} rights=${rights} path=${path} offers=${[{ verb: "undo", words: "Undo to", name: `Undo to revision ${each.revision}`, tone: "small", body: { revision: Number(each.revision) }, done: `Revision ${each.revision} comes again.`,
        confirm: { title: `Back to revision ${each.revision}?`, text: "Its template is set again and comes by the same steps as any other change. Where git brings the rollout, it is out of sync then.", label: "Undo", tone: "danger" } }]} />`}</td></tr>`)}</tbody></table></div></section>`;
}

function Hero({ rollout, samples }) {
  const { stand } = rollout;
  const last = samples[samples.length - 1];
  const seen = last ? Object.values(last.v).reduce((whole, each) => whole + each[0], 0) : null;
  const isDone = !rollout.updating;
  // weights by region are not in the rollout's own: then what is seen is said
  const measured = seen ? Math.round((100 * (last.v.canary?.[0] || 0)) / seen) : null;
  const weight = rollout.weight || (measured ?? rollout.weight ?? (rollout.aborted ? 0 : null));
  return html`<div class="hero"><section class="card stand ${stand.tone}" aria-live="polite" aria-label="Verdict"><div class="word"><${Mark} tone=${stand.tone} />${stand.word}</div>${stand.text ? html`<p>${stand.text}</p>` : null}</section>
    <section class="card figure"><div class="label"><span>${isDone ? "Traffic" : "Canary's share of traffic"}</span>${seen != null ? html`<span class="number">${rate(seen)} req/s</span>` : null}</div>
      ${isDone ? html`<div class="big">One version</div><div class="split"><i class="stable" style=${{ flex: 1 }}></i></div>` : html`<div class="big number of-canary">${weight ?? "–"} <small>%</small></div>
      <div class="split" role="img" aria-label=${`canary ${weight} percent`}>${weight ? html`<i class="canary" style=${{ flex: weight }}></i>` : null}${weight < 100 ? html`<i class="stable" style=${{ flex: 100 - (weight || 0) }}></i>` : null}</div>`}
      <div class="legend">${isDone ? null : html`<span><i class="swatch of-canary"></i>canary</span>`}<span><i class="swatch of-stable"></i>stable</span></div></section>
    <section class="card figure"><div class="label"><span>Pods ready</span><span class="number">${rollout.available} available</span></div><div class="big number">${rollout.ready} <small>of ${rollout.replicas}</small></div>
      <div class="split" role="img" aria-label=${`${rollout.ready} of ${rollout.replicas} pods ready`}><i style=${{ flex: Math.min(rollout.ready, rollout.replicas), background: "var(--good)" }}></i><i style=${{ flex: Math.max(0, rollout.replicas - rollout.ready) }}></i></div>
      <div class="legend"><span class="number">${rollout.updated} of the new version</span></div></section></div>`;
}

function Steps({ rollout }) {
  const stateOf = (at) => (!rollout.updating ? "done" : rollout.aborted ? "" : at < rollout.step ? "done" : at === rollout.step ? `here ${rollout.stand.tone}` : "");
  const names = { setWeight: "weight", plugin: "regions", setCanaryScale: "scale", setHeaderRoute: "route", setMirrorRoute: "mirror" };
  const at = Math.min(rollout.step, rollout.steps.length);
  return html`<section class="card"><header><h2>Steps</h2><span class="end number">${rollout.updating ? `${at} of ${rollout.steps.length} done` : "all done"}</span></header>
    <div class="body"><ol class="track">${rollout.steps.map((each, number) => {
      const state = stateOf(number);
      return html`<li key=${number} class=${state} aria-current=${state.startsWith("here") ? "step" : undefined}><span class="dot number">${state === "done" ? "✓" : number + 1}</span><span class="text">${each.text}<span class="kind">${names[each.kind] || each.kind}</span></span></li>`;
    })}</ol></div></section>`;
}

function Numbers({ rollout, samples, noNumbers }) {
  const series = useMemo(() => {
    const of = (role, at) => (sample) => (sample.v[role] && sample.v[role][0] > 0 ? sample.v[role][at] : null);
    const two = (at) => [{ label: "canary", colour: "canary", pick: of("canary", at) }, { label: "stable", colour: "stable", pick: of("stable", at) }];
    const traffic = two(0).map((each) => ({ ...each, pick: (sample) => sample.v[each.label]?.[0] ?? 0 }));
    return { traffic, errors: two(1), slow: two(2) };
  }, []);
  const regions = useMemo(() => [...new Set(samples.flatMap((each) => Object.keys(each.r)))].sort(), [samples]);
  const shares = useMemo(() => regions.map((region, at) => ({
    label: region, colour: REGION_COLOURS[at % REGION_COLOURS.length],
    pick: (sample) => {
      const there = sample.r[region];
      const whole = there ? (there.canary?.[0] || 0) + (there.stable?.[0] || 0) : 0;
      return whole ? (there.canary?.[0] || 0) / whole : null;
    },
  })), [regions.join()]);
  if (!samples.length) return html`<div class="card"><${Empty} title="No live numbers">${noNumbers || "They appear as soon as requests come to this rollout's services through the gateway."}</${Empty}></div>`;
  const { errors, p95 } = rollout.limits;
  return html`${noNumbers ? html`<ul class="notes"><li class="note warn"><${Mark} tone="warn" /><div><strong>Live numbers stand still</strong><div class="muted">${noNumbers}</div></div></li></ul>` : null}
    <div class="charts">
    <${Chart} title="Requests per second" samples=${samples} series=${series.traffic} stacked show=${(value) => rate(value)} />
    <${Chart} title="Canary's share by region" samples=${samples} series=${shares} top=${1} show=${(value, short) => `${Math.round(value * 100)}${short ? "%" : " %"}`} />
    <${Chart} title="Errors" samples=${samples} series=${series.errors} limit=${{ value: errors }} note="5 s window" show=${(value, short) => (short ? `${+(value * 100).toFixed(2)}%` : share(value))} />
    <${Chart} title="Latency, p95" samples=${samples} series=${series.slow} limit=${{ value: p95 }} note="5 s window" show=${(value) => duration(value)} /></div>
    ${regions.length > 1 || (regions.length && regions[0] !== "elsewhere") ? html`<${Regions} sample=${samples[samples.length - 1]} regions=${regions} limit=${errors} />` : null}`;
}

function Regions({ sample, regions, limit }) {
  return html`<section class="card"><header><h2>Regions now</h2></header><div class="body scroll"><table class="regions"><thead><tr><th scope="col">Region</th><th scope="col" class="right">Requests/s</th><th scope="col">Split</th><th scope="col" class="right">Canary</th><th scope="col" class="right">Errors, canary</th><th scope="col" class="right">p95, canary</th></tr></thead>
    <tbody>${regions.map((region) => {
      const { canary, stable } = sample.r[region] || {};
      const whole = (canary?.[0] || 0) + (stable?.[0] || 0);
      const part = whole ? (canary?.[0] || 0) / whole : 0;
      return html`<tr key=${region}><td><strong>${region}</strong></td><td class="right number">${rate(whole)}</td>
        <td width="34%"><div class="split">${part ? html`<i class="canary" style=${{ flex: part }}></i>` : null}${whole && part < 1 ? html`<i class="stable" style=${{ flex: 1 - part }}></i>` : null}</div></td>
        <td class="right number">${Math.round(part * 100)} %</td><td class="right number ${canary?.[1] > limit ? "health bad" : ""}">${canary?.[0] ? share(canary[1]) : "–"}</td><td class="right number">${canary?.[0] ? duration(canary[2]) : "–"}</td></tr>`;
    })}</tbody></table></div></section>`;
}

function Runs({ runs }) {
  const sorted = [...runs].sort((a, b) => (a.created < b.created ? 1 : -1));
  return html`<section class="card"><header><h2>Analysis</h2></header><div class="body">${sorted.length ? html`<div class="runs">${sorted.map((each) => html`<div class="run" key=${each.name}>
    <div class="top"><span class="clip mono">${each.name}</span><${Pill} tone=${toneOf(each.phase)}>${each.phase}</${Pill}></div>
    ${each.metrics.map((metric) => html`<div class="metric" key=${metric.name}><span>${metric.name}</span><span class="faint number">${metric.count ? `${metric.count} measured${metric.failed ? `, ${metric.failed} failed` : ""}` : ""}</span>${metric.message ? html`<span class="says">${metric.message}</span>` : null}</div>`)}
    <span class="faint">${each.now ? "counts now · " : ""}<${Age} of=${each.created} /></span></div>`)}</div>` : html`<${Empty} title="No analysis">This rollout has not been judged yet.</${Empty}>`}</div></section>`;
}
