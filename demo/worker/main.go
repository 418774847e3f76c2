// Worker sends receipts from an asynq queue and reports to DogStatsD. It leaks: see handleJob.
//
// It is the program of oomwatch's demo and end-to-end tests, and a true copy of a mistake found in production: a
// StatsD client for every job and every retry, flushed and never closed. With -fixed it makes one and closes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
)

// options are the flags.
type options struct {
	statsd, pprof, redis string
	healthy              time.Duration
	rate                 float64
	fixed, untilEOF      bool
}

func main() {
	var opts options
	flag.StringVar(&opts.statsd, "statsd", "127.0.0.1:8125", "where DogStatsD listens: host:port or unix:///path")
	flag.StringVar(&opts.pprof, "pprof", "127.0.0.1:6060", "where to serve /debug/pprof; port 0 takes a free one")
	flag.StringVar(&opts.redis, "redis", "", "address of a Redis; empty runs one inside this process")
	flag.DurationVar(&opts.healthy, "healthy", 15*time.Second, "how long to use the one shared client before leaking")
	flag.Float64Var(&opts.rate, "rate", 5, "jobs enqueued per second; one in five is tried twice")
	flag.BoolVar(&opts.fixed, "fixed", false, "use the one shared client to the end")
	flag.BoolVar(&opts.untilEOF, "until-eof", false, "stop when standard input closes, so that no parent leaves it behind")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if opts.untilEOF {
		go func() { _, _ = io.Copy(io.Discard, os.Stdin); stop() }()
	}
	if err := run(ctx, opts); err != nil {
		log.Fatal(err)
	}
}

// run works until ctx ends, then lets running jobs finish and closes what it opened.
func run(ctx context.Context, opts options) error {
	closePprof, err := servePprof(opts.pprof)
	if err != nil {
		return err
	}
	defer closePprof()

	redis, closeRedis, err := connectRedis(opts.redis)
	if err != nil {
		return err
	}
	defer closeRedis()

	metrics, err := statsd.New(opts.statsd, statsdOptions()...)
	if err != nil {
		return fmt.Errorf("open the StatsD client: %w", err)
	}
	defer metrics.Close()

	server := asynq.NewServer(redis, asynq.Config{
		Concurrency:              4,
		RetryDelayFunc:           func(int, error, *asynq.Task) time.Duration { return time.Second },
		DelayedTaskCheckInterval: time.Second,
		ShutdownTimeout:          3 * time.Second,
		LogLevel:                 asynq.ErrorLevel,
	})
	mail := &mailer{metrics: metrics, statsdAddr: opts.statsd, fixed: opts.fixed, leakFrom: time.Now().Add(opts.healthy)}
	mux := asynq.NewServeMux()
	mux.HandleFunc(sendReceipt, func(ctx context.Context, task *asynq.Task) error { return handleJob(ctx, task, mail) })
	if err := server.Start(mux); err != nil {
		return fmt.Errorf("start the asynq server: %w", err)
	}
	defer server.Shutdown()

	return enqueue(ctx, redis, opts.rate, metrics)
}

// servePprof serves /debug/pprof and prints the address it got, which is news when port 0 was asked for.
func servePprof(addr string) (func() error, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for pprof: %w", err)
	}
	fmt.Printf("pprof http://%s/debug/pprof\n", listener.Addr())
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Printf("pprof: %v", err)
		}
	}()
	return server.Close, nil
}

// connectRedis names the Redis to use and starts one in this process when no address is given.
func connectRedis(addr string) (asynq.RedisClientOpt, func(), error) {
	if addr != "" {
		return asynq.RedisClientOpt{Addr: addr}, func() {}, nil
	}
	embedded, err := miniredis.Run()
	if err != nil {
		return asynq.RedisClientOpt{}, nil, fmt.Errorf("start the embedded Redis: %w", err)
	}
	return asynq.RedisClientOpt{Addr: embedded.Addr()}, embedded.Close, nil
}
