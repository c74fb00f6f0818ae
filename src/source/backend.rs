//! What every kind of source does for the configuration and the commands.
//!
//! Owns: the trait, what opening a source needs, and what it gives. Does not own: the kinds (`backends`), reading records
//! (`ShardSource`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::StreamName;
use pipeline::documents::Documents;

use crate::aws::permissions::Trials;
use crate::aws::{Aws, Created};
use crate::clock::SharedClock;
use crate::diagnosis::Diagnosis;
use crate::lake::ObjectStore;
use crate::lake::backends::LakeUrl;
use crate::source::{ShardSource, SourceError};

/// A kind of source, by the URL of one source. `Options` has the options of all kinds; each kind reads its own.
#[async_trait]
pub trait SourceBackend<Options>: fmt::Display + Send + Sync {
    /// Its name in messages and in the documentation.
    fn name(&self) -> &'static str;

    /// The stream's name in the lake, if the configuration gives none; `None` if it depends on the machine.
    fn stream_name(&self) -> Option<&str>;

    /// The stream's name in the lake as this machine has it; `None` if there is no such source.
    fn local_stream_name(&self, name: Option<&str>) -> Option<StreamName>;

    /// Whether opening it needs the SDK's settings.
    fn needs_aws(&self) -> bool {
        false
    }

    /// Whether a KCL application could read the stream, so that its leases may be in KCL's own format.
    fn is_kcl_stream(&self) -> bool {
        false
    }

    /// Whether the source can tell how many bytes are left to read.
    fn counts_bytes(&self) -> bool {
        false
    }

    /// Checks that the source can be used with this lake. Asks no service.
    ///
    /// # Errors
    /// A sentence for the user.
    fn check(&self, _lake: &LakeUrl) -> Result<(), String> {
        Ok(())
    }

    /// Sets the options whose defaults depend on the application: on a name that all its workers share, and no other application.
    fn fill(&self, _: &mut Options, _application: &str) {}

    /// Sets the options for reading beside the live workers, so that nothing is taken from them.
    fn read_beside(&self, _: &mut Options) {}

    /// Checks the options of this kind of source.
    ///
    /// # Errors
    /// A sentence for the user.
    fn check_options(&self, _: &Options) -> Result<(), String> {
        Ok(())
    }

    /// Checks that the source is the stream that the lake has under its name, if the lake has one. A source that cannot be asked
    /// passes: opening it says why. Changes nothing.
    ///
    /// # Errors
    /// It is another stream, or the lake cannot be read.
    async fn check_identity(
        &self,
        _name: Option<&str>,
        _options: &Options,
        _lake: &Arc<dyn ObjectStore>,
        _aws: Option<&Aws>,
    ) -> Result<(), SourceError> {
        Ok(())
    }

    /// Opens the source.
    async fn open(&self, context: OpenSource<'_, Options>) -> Result<OpenedSource, SourceError>;

    /// Tries the actions that a worker needs.
    async fn try_permissions(&self, _: &Aws, _: &Options, _: &mut Trials) {}

    /// Notes what is wrong with the stream. Changes nothing.
    async fn diagnose(&self, _: &Options, _: Option<&Aws>, _: &mut Diagnosis) {}

    /// Makes the stream for a development account, if it does not exist. `None`: there is nothing to make.
    ///
    /// # Errors
    /// A sentence for the user.
    async fn create(&self, _: &Aws, _: &Options, _shards: u32) -> Result<Option<Created>, String> {
        Ok(None)
    }
}

/// What opening a source needs.
pub struct OpenSource<'a, Options> {
    /// The stream's name in the lake, if the configuration gives one.
    pub name: Option<&'a str>,
    /// The options.
    pub options: &'a Options,
    /// Bytes that a record may have.
    pub record_bytes_max: usize,
    /// How many documents a record may have.
    pub documents: Documents,
    /// Whether reading ends at what is there now: files are complete as they are, and a stream is read up to the present.
    pub complete: bool,
    /// For how long trouble of a service is waited for.
    pub retry_within: Duration,
    /// The time of day.
    pub clock: &'a SharedClock,
    /// The lake, which keeps what all workers must agree on.
    pub lake: &'a Arc<dyn ObjectStore>,
    /// The SDK's settings, for a source that needs them.
    pub aws: Option<&'a Aws>,
}

/// An open source.
pub struct OpenedSource {
    /// The source.
    pub source: Arc<dyn ShardSource>,
    /// The stream's name in a lease table that a KCL application of several streams shares.
    pub kcl_id: Option<String>,
}
