//! Settings as a user meets them: bad files and what is said of them, the order of the layers, and the files that are made from
//! the table of keys. `OOMWATCH_WRITE_DOCS=1 cargo test --test config` writes those again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use oomwatch::config::{self, AgentAddress, ByteSize, Config, Counters, Fault, Limit, Loaded, Output};

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Vec<Fault>> {
    config::from_text(Some((Path::new("sidecar.toml"), text)), &env(variables))
}

fn fine(text: &str, variables: &[(&str, &str)]) -> Config {
    load(text, variables).expect("these settings are fine").config
}

fn faults(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    load(text, variables)
        .map(|loaded| loaded.show())
        .expect_err("these settings are bad")
        .iter()
        .map(Fault::to_string)
        .collect()
}

#[test]
fn a_bad_file_is_told_by_line_with_what_would_be_accepted() {
    let table = [
        (
            "[aggregate]\nintervall = \"10s\"",
            "sidecar.toml:2: unknown key \"intervall\" in [aggregate], did you mean \"interval\"?",
        ),
        ("[statd]\n", "sidecar.toml:1: unknown section \"statd\", did you mean \"statsd\"?"),
        ("site = \"x\"", "sidecar.toml:1: unknown key \"site\""),
        (
            "[datadog]\ndogstatsd = \"\"",
            "sidecar.toml:2: unknown key \"dogstatsd\" in [datadog], did you mean \"datadog.agent.dogstatsd\"?",
        ),
        ("statsd = 3", "sidecar.toml:1: statsd: expected a table, such as [statsd]"),
        (
            "\n[log]\nlevel = \"loud\"",
            "sidecar.toml:3: log.level = \"loud\": expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        (
            "[aggregate]\ninterval = 10",
            "sidecar.toml:2: aggregate.interval = 10: expected a duration with its unit, such as \"10s\"",
        ),
        (
            "[aggregate]\ninterval = \"1500ms\"",
            "sidecar.toml:2: aggregate.interval = \"1500ms\": expected whole seconds from 1s to 1h, such as \"10s\"",
        ),
        (
            "[aggregate]\nmax_bytes = \"16mib\"",
            "sidecar.toml:2: aggregate.max_bytes = \"16mib\": expected a size, such as \"4MiB\"",
        ),
        (
            "[datadog]\nversion = 1.10",
            "sidecar.toml:2: datadog.version = 1.1: expected text in quotes, such as \"prod\"",
        ),
        (
            "[statsd]\nlisten = [\"localhost:8125\"]",
            "sidecar.toml:2: statsd.listen = [\"localhost:8125\"]: expected a list of IP addresses with ports, such as [\"127.0.0.1:8125\"]",
        ),
        (
            "[watch]\ncmdline = \"(\"",
            "sidecar.toml:2: watch.cmdline = \"(\": expected a regular expression, such as \"worker .*--queue\"",
        ),
        ("[aggregate]\nhistogram_percentiles = [\"95\"]", "expected numbers from 0.01 to 1, such as [\"0.95\"]"),
        ("[statsd]\nsocket = \"dsd.socket\"", "statsd.socket = \"dsd.socket\": expected an absolute path"),
        ("[statsd]\nstream_socket = \"/run/\"", "statsd.stream_socket = \"/run/\": expected the path of a file"),
        (
            "[statsd]\nsocket = \"/run/s\"\nstream_socket = \"/run/s\"",
            "sidecar.toml:3: statsd.stream_socket = \"/run/s\": expected another path than statsd.socket",
        ),
        (
            "[statsd]\nlisten = []",
            "expected at least one address, such as [\"127.0.0.1:8125\"], or a statsd.socket instead",
        ),
        (
            "[[mapper]]\nname = \"jobs\"\nprefix = \"a.\"\nmappings = [{ match = \"a.**\", name = \"a\" }]",
            "mapper \"jobs\": match = \"a.**\": expected letters, digits, - _ . and *, never two * in a row",
        ),
        (
            "[[mapper]]\nname = \"jobs\"\nprefix = \"\"\nmappings = [{ match = \"a\", name = \"a\" }]",
            "mapper \"jobs\": prefix = \"\": expected what its metrics begin with",
        ),
        (
            "[[mapper]]\nname = \"jobs\"\nprefix = \"a\"\nmappings = [{ match = \"a(\", match_type = \"regex\", name = \"a\" }]",
            "match = \"a(\": expected a regular expression",
        ),
        ("[filter]\nmetrics = [\"\"]", "filter.metrics = [\"\"]: expected metric names"),
        (
            "[filter]\ntags = [{ metric = \"a\", action = \"exclude\", tags = [\"k:v\"] }]",
            "expected a metric and keys of tags without values",
        ),
        ("[[mapper]]\nnam = \"a\"", "expected tables of { name, prefix"),
        ("[filter]\ntags = [{ metric = \"a\", action = \"keep\", tags = [] }]", "expected a list of { metric, action"),
        ("[log]\nlevel = \"info\"\nlevel = \"warn\"", "sidecar.toml:3: duplicate key"),
        ("[log\n", "sidecar.toml:1: "),
        ("[statsd]\nlisten = [\"0.0.0.0:8125\"]", "it needs statsd.non_local = true"),
        (
            "[page]\nlisten = \"0.0.0.0:7070\"",
            "expected a loopback address, such as \"127.0.0.1:7070\" (kubectl port-forward reaches it), or page.token_file",
        ),
        ("[profile]\nurl = \"http://10.0.0.9:6060/debug/pprof\"", "or profile.allow_hosts = [\"10.0.0.9\"]"),
        ("[profile]\nurl = \"https://127.0.0.1:6060/debug/pprof\"", "expected plain http"),
        (
            "[page]\ntoken_file = \"/nowhere/token\"",
            "sidecar.toml:2: page.token_file = \"/nowhere/token\": expected a file that can be read",
        ),
        ("[datadog]\noutput = \"intake\"", "set datadog.api_key_file, or DD_API_KEY"),
        ("[datadog]\noutput = \"agent\"", "datadog.agent.dogstatsd = \"udp://10.0.0.7:8125\", or DD_AGENT_HOST"),
        ("[health]\nlisten = \"0.0.0.0:7070\"", "expected another port than page.listen"),
    ];
    for (text, expected) in table {
        let told = faults(text, &[]);
        assert!(told.len() == 1 && told[0].contains(expected), "{text}\n  expected {expected}\n  told {told:#?}");
    }
}

