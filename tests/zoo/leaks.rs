//! Leaks in runtimes that serve no pprof: what each keeps, and how it is started. All take a rate in MiB a second and a calm
//! time before it in seconds.

use std::process::Command;
use std::sync::OnceLock;

use super::pen::{Lodgers, Pen, Species, file};

/// All live below the limit of the story: 256 MiB.
const LIMIT_MIB: u64 = 256;

pub const SPECIES: [Species; 5] = [
    leak("python list", &["python3"], python),
    leak("node closure", &["node"], node),
    leak("jvm map", &["java", "javac"], jvm),
    leak("c malloc", &["cc"], c),
    leak("rust forget", &["rustc"], rust),
];

const fn leak(name: &'static str, needs: &'static [&'static str], start: fn(&Pen) -> Lodgers) -> Species {
    Species { name, needs, limit_mib: LIMIT_MIB, least_mib: 0, start }
}

/// Rate and calm of this run: the short form reaches the limit in some 75 s.
pub fn pace() -> &'static (f64, f64) {
    static PACE: OnceLock<(f64, f64)> = OnceLock::new();
    PACE.get_or_init(|| match std::env::var("OOMWATCH_ZOO_LEAK_SECONDS") {
        Ok(seconds) => (230.0 / seconds.parse::<f64>().expect("a number of seconds"), 60.0),
        Err(_) => (3.0, 0.0),
    })
}

fn started(pen: &Pen, mut command: Command) -> Lodgers {
    let (rate, calm) = pace();
    let app = pen.spawn(command.args([rate.to_string(), calm.to_string()]), "app.log");
    Lodgers { app, load: None, pprof: None }
}

fn python(pen: &Pen) -> Lodgers {
    let mut command = pen.inside("python3");
    command.arg(file("leaks/leak.py"));
    started(pen, command)
}

fn node(pen: &Pen) -> Lodgers {
    let mut command = pen.inside("node");
    command.args(["--max-old-space-size=512", &file("leaks/leak.mjs")]);
    started(pen, command)
}

/// The heap may outgrow the limit: a JVM that is kept below it dies of its own error instead.
fn jvm(pen: &Pen) -> Lodgers {
    let mut command = pen.inside("java");
    command.args(["-Xmx512m", &file("leaks/Leak.java")]);
    started(pen, command)
}

fn c(pen: &Pen) -> Lodgers {
    compiled(pen, "cc", "leaks/leak.c")
}

fn rust(pen: &Pen) -> Lodgers {
    compiled(pen, "rustc", "leaks/leak.rs")
}

fn compiled(pen: &Pen, compiler: &str, source: &str) -> Lodgers {
    let out = pen.path("leak");
    let output = Command::new(compiler).arg("-O").arg("-o").arg(&out).arg(file(source)).output().unwrap();
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    started(pen, pen.inside(&out.display().to_string()))
}
