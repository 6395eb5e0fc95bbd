"""The style of the report's page: light and dark, wide and phone. Loads nothing from anywhere."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5d6675; --page: #f7f6f2; --card: #fff; --line: #dcdfe4;
  --alone: #7b818c; --full: #2f6db5; --phf: #c2417c; --dual: #17836b; --head: #b86a00; --cohort: #7a54c4;
  --central: #4a3728; --x1: #9c7a00; --x2: #008299; --x3: #a33b20; --x4: #5a7d1f }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #a2abb9; --page: #12161c; --card: #1b212a;
  --line: #343c48; --alone: #a8afba; --full: #78aef0; --phf: #f07fb2; --dual: #4ed0ae; --head: #f3ac4e;
  --cohort: #b79bf5; --central: #e3cdb8; --x1: #e0c341; --x2: #4fc6dc; --x3: #f08a6c; --x4: #aad263 } }
* { box-sizing: border-box }
body { margin: 0; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; color: var(--ink);
  background: var(--page) }
main, footer { max-width: 68rem; margin: 0 auto; padding: 1rem }
h1 { font-size: clamp(1.35rem, 4vw, 2rem); line-height: 1.25; margin: .2rem 0 1.2rem; text-wrap: balance }
h2 { font-size: 1.2rem; margin: 0 0 .6rem } h3 { font-size: 1rem; margin: 1rem 0 .4rem }
.kicker, .about, footer, figcaption, dd { color: var(--soft) } .kicker { margin: 1rem 0 0; font-size: .9rem }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1.1rem;
  margin: 1rem 0 }
.grid { display: grid; gap: 1rem } .grid > * { min-width: 0 }
.three { grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)) }
.two { grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)) }
.card { background: var(--card); border: 1px solid var(--line); border-top: 5px solid var(--mode);
  border-radius: 12px; padding: .8rem 1.1rem }
.card h3 { margin: 0 } .card p { margin: .3rem 0 } .card .about { font-size: .9rem; min-height: 2.7em }
.card b { font-size: 1.7rem; font-variant-numeric: tabular-nums; margin-right: .3rem }
.m-alone { --mode: var(--alone) } .m-full { --mode: var(--full) } .m-private_head_fusion { --mode: var(--phf) }
.m-dual { --mode: var(--dual) } .m-private_head { --mode: var(--head) } .m-cohort { --mode: var(--cohort) }
.m-central { --mode: var(--central) } .m-majority { --mode: var(--soft) }
.m-x1 { --mode: var(--x1) } .m-x2 { --mode: var(--x2) } .m-x3 { --mode: var(--x3) } .m-x4 { --mode: var(--x4) }
figure { margin: 0 } figcaption { font-weight: 600 }
ul { margin: 0; padding-left: 1.2rem } li { margin: .25rem 0 }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 0 0 .8rem }
.key::before { content: ""; display: inline-block; width: .9rem; height: .9rem; border-radius: 3px;
  background: var(--mode); margin-right: .4rem; vertical-align: -.1rem }
.key.base::before { background: none; border-left: 2px dashed var(--soft); border-radius: 0; width: .3rem }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .92rem }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { color: var(--soft); font-weight: 600 }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
code { font: .9em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere }
dl { margin: 0 } dd { margin: 0 0 .5rem }
svg { display: block; width: 100%; height: auto; max-width: 34rem }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft) } svg text.value { fill: var(--ink) }
svg .rule { stroke: var(--line); fill: none } svg .base { stroke: var(--soft); stroke-dasharray: 4 3; fill: none }
svg .thin { stroke: var(--mode); stroke-width: 1; opacity: .4; fill: none }
svg .bold { stroke: var(--mode); stroke-width: 2.6; fill: none; stroke-linejoin: round }
svg .bar, svg .dot { fill: var(--mode) } svg .band { fill: var(--mode); opacity: .16 }
svg .flat { stroke: var(--mode); stroke-width: 1.6; stroke-dasharray: 6 4; fill: none }
svg .thick { stroke: var(--mode); stroke-width: 4; opacity: .45; fill: none; stroke-linecap: round }
.name { white-space: nowrap } .names .number { white-space: normal } .names th, .names td { padding: .35rem .4rem }
svg .halo { paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round }
summary { cursor: pointer; margin: .4rem 0 }
.best { font-weight: 700 } .best::before { content: "\\25b8 "; color: var(--soft); font-weight: 400 }
@media print { section, .card { break-inside: avoid } }
"""
