//! Tables, and the one place where a text becomes markup.

use crate::report::text::xml;

/// A cell of a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    markup: String,
    class: &'static str,
}

impl Cell {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self { markup: xml(text.as_ref()), class: "" }
    }

    /// Set to the right, with digits of one width.
    pub(super) fn number(text: impl AsRef<str>) -> Self {
        Self { class: "n", ..Self::text(text) }
    }

    /// A name, a key or a command, as it is typed.
    pub(super) fn code(text: impl AsRef<str>) -> Self {
        Self { class: "code", ..Self::text(text) }
    }

    /// A text that leads to another place.
    pub(super) fn link(text: &str, to: &str) -> Self {
        Self { markup: format!("<a href=\"{}\">{}</a>", xml(to), xml(text)), class: "" }
    }

    /// A bar as long as its `share` of the whole, from 0 to 1.
    pub(super) fn bar(share: f64, class: &'static str) -> Self {
        let width = share.clamp(0.0, 1.0) * 100.0;
        let markup = format!(
            "<svg class=\"bar {class}\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
             <rect width=\"{width:.1}\" height=\"8\" rx=\"1\"/></svg>"
        );
        Self { markup, class: "bars" }
    }

    /// Something that went wrong, went well, or needs a look.
    pub(super) fn marked(self, class: &'static str) -> Self {
        let markup = format!("<span class=\"{class}\">{}</span>", self.markup);
        Self { markup, ..self }
    }
}

/// A table whose first column names its rows. Columns that begin with `#` hold numbers.
pub(super) fn table(caption: &str, columns: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
    let mut out = format!(
        "<div class=\"wide\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\"><table>\n<caption>{caption}</caption>\n",
        caption = xml(caption)
    );
    out.push_str("<thead><tr>");
    for column in columns {
        let (name, class) = column.strip_prefix('#').map_or((*column, ""), |name| (name, " class=\"n\""));
        // Bars say nothing that is not in another column.
        let head = format!("<th scope=\"col\"{class}>{}</th>", xml(name));
        out.push_str(if name.is_empty() { "<td></td>" } else { &head });
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (index, Cell { markup, class }) in row.into_iter().enumerate() {
            let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
            let (tag, scope) = if index == 0 { ("th", " scope=\"row\"") } else { ("td", "") };
            out.push_str(&format!("<{tag}{scope}{class}>{markup}</{tag}>"));
        }
        out.push_str("</tr>\n");
    }
    out + "</tbody></table></div>\n"
}