#[test]
fn a_socket_path_that_no_address_holds_is_refused() {
    let path = |length: usize| format!("[statsd]\nsocket = \"/{}\"", "x".repeat(length - 1));
    fine(&path(107), &[]);
    assert!(faults(&path(108), &[])[0].contains("of at most 107 bytes"));
}

#[test]
fn an_agent_at_our_own_socket_is_refused() {
    for key in ["socket", "stream_socket"] {
        let text = format!("[statsd]\n{key} = \"/run/s\"");
        let told = faults(&text, &[("DD_DOGSTATSD_URL", "unix:///run/s")]);
        assert!(told[0].contains("our own listener"), "{told:?}");
    }
}

#[test]
fn windows_towards_an_agent_divide_its_own() {
    let agent = ("DD_AGENT_HOST", "10.0.0.7");
    for (interval, fits) in [(1, true), (2, true), (3, false), (5, true), (10, true), (20, false), (60, false)] {
        let text = format!("[aggregate]\ninterval = \"{interval}s\"");
        assert!(fits || faults(&text, &[agent])[0].contains("1s, 2s, 5s or 10s"), "{interval}");
        if fits {
            fine(&text, &[agent]);
        }
    }
}

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_file() {
    let told = faults(
        "[statsd]\nmax_datagram = \"big\"\nlistn = []\n[log]\nformat = \"xml\"\n",
        &[("OOMWATCH_RUN__SHUTDOWN_TIMEOUT", "8"), ("OOMWATCH_RUN__TIMEOUT", "8s"), ("APP_MEMORY_LIMIT", "lots")],
    );
    let sources: Vec<&str> = told.iter().map(|fault| fault.split(": ").next().unwrap_or_default()).collect();
    let expected = [
        "sidecar.toml:2",
        "sidecar.toml:3",
        "sidecar.toml:5",
        "APP_MEMORY_LIMIT",
        "OOMWATCH_RUN__SHUTDOWN_TIMEOUT",
        "OOMWATCH_RUN__TIMEOUT",
    ];
    assert_eq!(sources, expected, "{told:#?}");
}

