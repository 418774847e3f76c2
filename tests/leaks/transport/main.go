// A client with its own transport and roots for each request: the idle connections keep all of it.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"oomwatch.example/leaks/rig"
)

var roots []*x509.Certificate

func main() {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
	for range 500 {
		roots = append(roots, server.Certificate())
	}
	shared := newClient()
	rig.Run(25*time.Millisecond, func(leak bool) {
		if leak {
			fetch(newClient(), server.URL)
		} else {
			fetch(shared, server.URL)
		}
	})
}

func newClient() *http.Client {
	pool := x509.NewCertPool()
	for n, certificate := range roots {
		copied := *certificate
		copied.Raw = append([]byte{byte(n), byte(n >> 8)}, certificate.Raw...)
		pool.AddCert(&copied)
	}
	pool.AddCert(roots[0])
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

func fetch(client *http.Client, url string) {
	response, err := client.Get(url)
	if err == nil {
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
	}
}
