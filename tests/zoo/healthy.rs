//! Healthy programs and the load they are under.

use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::pen::{Lodgers, Pen, Species, Tamed, file, free_port};
use crate::beast::beast;
use crate::support::wait_for;

/// PostgreSQL refuses root, and a user without a name: this is nobody.
const USER: u32 = 65_534;

/// Longer than any run: the load is ended with its animal.
const EVER: &str = "86400";

pub const SPECIES: [Species; 7] = [
    healthy("redis", &["redis-server", "redis-benchmark"], (192, 20), redis),
    healthy("postgresql", &["setpriv", "pg_ctlcluster"], (256, 10), postgresql),
    healthy("nginx", &["nginx", "wrk"], (64, 1), nginx),
    healthy("jvm", &["java", "javac"], (384, 100), jvm),
    healthy("node", &["node", "wrk"], (256, 40), node),
    healthy("go-gogc", &["go", "wrk"], (256, 55), go_by_ratio),
    healthy("go-memlimit", &["go", "wrk"], (256, 100), go_by_limit),
];

/// The sizes are the limit and the least that it must take, in MiB.
const fn healthy(
    name: &'static str,
    needs: &'static [&'static str],
    (limit_mib, least_mib): (u64, u64),
    start: fn(&Pen) -> Lodgers,
) -> Species {
    Species { name, needs, limit_mib, least_mib, start }
}

/// A cache that fills to two thirds of the limit within seconds and then replaces its oldest for ever.
fn redis(pen: &Pen) -> Lodgers {
    let (address, dir) = (free_port(), pen.path(""));
    let port = address.port().to_string();
    let mut command = pen.inside("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--maxmemory", "128mb"]);
    command.args(["--maxmemory-policy", "allkeys-lru", "--dir"]).arg(dir);
    let mut app = pen.spawn(&mut command, "app.log");
    pen.knock(address, &mut app);
    let mut words = vec!["redis-benchmark", "-p", &port, "-t", "set", "-r", "1000000", "-d", "512", "-n", "2000000000"];
    // In batches, so that the cache is full within the grace even on a busy machine.
    words.extend(["-c", "4", "-P", "16"]);
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
    initdb
        .args(identity)
        .arg(programs.join("initdb"))
        .args(["--no-sync", "--auth=trust", "-U", "zoo", "-D"])
        .arg(&data);
    succeed(&mut initdb);
    let port = address.port().to_string();
    let mut command = pen.inside("setpriv");
    command.args(identity).arg(programs.join("postgres")).arg("-D").arg(&data);
    command.args([
        "-p",
        &port,
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
    ]);
    let mut app = pen.spawn(command.args(["-c", "shared_buffers=64MB"]), "app.log");
    pen.knock(address, &mut app);
    let pgbench = programs.join("pgbench").display().to_string();
    let at = ["-h", "127.0.0.1", "-p", &port, "-U", "zoo"];
    // It listens before it lets anybody in.
    let mut is_ready = Command::new(programs.join("pg_isready"));
    is_ready.args(at).arg("-q");
    wait_for(Duration::from_secs(60), "PostgreSQL", || is_ready.status().unwrap().success().then_some(()));
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
