//! The known mistakes, by the code that a stack passes through: what kind of leak it is and how it is usually mended. One table,
//! which `docs/operations.md` repeats (a test); add a row and both the class and the mend follow. It never invents a mend.

use super::class::Class;
use super::counts::Counts;
use super::goroutines::Group;
use super::names;
use super::read::Frame;

const STATSD: &str = "make one StatsD client at start, reuse it, and close it at shutdown";
const HTTP: &str = "read and close every response body, and share one http.Client";
const CLIENT: &str = "make one client at start, reuse it, and close it at shutdown";
const TICKER: &str = "stop every time.NewTicker with defer ticker.Stop()";
const TIMER: &str = "in a loop, reuse one time.NewTimer in place of time.After, and stop it";
const ROWS: &str = "close rows where they are made: defer rows.Close()";
const CONTEXT: &str = "cancel every context that is made: defer cancel()";
const CHANNEL: &str = "let the goroutine end: select on ctx.Done() beside the channel, or close the channel";
const ENDLESS: &str = "let the goroutine end: give it a context and cancel it, or close what it serves";

/// What the code does in the stack that it is looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Allocates, in a heap stack. Makers alone: what else a library allocates may be a result that the app keeps.
    Makes,
    /// Runs a goroutine that stands for something open.
    Keeps,
}

use Role::{Keeps, Makes};

/// One row.
#[derive(Debug)]
struct Mistake {
    role: Role,
    /// Start of a full function name, or, with a leading `*`, a part of it.
    code: &'static str,
    /// Makes or keeps something to be closed; else the other signs tell the class.
    handle: bool,
    /// `""` where no mend fits all.
    mend: &'static str,
}

const fn row(role: Role, code: &'static str, handle: bool, mend: &'static str) -> Mistake {
    Mistake { role, code, handle, mend }
}

/// The first that fits wins, so the special stand first.
const MISTAKES: [Mistake; 28] = [
    row(Makes, "*/statsd.New", true, STATSD),
    row(Makes, "*/statsd.newStatsdBuffer", true, STATSD),
    row(Makes, "gopkg.in/alexcesaro/statsd.v2.New", true, STATSD),
    row(Makes, "github.com/smira/go-statsd.NewClient", true, STATSD),
    row(Makes, "net/http.(*Transport).dialConn", true, HTTP),
    row(Makes, "net/http.(*persistConn)", false, HTTP),
    row(Makes, "time.NewTicker", false, TICKER),
    row(Makes, "time.Tick", false, TICKER),
    row(Makes, "time.After", false, TIMER),
    row(Makes, "time.NewTimer", false, TIMER),
    row(Makes, "context.With", false, CONTEXT),
    row(Makes, "google.golang.org/grpc.NewClient", true, CLIENT),
    row(Makes, "google.golang.org/grpc.Dial", true, CLIENT),
    row(Makes, "database/sql.Open", true, CLIENT),
    row(Makes, "*redis/v9.NewClient", true, CLIENT),
    row(Makes, "*mongo.Connect", true, CLIENT),
    row(Makes, "*kafka-go.New", true, CLIENT),
    row(Makes, "net.(*Dialer)", true, ""),
    row(Makes, "net.Dial", true, ""),
    row(Makes, "os.Open", true, ""),
    row(Keeps, "*/statsd.(*", true, STATSD),
    row(Keeps, "net/http.(*persistConn)", true, HTTP),
    row(Keeps, "database/sql.(*Rows)", true, ROWS),
    row(Keeps, "google.golang.org/grpc", true, CLIENT),
    row(Keeps, "*/go-redis/", true, CLIENT),
    row(Keeps, "go.mongodb.org/mongo-driver/", true, CLIENT),
    row(Keeps, "github.com/segmentio/kafka-go", true, CLIENT),
    row(Keeps, "net.(*conn)", true, ""),
];

impl Mistake {
    /// Whether each is a descriptor: a connection or a file of Go's own, and not a client that may connect later.
    fn is_descriptor(&self) -> bool {
        self.code.starts_with("net") || self.code.starts_with("os.")
    }

    fn fits(&self, frame: &Frame) -> bool {
        match self.code.strip_prefix('*') {
            Some(part) => frame.function.contains(part),
            None => frame.function.starts_with(self.code),
        }
    }
}

/// Rows of a role that fit any frame of a stack.
fn found<'a>(role: Role, stack: &'a [&Frame]) -> impl Iterator<Item = &'static Mistake> + 'a {
    MISTAKES.iter().filter(move |row| row.role == role && stack.iter().any(|frame| row.fits(frame)))
}

fn mend(role: Role, stack: &[&Frame]) -> Option<&'static str> {
    found(role, stack).map(|row| row.mend).find(|mend| !mend.is_empty())
}

