//! Links of proxied pages: one that begins at the root would leave the proxied path, so the
//! path's prefix is put before it, as upstream does.

use http::{HeaderMap, header};

/// A page beyond this size is passed as it is.
pub(super) const PAGE_BYTES_MAX: usize = 4 << 20;
/// Attributes whose value is a link (upstream's atomsToAttrs).
const ATTRIBUTES: [&str; 14] = [
    "action",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "src",
    "usemap",
];

/// Whether an answer is a page whose links can be read.
pub(super) fn is_page(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.contains("text/html"))
        && !headers.contains_key(header::CONTENT_ENCODING)
}

/// The page with `prefix` before every link that begins at the root.
pub(super) fn rewrite(page: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(page.len() + page.len() / 8);
    let mut rest = page;
    // Only within tags: text between them may look like anything.
    while let Some(open) = rest.find('<') {
        let end = rest[open..].find('>').map_or(rest.len(), |at| open + at + 1);
        out.push_str(&rest[..open]);
        rewrite_tag(&rest[open..end], prefix, &mut out);
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

fn rewrite_tag(tag: &str, prefix: &str, out: &mut String) {
    let mut rest = tag;
    while let Some(at) = rest.find('=') {
        let name = rest[..at].trim_end().rsplit(|c: char| c.is_whitespace()).next().unwrap_or("");
        let link = ATTRIBUTES.iter().any(|known| known.eq_ignore_ascii_case(name));
        let value = rest[at + 1..].trim_start();
        let start = rest.len() - value.len();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let start = start + usize::from(quote.is_some());
        let value = &rest[start..];
        let length = match quote {
            Some(quote) => value.find(quote).unwrap_or(value.len()),
            None => value.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(value.len()),
        };
        out.push_str(&rest[..start]);
        // `//host/` names another host.
        if link && value.starts_with('/') && !value.starts_with("//") && !value.starts_with(prefix)
        {
            out.push_str(prefix);
        }
        out.push_str(&value[..length]);
        rest = &value[length..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_from_the_root_get_the_prefix() {
        for (page, expected) in [
            (r#"<a href="/x">/y</a>"#, r#"<a href="/p/x">/y</a>"#),
            ("<img alt='a=/b' SRC = '/x.png'/>", "<img alt='a=/b' SRC = '/p/x.png'/>"),
            ("<form action=/go method=post>", "<form action=/p/go method=post>"),
            (
                r#"<a href="x"><a href="//h/x"><a href="http://h/">"#,
                r#"<a href="x"><a href="//h/x"><a href="http://h/">"#,
            ),
            (r#"href="/x" <b title="/y">"#, r#"href="/x" <b title="/y">"#),
            ("<a href=\"/x", "<a href=\"/p/x"),
            ("a < b = /c", "a < b = /c"),
        ] {
            assert_eq!(rewrite(page, "/p"), expected, "{page}");
        }
    }
}
