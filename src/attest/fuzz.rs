//! Entry points of the fuzz targets into the parsers of this module: a function takes anything, and panics if a property that must
//! hold does not.

#![allow(clippy::missing_panics_doc, reason = "a panic is how a target reports a bug")]

use phial_layers::Digest;

use super::record;

/// A test record: if it is passed, then it is about `subject` and no command in it failed.
pub fn test_record(subject: &Digest, document: &[u8]) {
    match record::read(subject, subject, document) {
        Ok(Some(record)) if record.passed => {
            assert!(record.commands.values().all(|passed| *passed), "{record:?}");
            let text = String::from_utf8_lossy(document);
            assert!(text.contains(subject.hex()) && (text.contains("PASSED") || text.contains("WARNED")), "{text}");
        }
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().contains(char::is_control), "{error:?}"),
    }
}
