// Small parts that pages share: marks of health, ages, notes, dialogs.
import { html, useEffect, useRef, useState } from "./ground.js";

const TONES = {
  Healthy: "good", Synced: "good", Successful: "good", Running: "busy", Progressing: "busy", Suspended: "wait",
  Paused: "wait", Degraded: "bad", Failed: "bad", Error: "bad", Missing: "warn", OutOfSync: "warn", Inconclusive: "warn",
};
export const toneOf = (word) => TONES[word] || "none";

const SHAPES = {
  good: html`<circle cx="8" cy="8" r="6.5" /><path d="M5.2 8.2l2 2 3.7-4.2" />`,
  busy: html`<path class="turning" d="M14.2 8A6.2 6.2 0 1 1 8 1.8" /><circle cx="8" cy="8" r="1.6" fill="currentColor" stroke="none" />`,
  wait: html`<circle cx="8" cy="8" r="6.5" /><path d="M6.3 5.700v4.600M9.7 5.700v4.6" />`,
  warn: html`<path d="M8 1.900l6.5 11.600h-13z" /><path d="M8 6.300v3.200M8 11.500v.1" />`,
  bad: html`<path d="M5.3 1.500h5.400l3.8 3.800v5.400l-3.8 3.800H5.300l-3.8-3.800V5.300z" /><path d="M5.9 5.900l4.2 4.200M10.1 5.900l-4.2 4.2" />`,
  none: html`<circle cx="8" cy="8" r="6.5" stroke-dasharray="2.5 2.5" />`,
};

export const Mark = ({ tone }) => html`<svg viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.7"
  stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${SHAPES[tone] || SHAPES.none}</svg>`;

export const Health = ({ word }) => html`<span class="health ${toneOf(word)}"><${Mark} tone=${toneOf(word)} />${word || "Unknown"}</span>`;
export const Pill = ({ tone, children }) => html`<span class="pill ${tone}"><${Mark} tone=${tone} />${children}</span>`;

export function ageOf(text, now = Date.now()) {
  const passed = Math.max(0, (now - Date.parse(text)) / 1000);
  if (!text || Number.isNaN(passed)) return "";
  for (const [size, unit, smaller, name] of [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]]) {
    if (passed >= size) {
      const whole = Math.floor(passed / size);
      const rest = Math.floor((passed % size) / smaller);
      return rest && whole < 10 ? `${whole}${unit} ${rest}${name}` : `${whole}${unit}`;
    }
  }
  return `${Math.floor(passed)}s`;
}

export function Age({ of, ago = true }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((each) => each + 1), 5000);
    return () => clearInterval(timer);
  }, []);
  const shown = ageOf(of);
  return shown ? html`<time class="age number" datetime=${of} title=${new Date(of).toLocaleString()}>${shown}${ago ? " ago" : ""}</time>` : null;
}

export const shortRevision = (text) => (/^[0-9a-f]{12,}$/.test(text) ? text.slice(0, 8) : text);
export const shortImage = (text) => text.replace(/^.*\//, "").replace(/@sha256:([0-9a-f]{8}).*/, "@$1");
export const share = (value, digits = 2) => `${(value * 100).toFixed(value * 100 >= 10 ? 1 : digits)} %`;
export const duration = (seconds) => (seconds >= 1 ? `${seconds.toFixed(2)} s` : `${Math.round(seconds * 1000)} ms`);
export const rate = (value) => (value >= 100 || value === 0 ? Math.round(value).toLocaleString("en") : value.toFixed(1));

export function Problems({ about }) {
  if (!about || !about.problems || !about.problems.length) return null;
  const words = { refused: "Not allowed", broken: "Not up to date", cut: "Not all of it" };
  return html`<ul class="notes">${about.problems.map((each) => html`<li class="note ${each.state === "cut" ? "busy" : "warn"}" key=${each.what + each.state}>
    <${Mark} tone="warn" /><div><strong>${words[each.state]}: ${each.what}</strong><div class="muted">${each.text}</div></div></li>`)}</ul>`;
}

export const Empty = ({ title, children }) => html`<div class="empty"><strong>${title}</strong>${children}</div>`;

export function Dialog({ title, children, onClose }) {
  const ref = useRef(null);
  const closed = useRef(onClose);
  closed.current = onClose;
  useEffect(() => {
    // the event comes late: that of a dialog that is gone must not close the next one
    const dialog = ref.current;
    const ended = () => closed.current();
    dialog.addEventListener("close", ended);
    dialog.showModal();
    return () => {
      dialog.removeEventListener("close", ended);
      dialog.close();
    };
  }, []);
  return html`<dialog ref=${ref} aria-label=${title} onClick=${(event) => event.target === ref.current && ref.current.close()}><h2>${title}</h2>${children}</dialog>`;
}

let toasts = [];
let shown = () => {};
export function toast(tone, text, hint = "") {
  const made = { tone, text, hint, id: Math.random() };
  toasts = [...toasts.slice(-3), made];
  shown();
  setTimeout(() => {
    toasts = toasts.filter((each) => each !== made);
    shown();
  }, tone === "bad" ? 12000 : 5000);
}
export function Toasts() {
  const [, tick] = useState(0);
  shown = () => tick((each) => each + 1);
  return html`<div class="toasts" role="status" aria-live="polite">${toasts.map((each) => html`<div class="toast ${each.tone}" key=${each.id}>
    ${each.text}${each.hint ? html`<div class="muted">${each.hint}</div>` : null}</div>`)}</div>`;
}

export function Events({ events, short = false, linked = false }) {
  const sorted = [...events].sort((a, b) => (a.at < b.at ? 1 : a.at > b.at ? -1 : a.name < b.name ? -1 : 1));
  if (!sorted.length) return html`<${Empty} title="No events">Kubernetes forgets them after an hour.</${Empty}>`;
  return html`<ul class="events ${short ? "short" : ""}" tabindex=${short ? 0 : undefined} aria-label="Events">${sorted.map((each) => html`<li class="event ${each.type === "Warning" ? "warn" : ""}"
    key=${`${each.namespace}/${each.name}`}>
    <span class="when"><${Age} of=${each.at} /></span>
    <div><span class="reason">${each.type === "Warning" ? html`<span class="hidden">Warning: </span>` : null}${each.reason}</span>
      ${each.count > 1 ? html` <span class="faint number">×${each.count}</span>` : null}
      <div>${each.message}</div>
      <div class="about">${each.kind} ${linked ? `${each.namespace}/` : ""}${each.object}${each.by ? ` · ${each.by}` : ""}</div></div></li>`)}</ul>`;
}