#[test]
fn a_bad_variable_is_told_by_its_name() {
    let table = [
        (
            ("OOMWATCH_LOG__LEVL", "info"),
            "OOMWATCH_LOG__LEVL: unknown variable OOMWATCH_LOG__LEVL, did you mean \"OOMWATCH_LOG__LEVEL\"?",
        ),
        (("OOMWATCH_LOG_LEVEL", "info"), "did you mean \"OOMWATCH_LOG__LEVEL\"?"),
        (("OOMWATCH_LOG__LEVEL", "loud"), "OOMWATCH_LOG__LEVEL: log.level = \"loud\": expected"),
        (
            ("DD_DOGSTATSD_URL", "10.0.0.7:8125"),
            "DD_DOGSTATSD_URL: datadog.agent.dogstatsd = \"10.0.0.7:8125\": expected \"udp://host:port\"",
        ),
        (
            ("DD_SITE", "https://datadoghq.eu"),
            "DD_SITE: datadog.site = \"https://datadoghq.eu\": expected a site without scheme",
        ),
        (
            ("DD_AGENT_HOST", "127.0.0.1"),
            "DD_AGENT_HOST: datadog.agent.dogstatsd = \"udp://127.0.0.1:8125\": expected the real Agent's address",
        ),
        (("DD_DOGSTATSD_URL", "udp://localhost:8125"), "this is our own listener"),
        (("DD_DOGSTATSD_URL", "udp://[::1]"), "this is our own listener"),
        (("DD_DOGSTATSD_URL", "udp://0.0.0.0:8125"), "this is our own listener"),
        (("OOMWATCH_AGGREGATE__MAX_CONTEXTS", "-1"), "expected a whole number, such as 6"),
    ];
    for (variable, expected) in table {
        let told = faults("", &[variable]);
        assert!(told.len() == 1 && told[0].contains(expected), "{variable:?}\n  expected {expected}\n  told {told:#?}");
    }
}

#[test]
fn our_variable_beats_datadogs_which_beats_the_file_which_beats_the_default() {
    let file = "[datadog]\nenv = \"file\"\n";
    let origin = |variables: &[(&str, &str)]| {
        let loaded = load(file, variables).expect("fine");
        let shown = loaded.show();
        let line = shown.lines().find(|line| line.starts_with("env = ")).expect("env is shown").to_owned();
        (loaded.config.datadog.env.clone(), line)
    };
    assert_eq!(fine("", &[]).datadog.env, None);
    assert_eq!(origin(&[]), (Some("file".into()), "env = \"file\"  # from sidecar.toml:2".into()));
    let dd = ("DD_ENV", "dd");
    assert_eq!(origin(&[dd]), (Some("dd".into()), "env = \"dd\"  # from DD_ENV".into()));
    let ours = ("OOMWATCH_DATADOG__ENV", "ours");
    assert_eq!(origin(&[dd, ours]), (Some("ours".into()), "env = \"ours\"  # from OOMWATCH_DATADOG__ENV".into()));
    assert_eq!(origin(&[("DD_ENV", "")]).0, Some("file".into()), "an empty DD_ variable is not set");
    assert_eq!(origin(&[("OOMWATCH_DATADOG__ENV", "")]).0, None, "an empty one of ours clears");
}

#[test]
fn values_arrive_typed_from_variables() {
    let config = fine(
        "",
        &[
            ("OOMWATCH_STATSD__LISTEN", "127.0.0.1:0, [::1]:0"),
            ("OOMWATCH_STATSD__MAX_DATAGRAM", "16KiB"),
            ("OOMWATCH_AGGREGATE__INTERVAL", "1s"),
            ("OOMWATCH_AGGREGATE__COUNTERS", "count"),
            ("OOMWATCH_WATCH__LIMIT", "512MiB"),
            ("OOMWATCH_WATCH__PID", "17"),
            ("OOMWATCH_WATCH__TREE", "false"),
            ("OOMWATCH_ALERT__EXPECTED", "192MiB"),
            ("APP_MEMORY_LIMIT", "268435456"),
        ],
    );
    assert_eq!(config.statsd.listen.len(), 2);
    assert_eq!(config.statsd.max_datagram, ByteSize(16_384));
    assert_eq!(config.aggregate.interval, Duration::from_secs(1));
    assert_eq!(config.aggregate.counters, Counters::Count);
    assert_eq!(config.watch.limit, Limit::Fixed(ByteSize(512 << 20)));
    assert_eq!((config.watch.pid, config.watch.tree), (Some(17), false));
    assert_eq!(config.alert.expected, Some(ByteSize(192 << 20)));
    assert_eq!(config.app_memory_limit, Some(ByteSize(268_435_456)));
}

