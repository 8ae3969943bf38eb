"""The style of the report: light and dark, from phones to wide screens."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2733; --soft: #5a6675;
  --line: #d9dee5; --card: #f5f7fa; --good: #1a7f37; --bad: #c62828;
  --c0: #0b67b2; --c1: #c75000; --c2: #1b7f5c; --c3: #a33a86; --c4: #8a6d00; --c5: #3a8fb7;
  --c6: #6b4fbb; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e3e8ee; --soft: #9fabb9;
  --line: #343c46; --card: #1d232a; --good: #5fcf80; --bad: #ff8278;
  --c0: #62b0ee; --c1: #ff9d5c; --c2: #55cfa3; --c3: #e28bc9; --c4: #dcbf4a; --c5: #8fd3f0;
  --c6: #b3a1f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 1.25rem; margin: 40px 0 12px; padding-bottom: 4px;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 20px 0 8px; }
p { margin: 4px 0 10px; max-width: 46rem; }
.note, .soft { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 12px;
  margin: 20px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 16px; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .bad { color: var(--bad); }
.charts, .tables { display: grid; gap: 24px 28px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); }
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; max-width: 620px; }
svg text { fill: var(--soft); font-size: 13px; }
.grid { stroke: var(--line); stroke-width: 1; }
polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
circle { fill: currentColor; }
g.dashed polyline { stroke-dasharray: 6 5; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none; margin: 4px 0 0;
  padding: 0; font-size: .875rem; color: var(--ink); }
.legend li::before { content: ''; display: inline-block; width: 22px; vertical-align: middle;
  margin-right: 7px; border-top: 3px solid currentColor; }
.legend li.dashed::before { border-top-style: dashed; }
.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); }
.c3 { color: var(--c3); } .c4 { color: var(--c4); } .c5 { color: var(--c5); }
.c6 { color: var(--c6); } .gray { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: .875rem; }
th, td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th.number, td.number { text-align: right; white-space: nowrap; }
.trio { display: grid; grid-template-columns: repeat(3, 1fr); gap: 8px; }
.example { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px; margin-bottom: 14px; }
.trio img { display: block; width: 100%; height: auto; border-radius: 4px; }
.trio figcaption { font-weight: 400; font-size: .875rem; margin: 4px 0 0; }
.example > p { margin: 8px 0 0; font-size: .875rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px;
  margin: 8px 0 16px; white-space: pre-wrap; font: .875rem/1.5 ui-monospace, Consolas, monospace; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 8px 0; }
dt { color: var(--soft); } dd { margin: 0; }
@media (max-width: 560px) {
  body { padding: 16px 14px 40px; }
  .trio { grid-template-columns: 1fr; gap: 12px; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; }
}
"""
