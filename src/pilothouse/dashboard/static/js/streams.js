// Pages of events and of logs.
import { ask, follow, html, useEffect, useLayoutEffect, usePage, useRef, useState, within } from "./ground.js";
import { Empty, Events, Problems } from "./parts.js";
import { Crumbs, encoded } from "./applications.js";

const MOST_LINES = 5000;

export function EventsPage({ namespace, onLink }) {
  const page = usePage(`/api/pages/events/${encoded(namespace)}`);
  const [filter, setFilter] = useState("");
  const [warnings, setWarnings] = useState(false);
  useEffect(() => onLink(page.link), [page.link]);
  useEffect(() => { document.title = "Events · Pilothouse"; }, []);
  const all = within(page.items, "event/");
  const found = all.filter((each) => (!warnings || each.type === "Warning") &&
    `${each.namespace}/${each.object} ${each.kind} ${each.reason} ${each.message}`.toLowerCase().includes(filter.toLowerCase()));
  return html`<div class="head"><div class="title"><h1>Events</h1></div>
      <div class="tools"><label><input type="checkbox" checked=${warnings} onChange=${(event) => setWarnings(event.target.checked)} /> Warnings only</label>
      <input class="field" type="search" data-filter aria-label="Filter events" placeholder="Filter  /" value=${filter} onInput=${(event) => setFilter(event.target.value)} /></div></div>
    <${Problems} about=${page.items.about} />
    <section class="card"><div class="body">${page.here ? html`<${Events} events=${found} linked />` : null}</div></section>`;
}

export function LogsPage({ where, name, query, onLink }) {
  const [pod, setPod] = useState(null);
  const [problem, setProblem] = useState("");
  const [lines, setLines] = useState([]);
  const [said, say] = useState("");
  const [container, setContainer] = useState(query.get("container") || "");
  const [previous, setPrevious] = useState(false);
  const [following, setFollowing] = useState(true);
  const [wraps, setWraps] = useState(false);
  const [times, setTimes] = useState(false);
  const [filter, setFilter] = useState("");
  const box = useRef(null);
  useEffect(() => {
    document.title = `Log of ${name} · Pilothouse`;
    ask("GET", `/api/pods/${encoded(where)}/${encoded(name)}`).then(
      (found) => {
        setPod(found);
        setContainer((now) => now || found.containers[0] || "");
      },
      (error) => setProblem(error.message),
    );
  }, [where, name]);
  useEffect(() => {
    if (!container) return undefined;
    setLines([]);
    say("");
    let kept = [];
    const end = follow(
      `/api/logs/${encoded(where)}/${encoded(name)}?container=${encoded(container)}&previous=${previous}`,
      {
        lines: (data) => {
          kept = [...kept, ...data].slice(-MOST_LINES);
          setLines(kept);
        },
        end: (data, source) => {
          source.close();
          say(data.text);
        },
        refused: (data, source) => {
          source.close();
          say(data.text);
        },
      },
      onLink,
    );
    return end;
  }, [where, name, container, previous]);
  useLayoutEffect(() => {
    if (following && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, following, wraps]);
  const scrolled = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < 30;
    if (isAtEnd !== following) setFollowing(isAtEnd);
  };
  const wanted = filter.toLowerCase();
  const shown = wanted ? lines.filter((each) => each.text.toLowerCase().includes(wanted)) : lines;
  const names = pod ? [...pod.containers, ...pod.init] : [];
  return html`<div class="head"><div class="title"><${Crumbs} where=${where} what="Log" /><h1>${name}</h1></div></div>
    ${problem ? html`<ul class="notes"><li class="note bad">${problem}</li></ul>` : null}
    <div class="tools">
      ${names.length > 1 ? html`<select class="field" aria-label="Container" value=${container} onChange=${(event) => setContainer(event.target.value)}>${names.map((each) => html`<option key=${each} value=${each}>${each}</option>`)}</select>` : html`<span class="tag">${container}</span>`}
      <input class="field" type="search" data-filter aria-label="Filter lines" placeholder="Filter lines  /" value=${filter} onInput=${(event) => setFilter(event.target.value)} />
      <label><input type="checkbox" checked=${following} onChange=${(event) => setFollowing(event.target.checked)} /> Follow</label>
      <label><input type="checkbox" checked=${wraps} onChange=${(event) => setWraps(event.target.checked)} /> Wrap</label>
      <label><input type="checkbox" checked=${times} onChange=${(event) => setTimes(event.target.checked)} /> Times</label>
      ${pod?.restarts ? html`<label><input type="checkbox" checked=${previous} onChange=${(event) => setPrevious(event.target.checked)} /> Before the last restart</label>` : null}
      <span class="faint number">${shown.length.toLocaleString("en")} lines</span></div>
    <section class="card"><div class="log ${wraps ? "wrap" : ""}" ref=${box} onScroll=${scrolled} tabindex="0" role="log" aria-label=${`Log of ${name}`} aria-live="off">
      ${!shown.length && !said ? html`<${Empty} title=${lines.length ? "No line has that" : "Nothing written yet"}>New lines appear here as they come.</${Empty}>` : null}
      ${shown.map((each) => html`<div class="line" key=${each.at + each.text}>${times ? html`<span class="at">${each.at.slice(11, 23)}</span>` : null}<span>${each.text || " "}</span></div>`)}
      ${said ? html`<div class="line faint">${said}</div>` : null}</div></section>`;
}
