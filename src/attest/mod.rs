//! What was done with an image, said beside it in formats that others read.
//!
//! A test record is an in-toto statement v1 with the predicate test-result v0.1, unsigned, as an OCI referrer of the image
//! it is about. Signatures are another matter: `cosign verify --key` takes *any* bundle signed by a key for the image's
//! signature, so a record of a failure is never wrapped as one.

mod error;
mod image_location;
mod record;
mod run;
mod statement;
mod untested;

pub use error::AttestError;
pub use image_location::{ImageLocation, only};
pub use record::{Flaw, Listed, Record, records};
pub use run::{Command, Counts, Partition, Run};
pub use statement::{STATEMENT, TEST_RESULT};
pub use untested::{UNTESTED, Untested};