#[test]
fn datadogs_variables_work_as_its_users_expect() {
    let config = fine(
        "",
        &[
            ("DD_API_KEY", "0123456789abcdef0123456789abcdef"),
            ("DD_URL", "http://127.0.0.1:9000/"),
            ("DD_DD_URL", "https://second.example"),
            ("DD_HOSTNAME", "web-1"),
            ("DD_SERVICE", "worker"),
            ("DD_VERSION", "1.10"),
            ("DD_TAGS", "team:payments env:staging"),
            ("DD_TRACE_AGENT_URL", "unix:///var/run/datadog/apm.socket"),
            ("POD_NAME", "worker-7f9"),
            ("POD_NAMESPACE", "shop"),
            ("HTTPS_PROXY", "http://user:pw@proxy:3128"),
            ("NO_PROXY", "a.example b.example"),
            ("DD_ENV", "prod"),
        ],
    );
    let Output::Intake { base_url, api_key, api_key_file } = &config.output else { panic!("{:?}", config.output) };
    assert_eq!(
        (base_url.as_str(), api_key.masked().as_str(), api_key_file),
        ("http://127.0.0.1:9000", "****cdef", &None)
    );
    let tags = [
        "team:payments",
        "env:staging",
        "service:worker",
        "version:1.10",
        "pod_name:worker-7f9",
        "kube_namespace:shop",
    ];
    assert_eq!(config.identity.tags, tags, "a tag that is given stands above the one that would be made");
    assert_eq!(config.identity.hostname.as_deref(), Some("web-1"));
    assert_eq!(config.proxy.https.as_ref().map(|proxy| proxy.expose()), Some("http://user:pw@proxy:3128"));
    assert_eq!(config.proxy.no_proxy, "a.example,b.example");
    assert!(!format!("{config:?}").contains("0123456789") && !format!("{config:?}").contains("pw@"), "{config:?}");
}

#[test]
fn auto_is_the_intake_with_a_key_else_the_agent_with_an_address_else_none() {
    let key = ("DD_API_KEY", "0123456789abcdef0123456789abcdef");
    let pod = ("POD_NAME", "worker-7f9");
    let agent = ("DD_AGENT_HOST", "10.0.0.7");
    assert_eq!(fine("", &[]).output, Output::None);
    assert_eq!(fine("", &[agent]).output, Output::Agent(AgentAddress::Udp("10.0.0.7".into(), 8125)));
    assert_eq!(
        fine("", &[agent, ("DD_DOGSTATSD_PORT", "9125"), ("DD_DOGSTATSD_URL", "unix:///run/dd.sock")]).output,
        Output::Agent(AgentAddress::Unix("/run/dd.sock".into()))
    );
    assert!(matches!(fine("", &[agent, key, pod]).output, Output::Intake { .. }));
    assert_eq!(fine("[datadog]\noutput = \"none\"", &[agent, key]).output, Output::None);
    let loopback = ("DD_AGENT_HOST", "127.0.0.1");
    assert!(
        matches!(fine("", &[loopback, key, pod]).output, Output::Intake { .. }),
        "an address that is not used does no harm: DD_AGENT_HOST is often set for the whole pod"
    );
    assert_eq!(
        fine("[statsd]\nlisten = [\"127.0.0.1:9125\"]", &[loopback]).output,
        Output::Agent(AgentAddress::Udp("127.0.0.1".into(), 8125)),
        "an Agent on loopback at another port is another process"
    );
}

#[test]
fn the_intake_needs_a_host_name_or_a_pod_tag() {
    let key = ("DD_API_KEY", "0123456789abcdef0123456789abcdef");
    let told = faults("", &[key, ("NODE_NAME", "node-1")]);
    assert!(told.len() == 1 && told[0].contains("replicas overwrite one another; set POD_NAME"), "{told:?}");
    for name in [("POD_NAME", "worker-7f9"), ("DD_HOSTNAME", "web-1"), ("DD_TAGS", "pod_name:x")] {
        assert!(matches!(fine("", &[key, name]).output, Output::Intake { .. }), "{name:?}");
    }
    assert_eq!(
        fine("", &[key, ("POD_NAME", "p"), ("NODE_NAME", "node-1")]).identity.hostname.as_deref(),
        Some("node-1")
    );
}

#[test]
fn the_key_never_travels_in_the_clear() {
    let variables =
        [("DD_API_KEY", "0123456789abcdef0123456789abcdef"), ("POD_NAME", "p"), ("DD_URL", "http://intake.example")];
    assert!(faults("", &variables)[0].contains("the key would travel in the clear"));
}

