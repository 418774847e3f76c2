package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
	"github.com/hibiken/asynq"
)

// errGreylisted is what a mail server says to the first try of some deliveries; the next one succeeds.
var errGreylisted = errors.New("451 greylisted, try again later")

// mailer is what the jobs share.
type mailer struct {
	metrics    *statsd.Client
	statsdAddr string
	fixed      bool
	leakFrom   time.Time
}

func statsdOptions() []statsd.Option {
	return []statsd.Option{statsd.WithNamespace("shop."), statsd.WithTags([]string{"service:receipts"})}
}

// handleJob delivers one receipt and reports on it; asynq calls it once for each job and each retry.
//
// The leak: past the healthy start it opens a client of its own, flushes it, and never closes it. Each one keeps a
// socket, four goroutines and a pool of buffers for as long as the process lives.
func handleJob(ctx context.Context, task *asynq.Task, m *mailer) error {
	metrics := m.metrics
	if !m.fixed && time.Now().After(m.leakFrom) {
		opened, err := statsd.New(m.statsdAddr, statsdOptions()...)
		if err != nil {
			return fmt.Errorf("open a StatsD client: %w", err)
		}
		metrics = opened
	}
	defer metrics.Flush()

	var job receipt
	if err := json.Unmarshal(task.Payload(), &job); err != nil {
		return fmt.Errorf("decode the job: %w: %w", err, asynq.SkipRetry)
	}
	retried, _ := asynq.GetRetryCount(ctx)

	started := time.Now()
	bytes, err := deliver(ctx, job, retried)
	tags := []string{"region:" + job.Region, fmt.Sprintf("sent:%t", err == nil)}
	metrics.Incr("receipts.attempts", tags, 1)
	metrics.Timing("receipts.duration", time.Since(started), tags, 1)
	metrics.Gauge("receipts.retried", float64(retried), tags, 1)
	metrics.Distribution("receipts.size", float64(bytes), tags, 1)
	return err
}

// deliver stands for the mail server: it renders the receipt, takes a few milliseconds, and turns down the first
// try of one order in five.
func deliver(ctx context.Context, job receipt, retried int) (int, error) {
	body := fmt.Sprintf("Order %d for %s\n", job.Order, job.Customer)
	sum := sha256.Sum256([]byte(body))
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(5*time.Millisecond + time.Duration(sum[0])*100*time.Microsecond):
	}
	if job.Order%5 == 0 && retried == 0 {
		return 0, errGreylisted
	}
	return len(body), nil
}
