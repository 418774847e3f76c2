// A DogStatsD client for each job: closed again (churn), never closed (leak), or one for all of them (shared). It begins when it is
// told where StatsD goes, with 160 jobs a minute.
package main

import (
	"fmt"
	"log"
	"os"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
)

func client(address string) *statsd.Client {
	made, err := statsd.New(address)
	if err != nil {
		log.Fatal(err)
	}
	return made
}

func main() {
	var address string
	fmt.Scanln(&address)
	shared := client(address)
	fmt.Println("begun")
	for range time.Tick(time.Minute / 160) {
		switch os.Args[1] {
		case "shared":
			shared.Incr("jobs", nil, 1)
		case "churn":
			own := client(address)
			own.Incr("jobs", nil, 1)
			own.Close()
		case "leak":
			own := client(address)
			own.Incr("jobs", nil, 1)
			own.Flush()
		}
	}
}