/// Whether a heap stack made a handle, and the counts beside it do not say other.
pub(super) fn makes_a_handle<'a>(stack: impl Iterator<Item = &'a Frame>, counts: Counts) -> bool {
    let (stack, no_descriptor) = (stack.collect::<Vec<&Frame>>(), counts.rules_out_handles(None));
    found(Makes, &stack).any(|row| row.handle && !(row.is_descriptor() && no_descriptor))
}

/// Whether a heap stack made a StatsD client.
pub(super) fn makes_a_statsd_client<'a>(stack: impl Iterator<Item = &'a Frame>) -> bool {
    found(Makes, &stack.collect::<Vec<&Frame>>()).any(|row| row.mend == STATSD)
}

/// What goroutines that pile up are, by where they stand and by what else there is more of.
pub(super) fn of_goroutines(groups: &[Group], counts: Counts) -> Class {
    let units = groups.first().map_or(0, |group| group.grew);
    let with_a_descriptor_each = counts.fds.is_some_and(|fds| units > 0 && fds >= units / 2);
    let no_descriptor = counts.rules_out_handles(Some(units));
    let of_row = |row: &Mistake| row.handle && !(row.is_descriptor() && no_descriptor);
    let keeps = |group: &Group| found(Keeps, &group.stack).any(of_row);
    let handles = with_a_descriptor_each || counts.clients(Some(units)).is_some() || groups.iter().any(keeps);
    if handles { Class::UnclosedHandle } else { Class::GoroutineLeak }
}

/// The mend for a heap stack, leaf first, by what the app called: frames from the owner on are the app's own affair.
pub(super) fn of_heap<'a>(stack: impl Iterator<Item = &'a Frame>) -> Option<&'static str> {
    let called: Vec<&Frame> = stack.take_while(|frame| names::kind(frame) != names::Kind::App).take(64).collect();
    mend(Makes, &called)
}

/// The mend for goroutines of a library that pile up, where it is known.
pub(super) fn of_library(group: &Group) -> Option<&'static str> {
    mend(Keeps, &group.stack)
}

/// The mend for goroutines that pile up: the library's if it is known, else by what they wait on.
pub(super) fn of_goroutine(group: &Group) -> Option<&'static str> {
    of_library(group).or(match group.waits_on()? {
        "a channel send" | "a channel receive" => Some(CHANNEL),
        "a select" | "the network" => Some(ENDLESS),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::goroutines::Groups;
    use super::super::testing;
    use super::*;

    fn mend(stack: &[&str]) -> Option<&'static str> {
        let profile = testing::heap(&[(stack, 1)]);
        of_heap(profile.stack(testing::stacks(&profile)[0]).map(|at| &profile.frames[at as usize]))
    }

    #[test]
    fn the_usual_leaks_have_a_mend() {
        let app = "main.f main.go 1";
        let cases: [(&[&str], Option<&str>); 6] = [
            (&["github.com/DataDog/datadog-go/v5/statsd.newStatsdBuffer d@v5.9.1/b.go 1", app], Some(STATSD)),
            (
                &["bufio.NewReaderSize bufio/bufio.go 1", "net/http.(*Transport).dialConn net/http/transport.go 1"],
                Some(HTTP),
            ),
            (&["time.newTimer time/sleep.go 1", "time.NewTicker time/tick.go 1", app], Some(TICKER)),
            (&["time.NewTimer time/sleep.go 1", "time.After time/sleep.go 1", app], Some(TIMER)),
            (&["bytes.growSlice bytes/buffer.go 1", app], None),
            (&[app, "time.NewTicker time/tick.go 1"], None),
        ];
        for (stack, expected) in cases {
            assert_eq!(mend(stack), expected, "{stack:?}");
        }
    }

    #[test]
    fn a_goroutine_stuck_on_a_channel_has_one_too() {
        let stack: &[&str] =
            &["runtime.gopark runtime/proc.go 1", "runtime.chanrecv1 runtime/chan.go 1", "main.f main.go 1"];
        let now = testing::goroutines(&[(stack, 9)]);
        assert_eq!(of_goroutine(&Groups::between(None, &now).groups[0]), Some(CHANNEL));
    }

    #[test]
    fn the_page_of_operations_lists_every_known_mistake() {
        let page = include_str!("../../docs/operations.md");
        for Mistake { role, code, handle, mend } in &MISTAKES {
            let role = if *role == Makes { "allocates" } else { "runs a goroutine" };
            let class = if *handle { "unclosed handle" } else { "" };
            let line =
                format!("| `{code}` | {role} | {class} | {mend} |").replace("|  |", "| |").replace("|  |", "| |");
            assert!(page.contains(&line), "docs/operations.md lacks the line\n{line}");
        }
    }
}
