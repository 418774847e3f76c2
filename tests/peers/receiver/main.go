// Command receiver is the StatsD receiver of the OpenTelemetry collector, as it is, with a consumer that prints what it was
// given: one JSON object a data point. Its argument is the path of its datagram socket; it ends with its standard input.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"

	"github.com/open-telemetry/opentelemetry-collector-contrib/receiver/statsdreceiver"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/receiver/receivertest"
)

// A point is a value, or for samples their number and sum.
type point struct {
	Name  string         `json:"name"`
	Type  string         `json:"type"`
	Tags  map[string]any `json:"tags"`
	Value float64        `json:"value"`
	Count uint64         `json:"count"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(path string) error {
	ctx := context.Background()
	factory := statsdreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	mapping := []any{}
	for _, kind := range []string{"timing", "histogram", "distribution"} {
		mapping = append(mapping, map[string]any{"statsd_type": kind, "observer_type": "histogram"})
	}
	settings := confmap.NewFromStringMap(map[string]any{
		"endpoint": path, "transport": "unixgram", "aggregation_interval": "1s", "timer_histogram_mapping": mapping,
	})
	if err := settings.Unmarshal(config); err != nil {
		return err
	}
	sink, err := consumer.NewMetrics(func(_ context.Context, metrics pmetric.Metrics) error { return tell(metrics) })
	if err != nil {
		return err
	}
	receiver, err := factory.CreateMetrics(ctx, receivertest.NewNopSettings(factory.Type()), config, sink)
	if err != nil {
		return err
	}
	if err := receiver.Start(ctx, componenttest.NewNopHost()); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return receiver.Shutdown(ctx)
}

func tell(metrics pmetric.Metrics) error {
	out := json.NewEncoder(os.Stdout)
	for _, resource := range metrics.ResourceMetrics().All() {
		for _, scope := range resource.ScopeMetrics().All() {
			for _, metric := range scope.Metrics().All() {
				for _, point := range points(metric) {
					if err := out.Encode(point); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

func points(metric pmetric.Metric) (found []point) {
	add := func(tags pcommon.Map, value float64, count uint64) {
		found = append(found, point{metric.Name(), metric.Type().String(), tags.AsRaw(), value, count})
	}
	switch metric.Type() {
	case pmetric.MetricTypeSum:
		for _, it := range metric.Sum().DataPoints().All() {
			add(it.Attributes(), number(it), 1)
		}
	case pmetric.MetricTypeGauge:
		for _, it := range metric.Gauge().DataPoints().All() {
			add(it.Attributes(), number(it), 1)
		}
	case pmetric.MetricTypeExponentialHistogram:
		for _, it := range metric.ExponentialHistogram().DataPoints().All() {
			add(it.Attributes(), it.Sum(), it.Count())
		}
	}
	return found
}

func number(it pmetric.NumberDataPoint) float64 {
	if it.ValueType() == pmetric.NumberDataPointValueTypeInt {
		return float64(it.IntValue())
	}
	return it.DoubleValue()
}
