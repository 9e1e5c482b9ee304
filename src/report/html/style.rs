//! How a page looks: light and dark, on a phone, on paper.

use crate::report::ladder::{self, PALETTE};

/// Colours of the page besides those of the ladders: on white, and on a dark ground.
const COLOURS: [(&str, &str, &str); 7] = [
    ("back", "#f5f6f8", "#0e1116"),
    ("edge", "#dcdfe4", "#2a313a"),
    ("c1", "#0b6bcb", "#4ea1ff"),
    ("c2", "#c2570c", "#ffa657"),
    ("c3", "#6f42c1", "#b794f6"),
    ("good", "#1a7f37", "#56d364"),
    ("soft", "#eef1f5", "#1e242c"),
];

const RULES: &str = "\
*{box-sizing:border-box}\
html{color-scheme:light dark;-webkit-text-size-adjust:100%}\
body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif}\
main,header,footer{max-width:1180px;margin:0 auto;padding:0 20px}\
header{padding-top:28px}footer{padding-bottom:28px;color:var(--dim);font-size:13px}\
h1{font-size:26px;line-height:1.25;margin:0;color:var(--title);overflow-wrap:anywhere}\
h2{font-size:18px;margin:34px 0 12px;color:var(--title)}h3{font-size:15px;margin:22px 0 8px;color:var(--title)}\
p{margin:6px 0}.lead{color:var(--dim);overflow-wrap:anywhere}a{color:var(--c1)}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:12px;margin:22px 0 0;padding:0;list-style:none}\
.tiles li{background:var(--paper);border:1px solid var(--edge);border-radius:10px;padding:12px 14px}\
.tiles b{display:block;font-size:22px;line-height:1.2;color:var(--title);font-variant-numeric:tabular-nums}\
.tiles span{color:var(--dim);font-size:13px}.tiles .fault b{color:var(--fault)}.tiles .good b{color:var(--good)}\
.notes{margin:18px 0 0;padding:0;list-style:none}\
.notes li{border-left:4px solid var(--again);background:var(--paper);border-radius:0 8px 8px 0;padding:8px 14px;margin:8px 0;overflow-wrap:anywhere}\
.notes .fault{border-color:var(--fault)}.notes .good{border-color:var(--good)}\
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));gap:16px}\
figure{margin:0;background:var(--paper);border:1px solid var(--edge);border-radius:10px;padding:14px 16px 10px;break-inside:avoid}\
figcaption{font-weight:600;color:var(--title);margin-bottom:6px}\
.chart{display:block;width:100%;height:auto}.chart text{font:14px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:var(--dim)}\
.grid{stroke:var(--edge);fill:none}.chart path.again{stroke:var(--again);stroke-dasharray:1 4;stroke-linecap:round}\
.chart text.again{fill:var(--again);font-size:12px}\
.curve{fill:none;stroke-width:2.25;stroke-linejoin:round;stroke-linecap:round}\
.curve.c1{stroke:var(--c1)}.curve.c2{stroke:var(--c2)}.curve.c3{stroke:var(--c3)}.curve.bound{stroke-dasharray:3 5}\
circle.c1{fill:var(--c1)}circle.c2{fill:var(--c2)}circle.c3{fill:var(--c3)}\
circle.bound{fill:var(--paper);stroke-width:2}circle.c1.bound{stroke:var(--c1)}circle.c2.bound{stroke:var(--c2)}circle.c3.bound{stroke:var(--c3)}\
.legend{list-style:none;margin:6px 0 0;padding:0;font-size:12.5px;color:var(--dim);font-variant-numeric:tabular-nums}\
.legend li{padding-left:22px;position:relative}.legend li::before{content:'';position:absolute;left:0;top:.65em;width:14px;border-top:3px solid}\
.legend .c1::before{border-color:var(--c1)}.legend .c2::before{border-color:var(--c2)}.legend .c3::before{border-color:var(--c3)}\
.legend .bound::before{border-top-style:dotted;border-color:var(--dim)}\
.wide{overflow-x:auto;background:var(--paper);border:1px solid var(--edge);border-radius:10px;margin:12px 0}\
table{border-collapse:collapse;width:100%;font-size:14px}caption{text-align:left;padding:12px 14px 6px;font-weight:600;color:var(--title)}\
th,td{padding:6px 14px;text-align:left;vertical-align:top;border-top:1px solid var(--edge)}\
thead td{border-top:0}thead th{border-top:0;color:var(--dim);font-weight:500;font-size:12.5px;white-space:nowrap}\
tbody th{font-weight:500;overflow-wrap:anywhere}\
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
.code{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:13px;overflow-wrap:anywhere}\
.bars{width:26%;min-width:90px}.bar{display:block;width:100%;height:9px;margin-top:6px;background:var(--soft);border-radius:2px}\
.bar rect{fill:var(--c1)}.bar.good rect{fill:var(--good)}.bar.fault rect{fill:var(--fault)}.bar.again rect{fill:var(--again)}\
span.fault,p.fault{color:var(--fault);font-weight:600}span.good{color:var(--good);font-weight:600}span.again{color:var(--again);font-weight:600}\
details{background:var(--paper);border:1px solid var(--edge);border-radius:10px;margin:10px 0}\
summary{cursor:pointer;padding:10px 14px;overflow-wrap:anywhere}\
.scroll{overflow-x:auto;padding:0 8px 8px}.ladder{display:block;width:100%;min-width:820px;max-width:1070px;height:auto;margin:0 auto}\
:focus-visible{outline:2px solid var(--c1);outline-offset:2px}\
@media(max-width:600px){main,header,footer{padding-left:12px;padding-right:12px}th,td{padding:6px 10px}h1{font-size:21px}}\
@media print{body{background:none;font-size:11pt}.wide,.scroll{overflow:visible}.ladder{min-width:0}\
details::details-content{content-visibility:visible;block-size:auto}.tiles li,tr,summary{break-inside:avoid}}";

/// The whole style sheet. Paper is white, whatever the screen is.
pub(super) fn sheet() -> String {
    let all = || PALETTE.into_iter().chain(COLOURS);
    let light: String = all().map(|(name, light, _)| format!("--{name}:{light};")).collect();
    let dark: String = all().map(|(name, _, dark)| format!("--{name}:{dark};")).collect();
    let ladder = ladder::style(".ladder ", |name| format!("var(--{name})"));
    format!(":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{RULES}{ladder}")
}
