// What all modules stand on: the library, requests with their token, and the stream of a page.
export { h, html, render, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/htm-preact-3.1.1.js";
import { useEffect, useState } from "../vendor/htm-preact-3.1.1.js";

const KEPT_SECONDS = 300;
let csrf = "";
let lost = () => {};

export function setSession(session, whenLost) {
  csrf = session ? session.csrf : "";
  lost = whenLost;
}

export class Refusal extends Error {
  constructor(status, text, hint) {
    super(text);
    this.status = status;
    this.hint = hint || "";
  }
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// What is only asked is asked again where the connection breaks, as when a laptop changes its network.
async function sent(path, options, tries) {
  for (let left = tries; ; left -= 1) {
    try {
      return await fetch(path, options);
    } catch {
      if (left <= 1) throw new Refusal(0, "The dashboard does not answer.", "Look whether it was done before you try again.");
      await pause(400);
    }
  }
}

export async function ask(method, path, body) {
  const headers = { "X-CSRF-Token": csrf, ...(body ? { "Content-Type": "application/json" } : {}) };
  const options = { method, headers, body: body ? JSON.stringify(body) : undefined };
  const answer = await sent(path, options, method === "GET" || path === "/api/login" || path === "/api/logout" ? 5 : 1);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    if (answer.status === 401 && csrf) lost();
    throw new Refusal(answer.status, found.error || `The dashboard answered ${answer.status}.`, found.hint);
  }
  return found;
}

// Follows an address of server-sent events. handlers: by event. Returns what ends it.
export function follow(path, handlers, onState) {
  let source = null;
  let timer = null;
  let ended = false;
  const open = () => {
    source = new EventSource(path);
    source.onopen = () => onState("live");
    source.onerror = () => {
      if (ended) return;
      onState("connecting");
      if (source.readyState === EventSource.CLOSED) {
        // refused rather than broken: the session may be over
        ask("GET", "/api/session").then((found) => found.user || lost(), () => {});
        timer = setTimeout(open, 3000);
      }
    };
    for (const [name, handler] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handler(JSON.parse(event.data), source));
    }
    source.addEventListener("over", () => lost());
  };
  open();
  return () => {
    ended = true;
    clearTimeout(timer);
    source.close();
  };
}

export function usePage(path) {
  const empty = { path, items: {}, samples: [], noNumbers: "", link: "connecting", here: false };
  const [state, set] = useState(empty);
  useEffect(() => {
    let now = { ...empty };
    const become = (change) => {
      now = { ...now, ...change };
      set(now);
    };
    become({});
    return follow(
      path,
      {
        reset: (data) => become({ items: data.set || {}, here: true }),
        change: (data) => {
          const items = { ...now.items, ...(data.set || {}) };
          for (const key of data.gone || []) delete items[key];
          become({ items });
        },
        numbers: (data) => {
          const known = now.samples.length ? now.samples[now.samples.length - 1].t : 0;
          const samples = [...now.samples, ...data.filter((each) => each.t > known)];
          become({ samples: samples.slice(-KEPT_SECONDS) });
        },
        nonumbers: (data) => become({ noNumbers: data.text }),
      },
      (link) => become({ link }),
    );
  }, [path]);
  return state.path === path ? state : empty;
}

// The items whose keys begin so.
export const within = (items, prefix) =>
  Object.entries(items)
    .filter(([key]) => key.startsWith(prefix))
    .map(([, value]) => value);

export const remembered = (name, otherwise) => {
  try {
    return localStorage.getItem(name) ?? otherwise;
  } catch {
    return otherwise;
  }
};
export const remember = (name, value) => {
  try {
    localStorage.setItem(name, value);
  } catch {
    // only this page knows it then
  }
};
