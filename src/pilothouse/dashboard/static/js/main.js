// The frame of all pages: login, the bar, addresses, keys.
import { ask, html, remember, remembered, render, setSession, useEffect, useRef, useState } from "./ground.js";
import { Dialog, Mark, Toasts, toast } from "./parts.js";
import { ApplicationPage } from "./application.js";
import { DeploymentPage, Overview } from "./applications.js";
import { LevelPage, LevelsPage } from "./levels.js";
import { RolloutPage } from "./rollout.js";
import { EventsPage, LogsPage } from "./streams.js";

const KEYS = [
  [["g", "o"], "overview"],
  [["g", "s"], "service levels"],
  [["g", "e"], "events"],
  [["/"], "the page's filter"],
  [["j"], "next item"],
  [["k"], "item before"],
  [["Enter"], "open it"],
  [["←", "→", "↑", "↓"], "move in a tree"],
  [["p"], "promote, on a rollout's page"],
  [["a"], "abort, on a rollout's page"],
  [["s"], "sync, on an application's page"],
  [["r"], "refresh, on an application's page"],
  [["t"], "dark or light"],
  [["?"], "these keys"],
];

export function go(address) {
  history.pushState(null, "", address);
  dispatchEvent(new PopStateEvent("popstate"));
}

function useAddress() {
  const [address, set] = useState(location.pathname + location.search);
  useEffect(() => {
    const changed = () => set(location.pathname + location.search);
    const clicked = (event) => {
      const link = event.target.closest?.("a[href^='/']");
      if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      go(link.getAttribute("href"));
      scrollTo(0, 0);
    };
    addEventListener("popstate", changed);
    document.addEventListener("click", clicked);
    return () => {
      removeEventListener("popstate", changed);
      document.removeEventListener("click", clicked);
    };
  }, []);
  return address;
}

export const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

function switchTheme() {
  const chosen = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  remember("theme", chosen);
  dispatchEvent(new Event("theme"));
}

