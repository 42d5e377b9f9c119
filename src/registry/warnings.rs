//! What a user should know that is not an error, said once each: warnings of registries, mirrors that are passed over.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{HeaderMap, WARNING};

use crate::event::Event;
use crate::image::shown;

/// Warnings of one answer that are read, and all that are said: a registry must not fill the log.
const PER_ANSWER: usize = 4;
const IN_ALL: usize = 50;

/// Who hears it, and what was said already.
#[derive(Clone, Default)]
pub(super) struct Warnings {
    to: Option<Arc<dyn Fn(Event) + Send + Sync>>,
    said: Arc<Mutex<BTreeSet<String>>>,
}

impl Warnings {
    pub(super) fn to(to: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self { to: Some(Arc::new(to)), said: Arc::default() }
    }

    /// One sentence without a period, control characters shown.
    pub(super) fn tell(&self, text: String) {
        let Some(to) = &self.to else { return };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = said.len() < IN_ALL && said.insert(text.clone());
        drop(said);
        if is_new {
            to(Event::Notice { text });
        }
    }

    /// Passes a registry's warnings on (distribution specification, "warnings").
    pub(super) fn warnings(&self, host: &str, headers: &HeaderMap) {
        for value in headers.get_all(WARNING).iter().take(PER_ANSWER) {
            if let Some(text) = warning(&String::from_utf8_lossy(value.as_bytes())) {
                self.tell(format!("`{host}` warns: {}", shown(&text)));
            }
        }
    }
}

/// The text of `299 - "text"`; the specification knows no other form.
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
