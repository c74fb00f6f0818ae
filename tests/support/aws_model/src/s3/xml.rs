//! The XML of S3's requests and answers: elements and text.
//!
//! Owns: parsing a document into [`Element`]s, escaping text. Attributes, comments and namespaces are skipped. Does not own:
//! which elements there are.

/// An element.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// Parses a document; `None` if it is not well-formed.
    pub(super) fn parse(text: &str) -> Option<Element> {
        let mut open: Vec<Element> = vec![Element::default()];
        let mut rest = text;
        while let Some(start) = rest.find('<') {
            open.last_mut()?.text.push_str(&unescape(&rest[..start])?);
            let end = rest.find('>')?;
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            if tag.starts_with(['?', '!']) {
                continue;
            }
            if let Some(name) = tag.strip_prefix('/') {
                let done = open.pop()?;
                if done.name != local(name.trim()) {
                    return None;
                }
                open.last_mut()?.children.push(done);
                continue;
            }
            let name = local(tag.trim_end_matches('/').split_whitespace().next()?).to_owned();
            let element = Element { name, ..Element::default() };
            if tag.ends_with('/') {
                open.last_mut()?.children.push(element);
            } else {
                open.push(element);
            }
        }
        let mut document = open.pop().filter(|_| open.is_empty())?;
        if document.children.len() == 1 { document.children.pop() } else { None }
    }

    /// The text of a child.
    pub(super) fn child(&self, name: &str) -> Option<&str> {
        self.children.iter().find(|child| child.name == name).map(|child| child.text.as_str())
    }

    /// All children of this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, name)| name)
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        plain.push_str(&rest[..start]);
        let end = start + rest[start..].find(';')?;
        plain.push(match &rest[start + 1..end] {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let number = number.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        rest = &rest[end + 1..];
    }
    plain.push_str(rest);
    Some(plain)
}

/// Escapes a text for a document.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' => escaped.push_str("&#13;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `<name>text</name>`.
pub(super) fn tag(name: &str, text: &str) -> String {
    format!("<{name}>{}</{name}>", escape(text))
}

/// Percent-encoding of `encoding-type=url`: a space is `+`, `/` stays.
pub(super) fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

/// Percent-decoding; `None` if it is malformed.
pub(super) fn url_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_with_their_escapes() {
        let root =
            Element::parse("<?xml version=\"1.0\"?>\n<A xmlns=\"x\"><B>a&amp;b&#33;</B><C/><B>&lt;</B></A>").unwrap();
        assert_eq!(root.child("B"), Some("a&b!"));
        assert_eq!(root.all("B").map(|b| b.text.as_str()).collect::<Vec<_>>(), ["a&b!", "<"]);
        for broken in ["", "<A>", "<A></B>", "<A>&no;</A>", "text", "<A/><B/>"] {
            assert_eq!(Element::parse(broken), None, "{broken}");
        }
        assert_eq!(Element::parse(&format!("<A>{}</A>", escape("a<b>&\"c"))).unwrap().text, "a<b>&\"c");
    }

    #[test]
    fn keys_are_encoded_for_urls_and_back() {
        assert_eq!(url_encode("a/b c+d=é"), "a/b+c%2Bd%3D%C3%A9");
        assert_eq!(url_decode("a/b%20c%2Bd%3D%C3%A9"), Some("a/b c+d=é".to_owned()));
        assert_eq!(url_decode("%2"), None);
    }
}