function useKeys(showHelp) {
  useEffect(() => {
    let before = "";
    const pressed = (event) => {
      const typing = event.target.closest?.("input, textarea, select");
      if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      if (typing) {
        if (event.key === "Escape") event.target.blur();
        return;
      }
      const key = event.key;
      const taken = before === "g" ? { o: () => go("/"), s: () => go("/slo"), e: () => go("/events") }[key] : undefined;
      before = key === "g" && !taken ? "g" : "";
      const does = taken || {
        "?": showHelp,
        t: switchTheme,
        "/": () => document.querySelector("[data-filter]")?.focus(),
        j: () => step(1),
        k: () => step(-1),
      }[key] || (/^[a-z]$/.test(key) && press(key));
      if (does) {
        event.preventDefault();
        does();
      }
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
}

// What a button's key does, where the page has such a button.
function press(key) {
  const button = document.querySelector(`[data-key='${key}']:not([aria-disabled])`);
  return button ? () => button.click() : undefined;
}

function step(by) {
  const all = [...document.querySelectorAll("[data-nav]")];
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

function Login({ onSession, said }) {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const field = useRef(null);
  useEffect(() => {
    document.title = "Log in · Pilothouse";
    field.current.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      onSession(await ask("POST", "/api/login", { credentials: field.current.value }));
    } catch (error) {
      setProblem(error);
      setBusy(false);
      field.current.focus();
    }
  };
  return html`<div class="login"><form class="card" onSubmit=${submit}>
    <div class="brand"><img src="/static/mark.svg" alt="" /><h1>Pilothouse</h1></div>
    ${said ? html`<div class="note wait"><${Mark} tone="wait" /><div>${said}</div></div>` : null}
    <label for="credentials">Token or kubeconfig</label>
    <textarea id="credentials" ref=${field} required spellcheck="false" autocomplete="off" autocapitalize="off"
      aria-describedby="told" onKeyDown=${(event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.form.requestSubmit()}></textarea>
    <div id="told" role="alert">${problem ? html`<div class="note bad"><${Mark} tone="bad" /><div>${problem.message}${problem.hint ? html`<div class="muted">${problem.hint}</div>` : null}</div></div>` : null}</div>
    <button class="button main" disabled=${busy}>${busy ? "Asking the API server…" : "Log in"}</button>
    <details><summary>Where do I get one?</summary>
      <p>A token of a service account, for a day:</p><pre>kubectl create token NAME -n NAMESPACE --duration 24h</pre>
      <p>Or paste a whole kubeconfig, such as <code>admin.kubeconfig</code> of the platform. You see and do here what that user may; it is kept in memory only, until you log out.</p>
    </details></form></div>`;
}

function Bar({ address, session, link, namespace, names, onNamespace, onHelp, onLogout }) {
  const here = address.split("?")[0];
  const at = (path) => (here === path ? "page" : undefined);
  const dark = isDark();
  const chosen = useRef(null);
  useEffect(() => {
    if (chosen.current && document.activeElement !== chosen.current) chosen.current.value = namespace === "*" ? "" : namespace;
  }, [namespace]);
  const choose = (event) => onNamespace(event.target.value.trim() || "*");
  return html`<header class="bar">
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>To the content</a>
    <a class="brand" href="/" aria-label="Pilothouse, overview"><img src="/static/mark.svg" alt="" /><span>Pilothouse</span></a>
    <nav aria-label="Pages"><a href="/" aria-current=${at("/")}>Overview</a><a href="/slo" aria-current=${at("/slo")}>Service levels</a><a href="/events" aria-current=${at("/events")}>Events</a></nav>
    <span class="space"></span>
    ${here === "/" || here === "/slo" || here === "/events" ? html`<input ref=${chosen} class="field namespace" list="namespaces" aria-label="Namespace" placeholder="All namespaces" onChange=${choose} />
      <datalist id="namespaces">${names.map((each) => html`<option value=${each} key=${each} />`)}</datalist>` : null}
    <span class="link-state ${link}" role="status">${link === "live" ? "Live" : "Connecting…"}</span>
    <span class="who clip" title=${session.user}>${session.user.replace("system:serviceaccount:", "")}</span>
    <button class="button plain" onClick=${() => { switchTheme(); }} aria-label=${dark ? "Light theme" : "Dark theme"} title="Dark or light (t)">${dark ? "☀" : "☾"}</button>
    <button class="button plain" onClick=${onHelp} aria-label="Keys" title="Keys (?)">?</button>
    <button class="button plain" onClick=${onLogout}>Log out</button></header>`;
}

function Frame({ session, onLogout }) {
  const address = useAddress();
  const [help, setHelp] = useState(false);
  const [link, setLink] = useState("connecting");
  const [names, setNames] = useState([]);
  const [namespace, setNamespace] = useState(remembered("namespace", session.namespace));
  const [, redraw] = useState(0);
  useKeys(() => setHelp(true));
  useEffect(() => {
    const changed = () => redraw((each) => each + 1);
    addEventListener("theme", changed);
    return () => removeEventListener("theme", changed);
  }, []);
  const choose = (chosen) => {
    setNamespace(chosen);
    remember("namespace", chosen);
  };
  const [path, query] = address.split("?");
  const [kind, ...rest] = path.split("/").slice(1).map(decodeURIComponent);
  const told = { onLink: setLink, onNames: setNames, namespace, key: address };
  const page = (() => {
    if (!kind) return html`<${Overview} ...${told} key=${namespace} />`;
    if (kind === "slo" && !rest.length) return html`<${LevelsPage} ...${told} key=${namespace} />`;
    if (kind === "events") return html`<${EventsPage} ...${told} key=${namespace} />`;
    if (rest.length === 2) {
      const [where, name] = rest;
      if (kind === "applications") return html`<${ApplicationPage} ...${told} where=${where} name=${name} />`;
      if (kind === "rollouts") return html`<${RolloutPage} ...${told} where=${where} name=${name} />`;
      if (kind === "deployments") return html`<${DeploymentPage} ...${told} where=${where} name=${name} />`;
      if (kind === "slo") return html`<${LevelPage} ...${told} where=${where} name=${name} />`;
      if (kind === "logs") return html`<${LogsPage} ...${told} where=${where} name=${name} query=${new URLSearchParams(query || "")} />`;
    }
    return html`<div class="card empty"><strong>There is no such page</strong><a class="link" href="/">Overview</a></div>`;
  })();
  return html`<${Bar} ...${{ address, session, link, namespace, names, onLogout }} onNamespace=${choose} onHelp=${() => setHelp(true)} />
    <main id="main" tabindex="-1">${page}</main>
    ${help ? html`<${Dialog} title="Keys" onClose=${() => setHelp(false)}><dl class="keys">${KEYS.map(([keys, does]) => html`<dt key=${does}>${keys.map((key) => html`<kbd>${key}</kbd>`)}</dt><dd>${does}</dd>`)}</dl>
      <div class="actions"><button class="button" onClick=${() => setHelp(false)}>Close</button></div></${Dialog}>` : null}
    <${Toasts} />`;
}

function App() {
  const [session, become] = useState(undefined);
  const [said, say] = useState("");
  const take = (found) => {
    setSession(found, () => {
      setSession(null, () => {});
      say("Your session has ended. Log in again to go on where you were.");
      become(null);
    });
    become(found);
  };
  useEffect(() => {
    ask("GET", "/api/session").then((found) => (found.user ? take(found) : become(null)), (error) => {
      say(error.message);
      become(null);
    });
  }, []);
  const logout = async () => {
    try {
      await ask("POST", "/api/logout");
    } catch (error) {
      toast("bad", error.message, error.hint);
    }
    setSession(null, () => {});
    say("");
    become(null);
  };
  if (session === undefined) return null;
  return session ? html`<${Frame} session=${session} onLogout=${logout} />` : html`<${Login} onSession=${take} said=${said} />`;
}

render(html`<${App} />`, document.getElementById("app"));
