//! Our own log lines: on standard error, so that standard output stays what a command was asked for. Text for people, JSON for
//! machines, never in colour.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, fmt, registry, reload};

use crate::app::SetLevel;
use crate::config::{LogFormat, LogLevel};

/// Installs the writer of log lines for this process, and gives what sets another level later.
///
/// Our own lines begin at `level`; those of the libraries never below `warn`, because hyper and rustls tell each request and
/// each handshake at `debug`, headers included.
///
/// # Errors
/// When one is installed already.
pub fn init(level: LogLevel, format: LogFormat) -> Result<SetLevel, TryInitError> {
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let layer = match format {
        LogFormat::Text => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let (filter, handle) = reload::Layer::new(targets(level));
    registry().with(layer.with_filter(filter)).try_init()?;
    // It fails only when the writer is gone, which lives as long as the process.
    Ok(Box::new(move |level| drop(handle.reload(targets(level)))))
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_target("oomwatch", level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn libraries_stay_at_warn_when_we_are_at_debug() {
        let targets = targets(LogLevel::Debug);
        assert!(targets.would_enable("oomwatch::sink", &Level::DEBUG));
        assert!(!targets.would_enable("hyper::client", &Level::INFO));
        assert!(targets.would_enable("hyper::client", &Level::WARN));
    }

    #[test]
    fn at_error_nobody_warns() {
        assert!(!targets(LogLevel::Error).would_enable("rustls", &Level::WARN));
    }
}