#[test]
fn a_key_file_is_read_and_masked_and_a_bad_one_is_not_quoted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("api-key");
    let path = path.to_str().expect("UTF-8");
    let file = format!("[datadog]\napi_key_file = \"{path}\"\nhostname = \"h\"\n");
    std::fs::write(path, "fedcba9876543210fedcba9876543210\n").expect("written");

    let loaded = load(&file, &[]).expect("fine");
    let Output::Intake { api_key, api_key_file, .. } = &loaded.config.output else {
        panic!("{:?}", loaded.config.output)
    };
    assert_eq!(api_key.expose(), "fedcba9876543210fedcba9876543210");
    assert_eq!(api_key_file.as_deref(), Some(Path::new(path)));
    assert!(!loaded.show().contains("fedcba98") && loaded.show().contains("****3210"), "{}", loaded.show());

    let dd = ("DD_API_KEY", "0123456789abcdef0123456789abcdef");
    let from = |variables: &[(&str, &str)]| match fine(&file, variables).output {
        Output::Intake { api_key_file, .. } => api_key_file.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(!from(&[dd]), "DD_API_KEY stands above a file named in sidecar.toml");
    assert!(from(&[dd, ("OOMWATCH_DATADOG__API_KEY_FILE", path)]), "and below one named by our variable");

    std::fs::write(path, "two secret\nlines").expect("written");
    let told = faults(&file, &[]).join("\n");
    assert!(told.contains("expected a file with one line") && !told.contains("secret\n"), "{told}");
}

#[test]
fn variables_of_a_kubernetes_service_named_oomwatch_are_passed_over() {
    let config = fine("", &[("OOMWATCH_SERVICE_HOST", "10.0.0.1"), ("OOMWATCH_PORT", "tcp://10.0.0.1:9464")]);
    assert_eq!(config, Config::default());
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let told = config::load(Some(Path::new("/nowhere/sidecar.toml")), &env(&[])).expect_err("it is not there");
    assert!(told[0].to_string().starts_with("/nowhere/sidecar.toml: cannot read the settings"), "{told:?}");
    let told = config::load(None, &env(&[("OOMWATCH_CONFIG", "/nowhere/else.toml")])).expect_err("it is not there");
    assert!(told[0].to_string().starts_with("/nowhere/else.toml: "), "{told:?}");
}

proptest::proptest! {
    #[test]
    fn any_file_is_read_or_refused_but_never_panics(
        text in "(\\[(statsd|watch|datadog|datadog\\.agent|x)\\]\n|(listen|limit|pid|agent|url|mapper) = (\"[^\"]{0,9}\"|[0-9a-z\\[{.]{0,6})\n|.{0,8}\n){0,6}",
        value in ".{0,12}",
    ) {
        let variables = [("OOMWATCH_STATSD__LISTEN", value.as_str()), ("DD_AGENT_HOST", &value), ("DD_TAGS", &value)];
        let _ = load(&text, &variables);
    }
}

#[test]
fn the_schema_knows_every_key_with_its_default() {
    let schema = config::schema();
    for key in config::keys() {
        let pointer = format!("/properties/{}", key.path().replace('.', "/properties/"));
        let property = schema.pointer(&pointer).unwrap_or_else(|| panic!("{pointer}"));
        assert!(property["description"].as_str().is_some_and(|text| text.len() > 10), "{pointer} has no description");
        assert!(!property["default"].is_null(), "{pointer} has no default");
    }
    assert_eq!(schema.pointer("/properties/datadog/properties/agent/additionalProperties"), Some(&false.into()));
}

#[test]
fn what_is_shown_reads_back_as_the_same_settings() {
    let loaded = load("[watch]\nname = \"a\\\"b\"\nlimit = 1048576\n[datadog]\ntags = [\"a:1\"]", &[]).expect("fine");
    assert_eq!(fine(&loaded.show(), &[]), loaded.config);
}

#[test]
fn files_made_from_tables_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = [
        ("sidecar.toml", config::sample()),
        ("docs/configuration.md", config::docs()),
        ("docs/metrics.md", oomwatch::telemetry::markdown()),
        ("docs/datadog/metadata.csv", oomwatch::telemetry::metadata_csv()),
    ];
    let write = std::env::var_os("OOMWATCH_WRITE_DOCS").is_some();
    for (name, text) in made {
        if write {
            std::fs::write(root.join(name), &text).expect("the checkout can be written");
        }
        let found = std::fs::read_to_string(root.join(name)).unwrap_or_default();
        assert!(found == text, "{name} is not what the table makes: OOMWATCH_WRITE_DOCS=1 cargo test --test config");
    }
    let sample = std::fs::read_to_string(root.join("sidecar.toml")).expect("it was just compared");
    assert_eq!(fine(&sample, &[]), Config::default(), "sidecar.toml equals the defaults");
}
