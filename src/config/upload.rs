//! Where `profile.upload` leads, and what is refused because it could not work there.

use std::path::PathBuf;

use super::Config;
use super::check::ApiKey;
use super::layers::Layers;
use super::types::{HttpUrl, TraceAddress};
use super::words::Upload;
use crate::secret::Secret;

/// The place that profiles are uploaded to.
#[derive(Clone, Debug, PartialEq)]
pub enum UploadTo {
    /// Never given the API key: the Agent has its own.
    Agent(TraceAddress),
    Intake {
        /// `https://intake.profile.<site>`, or what `datadog.profile_url` says; no slash at its end.
        base_url: String,
        api_key: Secret,
        /// To be read again when it changes; `None` when the key came from `DD_API_KEY`.
        api_key_file: Option<PathBuf>,
    },
}

pub(super) fn resolve(config: &Config, key: Option<ApiKey>, layers: &mut Layers) -> Option<UploadTo> {
    match config.profile.upload {
        Upload::Off => None,
        Upload::Agent => agent(config, layers),
        Upload::Intake => intake(config, key, layers),
    }
}

fn agent(config: &Config, layers: &mut Layers) -> Option<UploadTo> {
    match &config.agent.trace {
        Some(TraceAddress::Http(url)) if url.is_https() => {
            layers.refuse(
                "datadog.agent.trace",
                "plain http, such as \"http://10.0.0.7:8126\": an Agent speaks no TLS there",
            );
            None
        }
        Some(address) => Some(UploadTo::Agent(address.clone())),
        None => {
            let expected = "an Agent for it: set datadog.agent.trace, such as \"http://10.0.0.7:8126\" or \
                            \"unix:///var/run/datadog/apm.socket\", or DD_TRACE_AGENT_URL, or DD_AGENT_HOST";
            layers.refuse("profile.upload", expected);
            None
        }
    }
}

fn intake(config: &Config, key: Option<ApiKey>, layers: &mut Layers) -> Option<UploadTo> {
    let url = config.datadog.profile_url.as_ref();
    if url.is_some_and(|url| !url.is_https() && !url.is_loopback()) {
        let expected = "https, such as \"https://intake.profile.datadoghq.eu\": the key would travel in the clear";
        layers.refuse("datadog.profile_url", expected);
    }
    let Some((api_key, api_key_file)) = key else {
        layers.refuse(
            "profile.upload",
            "an API key for \"intake\": set datadog.api_key_file, or DD_API_KEY; or \"agent\"",
        );
        return None;
    };
    let base_url = url.map_or_else(|| format!("https://intake.profile.{}", config.datadog.site), HttpUrl::base);
    Some(UploadTo::Intake { base_url, api_key, api_key_file })
}
