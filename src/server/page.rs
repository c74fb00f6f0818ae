//! The status page: one HTML file, with its styles and its script.
//!
//! Owns: the file, and the policy that lets a browser run this script and no other. Does not own: the figures, which the script fetches
//! (`fleet`).

use std::sync::LazyLock;

use axum::http::HeaderValue;
use sha2::{Digest, Sha256};

/// The page.
pub(super) const HTML: &str = include_str!("page.html");

/// The `Content-Security-Policy` of the page: its own style and script by their hashes, its own JSON, and nothing else.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash_of("style"),
        hash_of("script")
    );
    HeaderValue::from_str(&policy).expect("hashes in base64 are visible ASCII")
});

/// The hash of the one element of this name, as the policy writes it.
fn hash_of(element: &str) -> String {
    let (_, rest) = HTML.split_once(&format!("<{element}>")).expect("the page has the element");
    let (content, _) = rest.split_once(&format!("</{element}>")).expect("the page has the end of the element");
    format!("'sha256-{}'", base64_simd::STANDARD.encode_to_string(Sha256::digest(content.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_style_and_one_script_and_names_no_other_host() {
        for element in ["style", "script"] {
            assert_eq!(HTML.matches(&format!("<{element}")).count(), 1, "{element}");
        }
        let policy = POLICY.to_str().unwrap();
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe"));
        // The names of XML dialects are not addresses.
        let without_names = HTML.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !without_names.contains("http://")
                && !without_names.contains("https://")
                && !without_names.contains("//www")
        );
        assert!(!HTML.contains(" style=\""), "the policy does not allow attributes of style");
        assert!(!HTML.contains(" onclick="), "the policy does not allow handlers in attributes");
    }
}
