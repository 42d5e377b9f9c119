//! Attestations about an image, stored as its referrers in formats that other tools read.
//!
//! A test record is an in-toto statement v1 with the predicate test-result v0.1, unsigned, as an OCI referrer of the image
//! it is about. It is not wrapped in a signature bundle: `cosign verify --key` accepts *any* bundle signed by the key as
//! the image's signature, so a signed record of a failure would pass for one.

mod error;
#[doc(hidden)]
pub mod fuzz;
mod image_location;
mod record;
mod run;
mod statement;
mod untested;

pub use error::AttestError;
pub use image_location::{ImageLocation, single_blob};
pub use record::{ListedRecord, RecordError, TestRecord, records};
pub use run::{CommandResult, Partition, TestCounts, TestRun};
pub use statement::{STATEMENT_TYPE, TEST_RESULT_TYPE};
pub use untested::{UNTESTED_TYPE, UntestedRecord};
