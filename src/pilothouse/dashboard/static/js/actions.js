// Buttons that change something: offered where they make sense, disabled with the reason where the user may not.
import { ask, html, useEffect, useState } from "./ground.js";
import { Dialog, Mark, toast } from "./parts.js";

const encoded = (each) => encodeURIComponent(each);

// By verb why the user may not use it, empty where that is allowed; null while it is not known.
export function useRights(kind, where) {
  const [rights, set] = useState(null);
  useEffect(() => {
    let isHere = true;
    ask("GET", `/api/rights/${kind}/${encoded(where)}`).then((found) => isHere && set(found.verbs), () => isHere && set({}));
    return () => { isHere = false; };
  }, [kind, where]);
  return rights;
}

// What is asked before something that cannot be taken back. fields: {name, label, kind: checkbox or text}.
function Confirm({ offer, onClose, onYes }) {
  const { title, text, label, tone, fields = [] } = offer.confirm;
  const [given, give] = useState(offer.body || {});
  const submit = (event) => {
    event.preventDefault();
    onYes(given);
  };
  return html`<${Dialog} title=${title} onClose=${onClose}><form method="dialog" onSubmit=${submit}><p class="muted">${text}</p>
    ${fields.map((each) => (each.kind === "checkbox"
      ? html`<label class="choice" key=${each.name}><input type="checkbox" name=${each.name} checked=${!!given[each.name]} onChange=${(event) => give({ ...given, [each.name]: event.target.checked })} /> ${each.label}</label>`
      : html`<label class="choice" key=${each.name}>${each.label}<input class="field" type="text" name=${each.name} maxlength="300" value=${given[each.name] || ""} onInput=${(event) => give({ ...given, [each.name]: event.target.value })} /></label>`))}
    <div class="actions"><button type="button" class="button" onClick=${onClose}>Cancel</button><button class="button ${tone}" data-confirm>${label}</button></div></form></${Dialog}>`;
}

// offers: {verb, words, tone, key, blocked, body, confirm, done}. path: what verbs are sent to. says: whether reasons are written out.
export function Actions({ offers, rights, path, label, says = true }) {
  const [asking, setAsking] = useState(null);
  const [busy, setBusy] = useState(false);
  if (!rights) return null;
  const reasonOf = (offer) => rights[offer.verb] ?? "your rights are not known; load the page anew";
  const does = async (offer, body) => {
    setAsking(null);
    setBusy(true);
    try {
      await ask("POST", `${path}/${offer.verb}`, body && Object.keys(body).length ? body : undefined);
      toast("good", offer.done);
    } catch (error) {
      toast("bad", error.message, error.hint);
    }
    setBusy(false);
  };
  const shown = offers.filter(Boolean);
  const refused = [...new Set(shown.map(reasonOf).filter(Boolean))];
  return html`<div class="steer"><div class="actions" role="group" aria-label=${label}>${shown.map((offer) => {
    const reason = reasonOf(offer) || offer.blocked || "";
    const press = () => !reason && !busy && (offer.confirm ? setAsking(offer) : does(offer, offer.body));
    return html`<button key=${offer.verb + (offer.words || "")} class="button ${offer.tone || ""}" aria-disabled=${reason || busy ? "true" : undefined} title=${reason} data-key=${offer.key} data-verb=${offer.verb}
      aria-label=${reason ? `${offer.words}: ${reason}` : offer.name} onClick=${press}>${offer.words}</button>`;
  })}</div>
    ${says && refused.length ? html`<p class="why-not"><${Mark} tone="wait" /><span>View only: ${refused.join("; ")}</span></p>` : null}
    ${asking ? html`<${Confirm} offer=${asking} onClose=${() => setAsking(null)} onYes=${(body) => does(asking, body)} />` : null}</div>`;
}
