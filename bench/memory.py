#!/usr/bin/env python3
"""memory.py BIN LOADGEN flood|steady [MINUTES]: the resident memory of one sidecar. docs/benchmarks.md has the figures.

flood: idle; 10,000 contexts at 50,000 messages a second; 100,000 at that rate, then flat out; a minute after the last of them.
steady: 5,000 messages a second of 1,000 contexts into intake mode, its payloads to httpsink.py: the most, and the slope. With MEMORY_TRACE each
second's figure goes to stderr.
Messages are those of workload C (68 bytes, 5 tags; half counters, 20 % gauges, 20 % distributions, 10 % timings).
"""
import os, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request

BIN, LOADGEN, WHAT = sys.argv[1:4]
MINUTES = float(sys.argv[4]) if len(sys.argv) > 4 else 30
HERE = os.path.dirname(os.path.abspath(__file__))
STEADY_MIB, STEADY_SLOPE = 24, 0.1  # MiB, and MiB per 10 minutes
FULL_SECONDS = 1_100  # the page's chart holds 1,000 readings, one a second


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(0.05)


class Sidecar:
    """The program on free ports; it watches this script, which holds still."""

    def __init__(self, **settings):
        self.port, self.health = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OOMWATCH_", "DD_", "MALLOC_"))}
        env |= {"OOMWATCH_STATSD__LISTEN": f"127.0.0.1:{self.port}", "OOMWATCH_STATSD__SOCKET": "",
                "OOMWATCH_HEALTH__LISTEN": f"127.0.0.1:{self.health}", "OOMWATCH_PAGE__LISTEN": "127.0.0.1:0",
                "OOMWATCH_WATCH__PID": str(os.getpid())}
        env |= {key: str(value) for key, value in settings.items()}
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([BIN, "run"], env=env, stdout=self.log, stderr=self.log)
        wait_for("ready", self.ready)

    def ready(self):
        if self.process.poll() is not None:
            self.log.seek(0)
            raise SystemExit(self.log.read().decode())
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=5).status == 200
        except OSError:
            return False

    def metric(self, name):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.health}/metrics", timeout=5).read().decode()
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))

    def send(self, contexts, seconds, rate=0):
        command = [LOADGEN, "--udp", f"127.0.0.1:{self.port}", "--pack", "20", "--maxbytes", "1432", "--mix",
                   "c=50,g=20,d=20,ms=10", "--contexts", str(contexts), "--seconds", str(seconds)]
        return subprocess.Popen(command + (["--mrate", str(rate)] if rate else []), stdout=subprocess.DEVNULL)

    def memory(self):
        """Resident, at the most so far, and of what is resident what belongs to no file, in MiB."""
        words = dict(line.split(":", 1) for line in open(f"/proc/{self.process.pid}/status"))
        return [int(words[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM", "RssAnon")]

    def say(self, what):
        resident, most, anonymous = self.memory()
        print(f"{what:42} {resident:6.1f} MiB resident, {anonymous:6.1f} anonymous, {most:6.1f} at the most", flush=True)
        return resident

    def most_while(self, sender):
        most = 0
        while sender.poll() is None:
            most = max(most, self.memory()[0])
            time.sleep(0.1)
        return most

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def flood():
    settings = {"OOMWATCH_DATADOG__OUTPUT": "none", "OOMWATCH_AGGREGATE__COUNTER_EXPIRY": "20s"}
    sidecar = Sidecar(**settings)
    time.sleep(5)
    sidecar.say("idle")
    most = sidecar.most_while(sidecar.send(10_000, 25, 50_000))
    sidecar.say("10,000 contexts, 50,000/s, 25 s")
    print(f"{'':42} {most:6.1f} MiB at the most meanwhile")
    sidecar.stop()
    sidecar = Sidecar(OOMWATCH_AGGREGATE__MAX_CONTEXTS=200000, OOMWATCH_AGGREGATE__MAX_BYTES="256MiB", **settings)
    time.sleep(3)
    idle = sidecar.say("idle")
    sidecar.send(100_000, 20, 50_000).wait()
    sidecar.say("100,000 contexts, 50,000/s, 20 s")
    sidecar.send(100_000, 4).wait()
    sidecar.say("then flat out, 4 s")
    time.sleep(15)
    sidecar.say("15 s later")
    wait_for("contexts expire", lambda: sidecar.metric("oomwatch_statsd_contexts") < 1000, 120)
    time.sleep(25)
    print(f"{sidecar.say('expired, memory given back') - idle:+.1f} MiB against idle")
    sidecar.stop()


def slope(series, column):
    """MiB per 10 minutes of a least-squares fit to (seconds, MiB…)."""
    return statistics.linear_regression([row[0] for row in series], [row[column] for row in series]).slope * 600


def steady():
    port, stats = free_port(socket.SOCK_STREAM), tempfile.NamedTemporaryFile()
    intake = subprocess.Popen([sys.executable, f"{HERE}/httpsink.py", str(port), stats.name])
    try:
        run_steady(port)
    finally:
        intake.terminate()


def run_steady(port):
    sidecar = Sidecar(OOMWATCH_DATADOG__OUTPUT="intake", OOMWATCH_DATADOG__URL=f"http://127.0.0.1:{port}",
                      DD_API_KEY="0" * 32, DD_HOSTNAME="steady")
    sender, began, series = sidecar.send(1_000, int(MINUTES * 60), 5_000), time.monotonic(), []
    while sender.poll() is None:
        resident, most, anonymous = sidecar.memory()
        at = time.monotonic() - began
        if at >= 120:
            series.append((at, resident, anonymous))
        if os.environ.get("MEMORY_TRACE"):
            print(f"{at:.0f} s {resident:.2f} MiB, {anonymous:.2f} anonymous", file=sys.stderr, flush=True)
        time.sleep(1)
    samples = sidecar.metric("oomwatch_statsd_samples_total")
    sidecar.say(f"{MINUTES:g} minutes at 5,000/s, {samples:,.0f} samples")
    sidecar.stop()
    if len(series) < 60:
        raise SystemExit("too short for a slope: at least 3 minutes")
    grows, anonymous = slope(series, 1), slope(series, 2)
    later = [row for row in series if row[0] >= FULL_SECONDS]
    if len(later) >= 300:
        print(f"after {FULL_SECONDS} s, when the chart is full: {slope(later, 1):+.3f} MiB per 10 minutes")
    print(f"most {most:.1f} MiB (may be {STEADY_MIB}), slope {grows:+.3f} MiB per 10 minutes (may be {STEADY_SLOPE}), "
          f"of anonymous memory {anonymous:+.3f}")
    if most > STEADY_MIB or grows > STEADY_SLOPE:
        raise SystemExit("FAILED")


{"flood": flood, "steady": steady}[WHAT]()
