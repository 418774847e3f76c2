package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
	"github.com/hibiken/asynq"
)

// sendReceipt is the type of the only task.
const sendReceipt = "receipt:send"

// receipt is the payload of a task.
type receipt struct {
	Order    int    `json:"order"`
	Customer string `json:"customer"`
	Region   string `json:"region"`
}

// enqueue adds rate jobs a second until ctx ends. A job that cannot be added is logged and left out.
func enqueue(ctx context.Context, redis asynq.RedisClientOpt, rate float64, metrics *statsd.Client) error {
	if rate <= 0 {
		return fmt.Errorf("-rate %g: expected jobs per second, above 0", rate)
	}
	queue := asynq.NewClient(redis)
	defer queue.Close()
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	for order := 1; ; order++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		task, err := newReceipt(order)
		if err != nil {
			return err
		}
		if _, err := queue.Enqueue(task, asynq.MaxRetry(3), asynq.Timeout(10*time.Second)); err != nil {
			log.Printf("enqueue order %d: %v", order, err)
			continue
		}
		metrics.Incr("receipts.enqueued", nil, 1)
	}
}

func newReceipt(order int) (*asynq.Task, error) {
	region := [...]string{"eu", "us", "ap"}[order%3]
	payload, err := json.Marshal(receipt{Order: order, Customer: fmt.Sprintf("customer-%d", order%500), Region: region})
	return asynq.NewTask(sendReceipt, payload), err
}
