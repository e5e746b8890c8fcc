"""The look of a report: one style sheet for light and dark screens, narrow ones, and paper."""

from __future__ import annotations

__all__ = ["STYLE"]

# Dark colours are for screens alone: paper is white. Pictures are drawn on white and inverted on dark screens, where 0.92 of
# white gives the background of the page.
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2126; --soft: #565d66; --line: #d4d8dd; --wash: #f4f5f7;
  --link: #0b57a4; --ok: #17693a; --look: #8a5300; --problem: #b3261e; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", "Liberation Sans", sans-serif; overflow-wrap: break-word; }
.sheet { max-width: 78rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
header, nav, main, footer { max-width: 50rem; margin-left: auto; margin-right: auto; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; text-wrap: balance; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 2.8rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p, ul, ol, dl { margin: .6rem 0; } li { margin: .3rem 0; }
a { color: var(--link); text-underline-offset: .15em; }
a:focus-visible, .wide:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.byline, .note, figcaption, footer { color: var(--soft); font-size: .9rem; }
.byline { margin: 0; }
code, pre, .formula { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size: .88em; }
pre, .formula, .equations { background: var(--wash); border-radius: .4rem; padding: .7rem .9rem; }
pre { white-space: pre-wrap; } .formula { display: block; overflow-wrap: anywhere; }
.equations { font-family: "STIX Two Text", Cambria, "Noto Serif", "DejaVu Serif", Georgia, serif; font-size: 1.05rem; }
.equations p { margin: .35rem 0; padding-left: 2rem; text-indent: -2rem; } .equations sub { font-size: .72em; }
nav { font-size: .92rem; } nav ol { padding-left: 1.4rem; margin: .3rem 0; columns: 2; column-gap: 2rem; }
nav h2 { font-size: 1rem; border: 0; margin: 1.4rem 0 0; padding: 0; }
.short { border-left: .3rem solid var(--link); background: var(--wash); padding: .5rem 1.1rem;
  border-radius: 0 .4rem .4rem 0; }
blockquote { margin: .6rem 0; padding-left: 1rem; border-left: .2rem solid var(--line); font-size: 1.1rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; min-width: 60%; }
caption { caption-side: top; text-align: left; color: var(--soft); padding-bottom: .3rem; }
th, td { padding: .28rem .7rem .28rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--soft); vertical-align: bottom; } tbody th { font-weight: 500; }
.n { text-align: right; white-space: nowrap; } td:last-child, th:last-child { padding-right: 0; }
.verdict { font-weight: 700; white-space: nowrap; } .ok { color: var(--ok); } .look { color: var(--look); }
.problem { color: var(--problem); } .skipped { color: var(--soft); }
figure { margin: 1.2rem 0; } figure img { display: block; max-width: 100%; height: auto; background: #fff; }
figcaption { margin-top: .4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
footer { border-top: 1px solid var(--line); margin-top: 3rem; padding-top: .8rem; }
@media screen and (min-width: 72rem) {
  .sheet { display: grid; grid-template-columns: 15rem minmax(0, 50rem); column-gap: 3rem; justify-content: center; }
  header, main, footer { grid-column: 2; width: 100%; margin-left: 0; }
  nav { margin: 0; grid-column: 1; grid-row: 2; position: sticky; top: 1.5rem; align-self: start; }
  nav ol { columns: 1; } nav h2 { margin-top: 3.4rem; }
}
@media screen and (max-width: 34rem) {
  .sheet { padding: 1.2rem 1rem 3rem; } h1 { font-size: 1.5rem; } nav ol { columns: 1; }
  figure { overflow-x: auto; } figure img { max-width: none; width: 36rem; } figcaption { position: sticky; left: 0; }
  tbody th { overflow-wrap: anywhere; min-width: 9rem; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } ul { padding-left: 1.3rem; }
}
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #141414; --ink: #e6e7e9; --soft: #a4abb4; --line: #3a3e44; --wash: #202225; --link: #7db7f5;
    --ok: #63c98c; --look: #f0b04a; --problem: #ff8a80; }
  figure img { filter: invert(.92) hue-rotate(180deg); }
}
@media print {
  @page { margin: 18mm 16mm; }
  :root { color-scheme: light; }
  html { font-size: 10pt; } .sheet { padding: 0; max-width: none; } header, nav, main, footer { max-width: none; }
  a { color: inherit; text-decoration: none; }
  h2, h3, caption { break-after: avoid; } h2 { margin-top: 1.8rem; }
  figure, tr, .small, .equations, .short, blockquote, li { break-inside: avoid; } p { orphans: 3; widows: 3; }
  thead { display: table-header-group; } .wide { overflow: visible; }
  p:has(+ figure), p:has(+ .wide) { break-after: avoid; }
  table { font-size: 8.5pt; width: 100%; min-width: 0; } .n { white-space: normal; }
  th, td { overflow-wrap: anywhere; } thead th, td.n { overflow-wrap: normal; } tbody th { min-width: 8em; }
  figure img { max-height: 200mm; width: auto; } .short, pre, .formula, .equations { print-color-adjust: exact; }
}
"""
