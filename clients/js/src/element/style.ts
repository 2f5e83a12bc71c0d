// How the element looks, unless the page says otherwise by custom properties and parts.

// Without needless spaces, as this is sent as it is.
export const STYLE = `
:host{display:block}
[hidden]{display:none!important}
.root{
--accent:var(--run-progress-accent,light-dark(#4f46e5,#a5b4fc));
--bad:var(--run-progress-bad,light-dark(#b91c1c,#fca5a5));
--tone:var(--accent);
display:grid;gap:.5em}
.root.good{--tone:var(--run-progress-good,light-dark(#15803d,#4ade80))}
.root.bad{--tone:var(--bad)}
.header{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1em}
.label{font-weight:600;overflow-wrap:anywhere}
.status{color:var(--tone)}
.status div{display:inline}
.bar{height:var(--run-progress-height,.5em);border-radius:var(--run-progress-radius,1em);overflow:hidden;
background:var(--run-progress-track,color-mix(in srgb,currentColor 15%,transparent))}
.fill{height:100%;border-radius:inherit;background:var(--tone);transition:width .3s ease-out}
.bar:not([aria-valuenow]) .fill{width:30%;animation:slide 1.5s ease-in-out infinite alternate}
.bar.still:not([aria-valuenow]) .fill{width:0;animation:none}
@keyframes slide{to{margin-inline-start:70%}}
.problem{margin:0;color:var(--bad);overflow-wrap:anywhere}
.calm .problem{color:inherit}
.text{max-height:var(--run-progress-text-height,16em);overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere}
@media(prefers-reduced-motion:reduce){.fill{transition:none}.bar:not([aria-valuenow]) .fill{animation:none}}
@media(forced-colors:active){.bar{border:1px solid}.fill{background:Highlight;forced-color-adjust:none}}`;
