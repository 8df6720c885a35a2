// Help for pages that work without it: modal dialogs, copying, shortcuts, and what to say when live updates stop.
(() => {
  const root = document.documentElement, $ = (s, e = document) => e.querySelector(s), $$ = (s) => [...document.querySelectorAll(s)];
  const zone = -new Date().getTimezoneOffset();
  document.cookie = `whimbrel_zone=${zone}; Path=/console; Max-Age=31536000; SameSite=Lax`;
  const say = (text) => { const e = $('#said'); if (e) e.textContent = text; };

  // A link to a dialog opens it as a modal one: focus stays inside, Esc closes, focus returns.
  const dialogOf = (hash) => { const d = hash.length > 1 && document.getElementById(hash.slice(1)); return d && d.tagName === 'DIALOG' ? d : null; };
  const open = (d) => { if (!d.open) d.showModal(); };
  document.addEventListener('click', (e) => {
    const a = e.target.closest('a[href^="#"]'), d = a && dialogOf(a.hash);
    if (d) { e.preventDefault(); $$('dialog[open]').forEach((o) => o.close()); open(d); }
    const c = e.target.closest('[data-close]'), of = c && c.closest('dialog');
    if (of && of.open) { e.preventDefault(); of.close(); }
    const y = e.target.closest('[data-copy]');
    if (y) navigator.clipboard.writeText($(y.dataset.copy).textContent).then(() => say(y.dataset.said));
    const all = e.target.closest('[data-all]');
    if (all) all.closest('table').querySelectorAll('tbody input[type=checkbox]').forEach((b) => { b.checked = all.checked; });
  });
  const openAsked = () => { const d = dialogOf(location.hash); if (d) { history.replaceState(null, '', location.pathname + location.search); open(d); } };
  window.addEventListener('hashchange', openAsked);
  openAsked();
  const message = $('#message');
  if (message) message.focus();

  // Shortcuts of one key, outside of fields and dialogs; they can be switched off.
  const off = $('#keys-off'), store = window.localStorage;
  if (off) { off.checked = store.getItem('keys') === 'off'; off.addEventListener('change', () => store.setItem('keys', off.checked ? 'off' : 'on')); }
  let go = false, row = -1;
  document.addEventListener('keydown', (e) => {
    if (e.metaKey || e.ctrlKey || e.altKey || (off && off.checked) || e.target.closest('input,select,textarea,dialog') || $('dialog[open]')) return;
    if (e.key === '?') { const d = $('#dlg-keys'); if (d) open(d); return; }
    if (go) { go = false; const a = $(`[data-go="${CSS.escape(e.key)}"]`); if (a) { e.preventDefault(); a.click(); } return; }
    if (e.key === 'g') { go = true; return; }
    if (e.key === 'j' || e.key === 'k') {
      const rows = $$('[data-row]');
      row = Math.max(0, Math.min(rows.length - 1, row + (e.key === 'j' ? 1 : -1)));
      const a = rows[row] && $('a', rows[row]);
      if (a) a.focus();
      return;
    }
    const k = $(`[data-key="${CSS.escape(e.key)}"]`);
    if (k) { e.preventDefault(); k.matches('input') ? k.focus() : k.click(); }
  });

  const stale = $('#stale');
  if (!window.htmx || !stale) return;

  // A source of events that a hidden page closes, and opens again when it is shown.
  class Source {
    constructor(url) { this.url = url; this.heard = []; this.open(); }
    open() {
      const s = this.s = new EventSource(this.url);
      s.onopen = (e) => this.onopen && this.onopen(e);
      s.onerror = (e) => this.onerror && this.onerror(e);
      this.heard.forEach(([n, f]) => s.addEventListener(n, f));
    }
    addEventListener(n, f) { this.heard.push([n, f]); this.s.addEventListener(n, f); }
    removeEventListener(n, f) { this.heard = this.heard.filter((h) => h[0] !== n || h[1] !== f); this.s.removeEventListener(n, f); }
    get readyState() { return this.s.readyState; }
    close() { this.s.close(); }
  }
  let source, at = Date.now(), time = '', gone = false;
  htmx.createEventSource = (url) => {
    source = new Source(url);
    source.addEventListener('gone', () => { gone = true; source.close(); $('p', stale).textContent = stale.dataset.gone; stale.hidden = false; });
    source.addEventListener('said', (e) => { if (said && said !== e.data) say(e.data); said = e.data; });
    return source;
  };
  let said = '';
  document.addEventListener('visibilitychange', () => {
    if (!source || gone) return;
    if (document.hidden) source.close(); else { at = Date.now(); source.open(); }
  });

  // An update never takes the focus away: what has it is updated when it loses it.
  const later = new Map();
  document.addEventListener('htmx:sseBeforeMessage', (e) => {
    const elt = e.target;
    at = Date.now();
    if (elt.id === 'live') { time = e.detail.data; elt.classList.remove('off'); }
    if (elt.contains(document.activeElement)) { e.preventDefault(); later.set(elt, e.detail.data); }
  });
  document.addEventListener('focusout', () => setTimeout(() => later.forEach((html, elt) => {
    if (!elt.contains(document.activeElement)) { later.delete(elt); htmx.swap(elt, html, { swapStyle: 'innerHTML' }); }
  })));
  setInterval(() => {
    if (document.hidden || gone) return;
    const age = Date.now() - at;
    $('#main').classList.toggle('is-stale', age > 5000);
    if (age > 15000 && stale.hidden) { $('p', stale).textContent = stale.dataset.text.replace('%at%', time.split(/[,，]/).pop().trim()); stale.hidden = false; }
    if (age < 5000 && !stale.hidden) stale.hidden = true;
  }, 1000);
})();
