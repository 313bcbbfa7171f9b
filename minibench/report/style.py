"""How the web page looks: light and dark, from a phone's width up."""

__all__ = ["STYLE"]

STYLE = """
:root{--page:#fbfbf9;--ink:#1c1e21;--soft:#5d646d;--line:#dcdfe3;--card:#fff;--band:#f1f3f5;--link:#0b5cad;
--good:#0b6b3a;--bad:#a8321a;--even:#6b5600;--best:#e3f1ea}
@media (prefers-color-scheme:dark){:root{--page:#16181b;--ink:#e8e9ea;--soft:#a4abb3;--line:#353a40;--card:#1d2024;
--band:#24282d;--link:#86bdf5;--good:#6fd6a0;--bad:#ff9b80;--even:#e3c55f;--best:#1f3a2d}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:68rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:clamp(1.5rem,4.5vw,2.1rem);line-height:1.2;margin:.5rem 0 1rem;letter-spacing:-.01em}
h2{font-size:1.35rem;margin:3rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.75rem 0 .5rem}
p,ul{max-width:46rem;margin:.75rem 0}
ul{padding-left:1.25rem}
li{margin:.3rem 0}
a{color:var(--link)}
code{font-size:.9em;background:var(--band);border-radius:.25rem;padding:.1em .3em}
nav{display:flex;flex-wrap:wrap;gap:.4rem .5rem;margin:1.5rem 0}
nav a{text-decoration:none;border:1px solid var(--line);border-radius:2rem;padding:.3rem .8rem;font-size:.875rem;
background:var(--card)}
.lead{font-size:1.12rem;line-height:1.5;max-width:50rem;border-left:4px solid var(--link);padding-left:1rem}
.note{font-size:.875rem;color:var(--soft)}
.table{margin:1.25rem 0;border:1px solid var(--line);border-radius:.6rem;background:var(--card);overflow:hidden}
.scroll{overflow-x:auto}
.caption{margin:0;padding:.75rem .8rem .4rem;font-weight:600;font-size:.92rem}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:.42rem .8rem;text-align:right;vertical-align:baseline}
td{white-space:nowrap}
th:first-child{text-align:left;font-weight:500}
td.text,th.text{text-align:left;white-space:normal;min-width:10.5rem}
thead th{font-size:.82rem;color:var(--soft);font-weight:600;border-bottom:1px solid var(--line)}
tbody tr+tr>*{border-top:1px solid var(--line)}
tr.group th{background:var(--band);font-weight:650;font-size:.86rem}
tr.group span{position:sticky;left:.8rem;display:inline-block;max-width:min(64rem,calc(100vw - 3.8rem))}
tr.sub th{padding-left:1.7rem}
td.best{background:var(--best)}
.sd{color:var(--soft);font-size:.86em}
.good{color:var(--good)}.bad{color:var(--bad)}.even{color:var(--even)}
.good .sd,.bad .sd,.even .sd{color:inherit;opacity:.85}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1rem;margin:1.25rem 0;
align-items:start}
.charts.wide{grid-template-columns:1fr}
.charts.small{grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr))}
figure{margin:0;background:#fff;color:#1c1e21;border:1px solid var(--line);border-radius:.6rem;padding:.6rem;
min-width:0}
figure img{display:block;width:100%;height:auto;margin:0 auto}
figcaption{font-size:.84rem;line-height:1.4;color:#454b53;padding:.5rem .25rem .2rem}
.strip{display:grid;grid-template-columns:repeat(3,1fr);gap:.6rem;margin:.5rem 0 1rem}
.strip figure{padding:.4rem}
.strip figcaption{padding:.1rem .2rem .4rem;font-weight:600}
a:focus-visible,[tabindex]:focus-visible{outline:2px solid var(--link);outline-offset:2px}
@media (max-width:42rem){
th,td{padding:.42rem .32rem}
th:first-child{padding-left:.6rem;min-width:5.6rem}
table{font-size:.8rem}
thead th{font-size:.76rem}
td .sd{display:block}
td.text,th.text{min-width:5.2rem}
tr.sub th{padding-left:.95rem}
.caption{padding-left:.6rem}
tr.group span{left:.6rem}
.wide figure{overflow-x:auto}
.wide figure img{min-width:32rem}
.strip{grid-template-columns:repeat(3,min(58vw,20rem));overflow-x:auto;scroll-snap-type:x proximity;
padding-bottom:.4rem}
.strip figure{scroll-snap-align:start}
}
@media print{nav{display:none}figure,.scroll{break-inside:avoid}}
"""
