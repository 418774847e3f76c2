//! Keeps the readings of an animal, so that other rules can be asked afterwards what they would have said: one file each in
//! `target/zoo`, in the form that `oomwatch replay` reads.
//!
//! The page's own readings are thinned and bounded, and tell resident memory instead of what the rules go by. So the recorder
//! looks for itself, with the eyes of the sidecar.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use oomwatch::source::sampler::{Limit, Looker, Settings};
use tokio::time::Instant;

use super::pen::{Lodgers, Pen};
use crate::support::root;

const PERIOD: Duration = Duration::from_secs(1);

pub struct Recorder {
    looker: Looker,
    began: Instant,
    due: Duration,
    file: File,
}

impl Recorder {
    pub fn new(name: &str, pen: &Pen, lodgers: &Lodgers) -> Recorder {
        let dir = root().join("target/zoo");
        std::fs::create_dir_all(&dir).unwrap();
        let mut file = File::create(dir.join(format!("{}.csv", name.replace(' ', "-")))).unwrap();
        writeln!(file, "t_s,rss_bytes,working_set_bytes,threads,limit_bytes,incarnation").unwrap();
        let pid = Some(i32::try_from(lodgers.app.0.id()).unwrap());
        let limit = Limit::Fixed(pen.limit);
        let looker = Looker::new(Settings { pid, limit, pprof_port: None, ..Settings::default() });
        Recorder { looker, began: Instant::now(), due: Duration::ZERO, file }
    }

    /// Looks when a second has passed since the last look.
    pub fn look(&mut self) {
        let at = self.began.elapsed();
        if at < self.due {
            return;
        }
        self.due = at + PERIOD;
        let seen = self.looker.look(at);
        if seen.target.is_none() {
            return;
        }
        let field = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let figures =
            [seen.reading.memory_bytes, seen.working_set_bytes, seen.reading.threads, seen.reading.limit_bytes];
        let figures = figures.map(field).join(",");
        writeln!(self.file, "{:.3},{figures},{}", at.as_secs_f64(), seen.reading.incarnation).unwrap();
    }
}
