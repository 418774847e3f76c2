//! `top`: the busiest metric names of a running sidecar, asked of its page once a second.
//!
//! Samples and contexts are as of the sidecar's last flush. On a terminal the table is drawn over itself until Ctrl-C;
//! elsewhere, and with `--once`, it is printed once.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::http;
use crate::config::Config;

const EVERY: Duration = Duration::from_secs(1);
/// Home, and erase what is below: the table is drawn over the last one without a flicker.
const OVER: &str = "\x1b[H\x1b[J";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many names of either order.
    #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
    names: usize,
    /// Print the table once.
    #[arg(long)]
    once: bool,
    /// Print what the page's API says, once, as JSON.
    #[arg(long)]
    json: bool,
}

/// The part of `/api/contexts` that is shown.
#[derive(Deserialize)]
struct Contexts {
    names: Vec<Name>,
    most_contexts: Vec<Name>,
    folded: u64,
}

#[derive(Deserialize)]
struct Name {
    name: String,
    samples: u64,
    contexts: u64,
}

pub(super) fn run(path: Option<&Path>, args: &Args) -> ExitCode {
    let loaded = match super::settings(path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    match show(&loaded.config, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            let _ = writeln!(std::io::stderr(), "oomwatch: {words}");
            ExitCode::FAILURE
        }
    }
}

fn show(config: &Config, args: &Args) -> Result<(), String> {
    let contexts = || ask(config, &format!("/api/contexts?top={}", args.names));
    if args.json {
        return put(&format!("{}\n", contexts()?));
    }
    let live = !args.once && std::io::stdout().is_terminal();
    loop {
        let table = table(&contexts()?, &ask(config, "/api/status")?)?;
        if !live {
            return put(&table);
        }
        put(&format!("{OVER}{table}"))?;
        std::thread::sleep(EVERY);
    }
}

fn put(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| format!("write the table: {error}"))
}

/// One answer of the page's API, or what to do about its absence.
fn ask(config: &Config, route: &str) -> Result<String, String> {
    let listen = config.page.listen;
    if listen.port() == 0 {
        return Err("page.listen has port 0: set it to the port that the sidecar printed, such as \
                    OOMWATCH_PAGE__LISTEN=127.0.0.1:7070"
            .to_owned());
    }
    let token = config.secrets.page_token.as_ref().map(|token| token.expose());
    let answer = http::get(listen, route, token)
        .map_err(|error| format!("ask the page at {listen} (page.listen): {error}; is the sidecar running?"))?;
    match answer.status {
        200 => Ok(answer.body),
        401 => Err(format!("the page at {listen} wants its token: set page.token_file")),
        status => Err(format!("the page at {listen} answered {status}: {}", answer.body.trim())),
    }
}

fn table(contexts: &str, status: &str) -> Result<String, String> {
    let contexts: Contexts = serde_json::from_str(contexts).map_err(|error| format!("read /api/contexts: {error}"))?;
    let status: Value = serde_json::from_str(status).map_err(|error| format!("read /api/status: {error}"))?;
    let mut text = head(&status["statsd"], contexts.folded);
    rows(&mut text, "busiest", &contexts.names);
    rows(&mut text, "most contexts", &contexts.most_contexts);
    Ok(text)
}

fn head(statsd: &Value, folded: u64) -> String {
    let figure = |key: &str| statsd[key].as_u64().map_or("?".to_owned(), |value| value.to_string());
    let lost: Vec<String> = statsd["dropped"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    let lost = if lost.is_empty() { "nothing".to_owned() } else { lost.join(", ") };
    format!(
        "{} datagrams, {} samples, {} contexts, {} clients, {folded} samples folded\ndropped: {lost}\n",
        figure("datagrams"),
        figure("samples"),
        figure("contexts"),
        figure("clients"),
    )
}

fn rows(text: &mut String, title: &str, names: &[Name]) {
    let _ = writeln!(text, "\n{:>12}  {:>9}  {title}", "samples", "contexts");
    for it in names {
        // What an app calls its metrics must not reach the terminal as anything but letters.
        let name: String = it.name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let _ = writeln!(text, "{:>12}  {:>9}  {name}", it.samples, it.contexts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_both_orders_and_what_was_lost() {
        let contexts = r#"{"names":[{"name":"a","samples":20,"contexts":1}],
            "most_contexts":[{"name":"b\u001b[2J","samples":3,"contexts":9}],"folded":4}"#;
        let status =
            r#"{"statsd":{"datagrams":5,"samples":23,"contexts":10,"clients":null,"dropped":{"nan":2,"rate":1}}}"#;
        let expected = "5 datagrams, 23 samples, 10 contexts, ? clients, 4 samples folded\ndropped: nan 2, rate 1\n\n     \
                        samples   contexts  busiest\n          20          1  a\n\n     samples   contexts  most contexts\n           \
                        3          9  b?[2J\n";
        assert_eq!(table(contexts, status).as_deref(), Ok(expected));
        assert!(table("{}", status).is_err());
    }

    #[test]
    fn a_port_that_is_not_known_is_said() {
        let mut config = Config::default();
        config.page.listen = "127.0.0.1:0".parse().expect("an address");
        assert!(ask(&config, "/").is_err_and(|words| words.contains("OOMWATCH_PAGE__LISTEN")));
    }
}
