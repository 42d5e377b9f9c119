//! Notices about registries, each reported once: their own warnings, and mirrors that failed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{HeaderMap, WARNING};

use crate::event::Event;
use crate::image::shown;

/// Warnings of one response that are read.
const MAX_PER_RESPONSE: usize = 4;
/// Notices of one process: a registry must not fill the log.
const MAX_NOTICES: usize = 50;

/// Where notices go, and which were reported already.
#[derive(Clone, Default)]
pub(super) struct Warnings {
    to: Option<Arc<dyn Fn(Event) + Send + Sync>>,
    reported: Arc<Mutex<BTreeSet<String>>>,
}

impl Warnings {
    /// Notices that go to `to`.
    pub(super) fn to(to: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { to: Some(Arc::new(to)), reported: Arc::default() }
    }

    /// Reports a notice: one sentence without a period, control characters escaped.
    pub(super) fn notice(&self, text: String) {
        let Some(to) = &self.to else { return };
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = reported.len() < MAX_NOTICES && reported.insert(text.clone());
        drop(reported);
        if is_new {
            to(Event::Notice { text });
        }
    }

    /// Reports the warnings of a response (distribution specification, "warnings").
    pub(super) fn read(&self, host: &str, headers: &HeaderMap) {
        for value in headers.get_all(WARNING).iter().take(MAX_PER_RESPONSE) {
            if let Some(text) = warning(&String::from_utf8_lossy(value.as_bytes())) {
                self.notice(format!("`{host}` warns: {}", shown(&text)));
            }
        }
    }
}

/// The text of `299 - "text"`, the one form in the specification.
fn warning(value: &str) -> Option<String> {
    let quoted = value.strip_prefix("299 - \"")?.strip_suffix('"')?;
    let mut text = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next()?),
            '"' => return None,
            c => text.push(c),
        }
    }
    Some(text).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_has_one_form() {
        for (value, text) in [
            (r#"299 - "this tag goes away""#, Some("this tag goes away")),
            (r#"299 - "a \"quoted\" \\ word""#, Some(r#"a "quoted" \ word"#)),
            (r#"299 - "one" "Sun, 06 Nov 1994 08:49:37 GMT""#, None),
            (r#"199 - "other""#, None),
            (r#"299 registry "other""#, None),
            (r#"299 - "open"#, None),
            (r#"299 - "\""#, None),
            (r#"299 - """#, None),
            ("", None),
        ] {
            assert_eq!(warning(value).as_deref(), text, "{value}");
        }
    }
}
