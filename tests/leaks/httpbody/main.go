// Responses whose body is neither read nor closed: each keeps its connection, two goroutines, and the request.
package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"oomwatch.example/leaks/rig"
)

func main() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Write(make([]byte, 256<<10))
	}))
	rig.Run(15*time.Millisecond, func(leak bool) {
		response := post(server.URL)
		if response != nil && !leak {
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
	})
}

func post(url string) *http.Response {
	payload := make([]byte, 96<<10)
	rig.Touch(payload)
	response, err := http.Post(url, "application/octet-stream", bytes.NewReader(payload))
	if err != nil {
		return nil
	}
	return response
}
