//! Settings: file and environment become layers, layers become a checked [`Config`], or a list of every fault at once.
//!
//! Nothing later parses a setting again. The table of keys (`traffic.rs`, `watching.rs`) makes the types, the schema,
//! `docs/configuration.md` and `sidecar.toml`; `layers.rs` merges and knows where each value came from; `check.rs` holds what
//! concerns more than one key. Reads files only in [`load`] and only those that settings name. A section's struct says nothing
//! of secrets: those stand in [`Secrets`], which cannot be printed.

mod check;
mod datadog_env;
mod fault;
mod keys;
mod layers;
mod own_address;
mod render;
mod suggest;
mod traffic;
mod types;
mod upload;
mod value;
mod watching;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use check::{Identity, Output, Secrets};
pub use datadog_env::Proxy;
pub use fault::Fault;
pub use keys::{Key, Section, keys, sections};
pub use layers::Origin;
pub use render::{docs, sample, schema};
pub use traffic::{Agent, Aggregate, Datadog, Filter, Spool, Statsd};
pub use types::{AgentAddress, ByteSize, HttpUrl, Limit, Pattern, TraceAddress};
pub use upload::UploadTo;
pub use value::Kind;
pub use watching::{Alert, Health, Log, Page, Profile, Run, State, Watch};

pub use words::{
    Counters, LogFormat, LogLevel, MapperProfile, Mapping, MatchType, OutputChoice, TagAction, TagFilter, Upload,
};

use layers::Layers;

/// Every setting, checked. Lives as long as the process; written by [`load`] alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub mapper: Vec<MapperProfile>,
    pub statsd: Statsd,
    pub aggregate: Aggregate,
    pub filter: Filter,
    pub datadog: Datadog,
    /// `[datadog.agent]`.
    pub agent: Agent,
    pub spool: Spool,
    pub watch: Watch,
    pub alert: Alert,
    pub state: State,
    pub profile: Profile,
    pub page: Page,
    pub health: Health,
    pub run: Run,
    pub log: Log,
    /// Where `datadog.output` leads, with what is needed there.
    pub output: Output,
    /// Where `profile.upload` leads, with what is needed there; `None` for "off".
    pub upload: Option<UploadTo>,
    /// Under which host and tags everything is sent.
    pub identity: Identity,
    pub secrets: Secrets,
    pub proxy: Proxy,
    /// `APP_MEMORY_LIMIT` of the downward API. Fixed at start, and the node's size where the app has no limit.
    pub app_memory_limit: Option<ByteSize>,
}

impl Default for Config {
    fn default() -> Config {
        check::config(&mut Layers::new(None, &BTreeMap::new()), &BTreeMap::new())
    }
}

/// Checked settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file that was read; `None` when there is none.
    pub file: Option<PathBuf>,
    effective: Vec<(String, String, Origin)>,
}

/// Reads the settings: `path`, else `OOMWATCH_CONFIG`, else `/etc/oomwatch/sidecar.toml`, else `./sidecar.toml`, else none; then
/// the environment over it.
///
/// # Errors
/// Every fault that was found, in the order of the file and then of the environment.
pub fn load(path: Option<&Path>, env: &BTreeMap<String, String>) -> Result<Loaded, Vec<Fault>> {
    let Some(file) = locate(path, env) else { return from_text(None, env) };
    match std::fs::read_to_string(&file) {
        Ok(text) => from_text(Some((&file, &text)), env),
        Err(error) => {
            let message =
                format!("cannot read the settings: {error}; name another file with --config or OOMWATCH_CONFIG");
            Err(vec![Fault::new("", file.display().to_string(), message)])
        }
    }
}

/// A file that was asked for must be there; the two usual places are only looked at.
fn locate(path: Option<&Path>, env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let named = path.map(Path::to_owned).or_else(|| datadog_env::set(env, "OOMWATCH_CONFIG").map(PathBuf::from));
    let usual =
        || ["/etc/oomwatch/sidecar.toml", "sidecar.toml"].map(PathBuf::from).into_iter().find(|path| path.exists());
    named.or_else(usual)
}

/// [`load`] for a file that has been read.
///
/// # Errors
/// As [`load`].
pub fn from_text(file: Option<(&Path, &str)>, env: &BTreeMap<String, String>) -> Result<Loaded, Vec<Fault>> {
    let name = file.map(|(path, _)| path.display().to_string()).unwrap_or_default();
    let mut layers = Layers::new(file.map(|(_, text)| (name.as_str(), text)), env);
    let config = check::config(&mut layers, env);
    if layers.faults.is_empty() {
        let file = file.map(|(path, _)| path.to_owned());
        Ok(Loaded { config, file, effective: layers.effective() })
    } else {
        layers.faults.sort_by_key(|fault| fault.order());
        Err(layers.faults)
    }
}

impl Loaded {
    /// Every key with its value as TOML.
    pub fn values(&self) -> BTreeMap<String, String> {
        self.effective.iter().map(|(path, value, _)| (path.clone(), value.clone())).collect()
    }

    /// Every setting as TOML with its origin as a comment; what is secret is masked.
    pub fn show(&self) -> String {
        render::show(self)
    }
}

/// The variables of this process. One that is not UTF-8 cannot be a setting and is left out.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
