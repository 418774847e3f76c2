// Command clients sends a known set through Datadog's own client for Go and prints what it sent, as JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
)

// sent is what the intake must have in the end. Series are named `name|tag,tag`, tags sorted.
type sent struct {
	Calls         int                        `json:"calls"`
	Counters      map[string]float64         `json:"counters"`
	Gauges        map[string]float64         `json:"gauges"`
	Sets          map[string]map[string]bool `json:"sets"`
	Histograms    map[string][]float64       `json:"histograms"`
	Distributions map[string][]float64       `json:"distributions"`
	Event         map[string]any             `json:"event"`
	Check         map[string]any             `json:"check"`
	Dropped       map[string]uint64          `json:"dropped"`
}

func main() {
	address := flag.String("address", "127.0.0.1:8125", "host:port, unix://PATH, unixgram://PATH or unixstream://PATH")
	aggregation := flag.String("aggregation", "basic", "in the client: none, basic (its default) or extended")
	calls := flag.Int("calls", 2000, "metric calls")
	flag.Parse()

	client, err := statsd.New(*address, options(*aggregation)...)
	if err != nil {
		log.Fatal(err)
	}
	all := &sent{
		Counters: map[string]float64{}, Gauges: map[string]float64{}, Sets: map[string]map[string]bool{},
		Histograms: map[string][]float64{}, Distributions: map[string][]float64{},
	}
	for n := range *calls {
		must(all.metric(client, n))
		// A pace that the smallest receive buffer bears.
		if n%10 == 9 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	must(all.eventAndCheck(client))
	must(client.Flush())
	told := client.GetTelemetry()
	must(client.Close())
	all.Dropped = map[string]uint64{
		"on_receive": told.TotalDroppedOnReceive, "payloads": told.TotalPayloadsDropped, "bytes": told.TotalBytesDropped,
	}
	must(json.NewEncoder(os.Stdout).Encode(all))
}

func options(aggregation string) []statsd.Option {
	// On a Unix socket the client waits for the reader, 100 ms unless told otherwise: a busy machine may take longer.
	options := []statsd.Option{statsd.WithTags([]string{"stadt:köln"}), statsd.WithWriteTimeout(10 * time.Second)}
	switch aggregation {
	case "none":
		return append(options, statsd.WithoutClientSideAggregation())
	case "basic":
		return options
	case "extended":
		return append(options, statsd.WithExtendedClientSideAggregation())
	}
	log.Fatalf("-aggregation=%s: expected none, basic or extended", aggregation)
	return nil
}

// metric makes the n-th call. The other programs make the same.
func (all *sent) metric(client *statsd.Client, n int) error {
	all.Calls++
	tags := []string{fmt.Sprintf("shard:%d", n/8%3)}
	series := func(name string) string { return name + "|" + key(tags) }
	switch n % 8 {
	case 0:
		all.Counters[series("clients.jobs")] += float64(n % 50)
		return client.Count("clients.jobs", int64(n%50), tags, 1)
	case 1:
		all.Counters[series("clients.done")]++
		return client.Incr("clients.done", tags, 1)
	case 2:
		all.Gauges[series("clients.depth")] = float64(n) / 4
		return client.Gauge("clients.depth", float64(n)/4, tags, 1)
	case 3:
		member := fmt.Sprintf("u%d", n*31%97)
		if all.Sets[series("clients.users")] == nil {
			all.Sets[series("clients.users")] = map[string]bool{}
		}
		all.Sets[series("clients.users")][member] = true
		return client.Set("clients.users", member, tags, 1)
	case 4:
		return values(all.Histograms, series("clients.size"), n*7919%1000, func(value float64) error {
			return client.Histogram("clients.size", value, tags, 1)
		})
	case 5:
		return values(all.Histograms, series("clients.wait"), n*7919%500, func(value float64) error {
			return client.TimeInMilliseconds("clients.wait", value, tags, 1)
		})
	case 6:
		return values(all.Distributions, series("clients.latency"), n*7919%1000, func(value float64) error {
			return client.Distribution("clients.latency", value, tags, 1)
		})
	default:
		all.Counters[series("clients.undone")]--
		return client.Decr("clients.undone", tags, 1)
	}
}

func values(into map[string][]float64, series string, value int, send func(float64) error) error {
	into[series] = append(into[series], float64(value))
	return send(float64(value))
}

func (all *sent) eventAndCheck(client *statsd.Client) error {
	at := time.Now().Add(-time.Minute)
	all.Event = map[string]any{
		"title": "Ausfall: é", "text": "first line\nsecond | line", "date_happened": at.Unix(), "priority": "low",
		"alert_type": "error", "source_type_name": "shop", "host": "h1", "aggregation_key": "k1", "tags": own("kind:outage"),
	}
	// The client writes `m:` within a message as `m\:`, and neither the Agent nor we undo that.
	all.Check = map[string]any{
		"check": "clients.up", "host_name": "h2", "status": 2, "timestamp": at.Unix(), "message": `zu langsam\: 3 s`,
		"tags": own("kind:probe"),
	}
	event := statsd.Event{
		Title: "Ausfall: é", Text: "first line\nsecond | line", Timestamp: at, Priority: statsd.Low, AlertType: statsd.Error,
		SourceTypeName: "shop", Hostname: "h1", AggregationKey: "k1", Tags: []string{"kind:outage"},
	}
	if err := client.Event(&event); err != nil {
		return err
	}
	return client.ServiceCheck(&statsd.ServiceCheck{
		Name: "clients.up", Status: statsd.Critical, Timestamp: at, Hostname: "h2", Message: "zu langsam: 3 s",
		Tags: []string{"kind:probe"},
	})
}

// own is the tags of one call with those that the client adds by itself: from its options, and from DD_ENV and its like.
func own(tags ...string) []string {
	tags = append(tags, "stadt:köln")
	for name, variable := range map[string]string{"env": "DD_ENV", "service": "DD_SERVICE", "version": "DD_VERSION"} {
		if value := os.Getenv(variable); value != "" {
			tags = append(tags, name+":"+value)
		}
	}
	slices.Sort(tags)
	return tags
}

func key(tags []string) string { return strings.Join(own(tags...), ",") }

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
