//! Healthy programs and the load they are under.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::pen::{Lodgers, Pen, Species, Tamed, file, free_port};
use crate::support::root;

/// The user that PostgreSQL runs as, since it refuses root.
const USER: u32 = 10_001;

/// Longer than any run: the load is ended with its animal.
const EVER: &str = "86400";

pub const SPECIES: [Species; 7] = [
    Species {
        name: "redis",
        needs: &["redis-server", "redis-benchmark"],
        limit_mib: 192,
        least_mib: 120,
        start: redis,
    },
    Species { name: "postgresql", needs: &["setpriv", "pg_ctlcluster"], limit_mib: 256, least_mib: 20, start: postgresql },
    Species { name: "nginx", needs: &["nginx", "wrk"], limit_mib: 64, least_mib: 2, start: nginx },
    Species { name: "jvm", needs: &["java", "javac"], limit_mib: 384, least_mib: 150, start: jvm },
    Species { name: "node", needs: &["node", "wrk"], limit_mib: 256, least_mib: 50, start: node },
    Species { name: "go-gogc", needs: &["go", "wrk"], limit_mib: 256, least_mib: 60, start: go_by_ratio },
    Species { name: "go-memlimit", needs: &["go", "wrk"], limit_mib: 256, least_mib: 160, start: go_by_limit },
];

/// A cache that fills to two thirds of the limit within seconds and then replaces its oldest for ever.
fn redis(pen: &Pen) -> Lodgers {
    let (address, dir) = (free_port(), pen.path(""));
    let port = address.port().to_string();
    let mut command = pen.inside("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--maxmemory", "128mb"]);
    command.args(["--maxmemory-policy", "allkeys-lru", "--dir"]).arg(dir);
    let mut app = pen.spawn(&mut command, "app.log");
    pen.knock(address, &mut app);
    let words = ["redis-benchmark", "-p", &port, "-t", "set", "-r", "1000000", "-d", "512", "-c", "4", "-n", "2000000000"];
    Lodgers { load: Some(pen.load(&words)), app, pprof: None }
}

/// Debian keeps a version's programs off the PATH.
fn postgresql_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.map(|version| version.path().join("bin")).max().expect("pg_ctlcluster is there, and so is a version")
}

fn postgresql(pen: &Pen) -> Lodgers {
    let (address, programs, data) = (free_port(), postgresql_programs(), pen.path("data"));
    std::fs::create_dir(&data).unwrap();
    chown(&data, Some(USER), Some(USER)).unwrap();
    let user = USER.to_string();
    let identity = ["--reuid", &user, "--regid", &user, "--clear-groups", "--"];
    let mut initdb = Command::new("setpriv");
    initdb.args(identity).arg(programs.join("initdb")).args(["--no-sync", "--auth=trust", "-U", "zoo", "-D"]).arg(&data);
    succeed(&mut initdb);
    let port = address.port().to_string();
    let mut command = pen.inside("setpriv");
    command.args(identity).arg(programs.join("postgres")).arg("-D").arg(&data);
    command.args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]);
    let mut app = pen.spawn(command.args(["-c", "shared_buffers=64MB"]), "app.log");
    pen.knock(address, &mut app);
    let pgbench = programs.join("pgbench").display().to_string();
    let at = ["-h", "127.0.0.1", "-p", &port, "-U", "zoo"];
    succeed(Command::new(&pgbench).args(at).args(["-i", "-q", "-s", "5", "postgres"]));
    let load = [&[&pgbench[..]], &at[..], &["-c", "4", "-R", "200", "-T", EVER, "postgres"]].concat();
    Lodgers { load: Some(pen.load(&load)), app, pprof: None }
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn nginx(pen: &Pen) -> Lodgers {
    let (address, dir) = (free_port(), pen.path("").display().to_string());
    std::fs::write(pen.path("page"), vec![b'x'; 4 << 10]).unwrap();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {dir};"));
    let settings = format!(
        "daemon off; worker_processes 2; pid {dir}pid; error_log stderr;\nevents {{}}\n\
         http {{ access_log off; {} server {{ listen {address}; root {dir}; }} }}\n",
        temporary.join(" ")
    );
    std::fs::write(pen.path("conf"), settings).unwrap();
    let mut command = pen.inside("nginx");
    let mut app = pen.spawn(command.arg("-e").arg("stderr").arg("-c").arg(pen.path("conf")), "app.log");
    pen.knock(address, &mut app);
    Lodgers { load: Some(wrk(pen, &format!("http://{address}/page"))), app, pprof: None }
}

fn wrk(pen: &Pen, url: &str) -> Tamed {
    pen.load(&["wrk", "-t", "1", "-c", "8", "-d", EVER, url])
}

/// The heap may grow to 70 % of the limit, and a JVM takes its time to do so.
fn jvm(pen: &Pen) -> Lodgers {
    let heap = format!("-Xmx{}m", pen.limit * 7 / 10 / super::pen::MIB);
    let mut command = pen.inside("java");
    let app = pen.spawn(command.args([&heap, &file("Churn.java"), "100"]), "app.log");
    Lodgers { app, load: None, pprof: None }
}

fn node(pen: &Pen) -> Lodgers {
    let address = free_port();
    let mut command = pen.inside("node");
    let mut app = pen.spawn(command.args([file("server.mjs"), address.port().to_string()]), "app.log");
    pen.knock(address, &mut app);
    Lodgers { load: Some(wrk(pen, &format!("http://{address}/"))), app, pprof: None }
}

fn go_by_ratio(pen: &Pen) -> Lodgers {
    go(pen, &[("GOGC", "100")])
}

/// Collections are left to the soft limit, as is often advised: memory stands at nine tenths for ever.
fn go_by_limit(pen: &Pen) -> Lodgers {
    go(pen, &[("GOGC", "off"), ("GOMEMLIMIT", &(pen.limit * 9 / 10).to_string())])
}

fn go(pen: &Pen, env: &[(&str, &str)]) -> Lodgers {
    let address = free_port();
    let mut command = pen.inside(&beast().display().to_string());
    command.envs(env.iter().copied()).args(["-live", "50", "-listen", &address.to_string()]);
    let mut app = pen.spawn(&mut command, "app.log");
    pen.knock(address, &mut app);
    Lodgers { load: Some(wrk(pen, &format!("http://{address}/"))), app, pprof: Some(address) }
}

/// The Go program of the zoo, built once.
pub fn beast() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let out = root().join("target/zoo-beast");
        succeed(Command::new("go").args(["build", "-o"]).arg(&out).arg(".").current_dir(root().join("tests/zoo/go")));
        out
    };
    BUILT.get_or_init(build).clone()
}
