// Go's HTTP/2 as a server (`server CERT KEY`) or as a client of one (`client URL CA`), run as a process of its own.
//
// The server prints the ports that it listens on, in the clear and with TLS, and ends with its standard input. The
// client prints a line for each thing that it did.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
)

func check(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func main() {
	if os.Args[1] == "server" {
		serve(os.Args[2], os.Args[3])
	} else {
		ask(os.Args[2], os.Args[3])
	}
}

// the server

var cancelled = make(chan string, 100)

func handle(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/hello":
		w.Header().Set("X-Proto", r.Proto)
		fmt.Fprint(w, "hello")
	case "/echo":
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		copyFlushing(w, r.Body)
	case "/trailers":
		w.Header().Set("Trailer", "X-Sum")
		sum := sha256.New()
		size, _ := io.Copy(sum, r.Body)
		fmt.Fprintf(w, "%d %s", size, r.Trailer.Get("X-Asked"))
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sum.Sum(nil)))
	case "/early":
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(103)
		w.WriteHeader(204)
	case "/slow":
		w.WriteHeader(200)
		w.Write([]byte("begun"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		cancelled <- r.URL.Query().Get("n")
	case "/cancelled":
		fmt.Fprint(w, <-cancelled)
	case "/panic":
		w.Write([]byte("begun"))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	default:
		http.NotFound(w, r)
	}
}

func copyFlushing(w http.ResponseWriter, from io.Reader) {
	part := make([]byte, 32*1024)
	for {
		size, err := from.Read(part)
		w.Write(part[:size])
		w.(http.Flusher).Flush()
		if err != nil {
			return
		}
	}
}

func serve(cert, key string) {
	clear, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	handler := http.HandlerFunc(handle)
	go http.Serve(clear, h2c.NewHandler(handler, &http2.Server{MaxConcurrentStreams: 50}))
	go http.ServeTLS(secure, handler, cert, key)
	fmt.Println(clear.Addr().(*net.TCPAddr).Port, secure.Addr().(*net.TCPAddr).Port)
	io.Copy(io.Discard, os.Stdin)
}

// the client

func transport(base, ca string) http.RoundTripper {
	if strings.HasPrefix(base, "http:") {
		return &http2.Transport{
			AllowHTTP: true,
			DialTLS: func(network, address string, _ *tls.Config) (net.Conn, error) {
				return net.Dial(network, address)
			},
		}
	}
	pem, err := os.ReadFile(ca)
	check(err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &http.Transport{
		TLSClientConfig:       &tls.Config{RootCAs: pool, ServerName: "localhost"},
		ForceAttemptHTTP2:     true,
		ExpectContinueTimeout: 10 * time.Second,
	}
}

func ask(base, ca string) {
	client := &http.Client{Transport: transport(base, ca), Timeout: 20 * time.Second}
	hello(client, base)
	many(client, base)
	trailers(client, base)
	early(client, base)
	pingPong(client, base)
	cancel(client, base)
}

func read(answer *http.Response, err error) string {
	check(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	check(err)
	return string(body)
}

func hello(client *http.Client, base string) {
	answer, err := client.Get(base + "/hello")
	fmt.Println("get", read(answer, err), answer.Proto, answer.StatusCode)
	answer, err = client.Head(base + "/hello")
	fmt.Println("head", read(answer, err), answer.ContentLength)
}

// Many at a time, each with a body of another size, which comes back.
func many(client *http.Client, base string) {
	var all sync.WaitGroup
	var lock sync.Mutex
	good := 0
	for number := 0; number < 100; number++ {
		all.Add(1)
		go func(number int) {
			defer all.Done()
			sent := bytes.Repeat([]byte{byte(number)}, number*3000)
			got := read(client.Post(base+"/echo", "text/plain", bytes.NewReader(sent)))
			if got == string(sent) {
				lock.Lock()
				good++
				lock.Unlock()
			}
		}(number)
	}
	all.Wait()
	fmt.Println("many", good)
}

// A body of unknown length, with fields after it on both sides, whose sender waits to be asked for it.
func trailers(client *http.Client, base string) {
	body := io.LimitReader(zeros{}, 5_000_000)
	request, err := http.NewRequest("POST", base+"/trailers", io.NopCloser(body))
	check(err)
	request.Trailer = http.Header{"X-Asked": {"for"}}
	request.Header.Set("Expect", "100-continue")
	answer, err := client.Do(request)
	got := read(answer, err)
	fmt.Println("trailers", got, answer.Trailer.Get("X-Sum")[:8])
}

type zeros struct{}

func (zeros) Read(into []byte) (int, error) {
	for at := range into {
		into[at] = 0
	}
	return len(into), nil
}

func early(client *http.Client, base string) {
	request, err := http.NewRequest("GET", base+"/early", nil)
	check(err)
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		fmt.Println("early", code, header.Get("Link"))
		return nil
	}}
	answer, err := client.Do(request.WithContext(httptrace.WithClientTrace(context.Background(), trace)))
	read(answer, err)
	fmt.Println("final", answer.StatusCode)
}

// Each part is sent when the one before has come back.
func pingPong(client *http.Client, base string) {
	reader, writer := io.Pipe()
	answer, err := client.Post(base+"/echo", "text/plain", reader)
	check(err)
	part := make([]byte, 4)
	for number := 0; number < 5; number++ {
		fmt.Fprintf(writer, "part")
		_, err = io.ReadFull(answer.Body, part)
		check(err)
	}
	writer.Close()
	rest, err := io.ReadAll(answer.Body)
	check(err)
	fmt.Println("ping pong", string(part), len(rest))
}

// A response that is given up cancels what makes it; the connection lives.
func cancel(client *http.Client, base string) {
	for number := 0; number < 3; number++ {
		context, stop := context.WithCancel(context.Background())
		request, err := http.NewRequestWithContext(context, "GET", fmt.Sprintf("%s/slow?n=%d", base, number), nil)
		check(err)
		answer, err := client.Do(request)
		check(err)
		begun := make([]byte, 5)
		_, err = io.ReadFull(answer.Body, begun)
		check(err)
		stop()
		fmt.Println("cancelled", string(begun), read(client.Get(base+"/cancelled")))
		answer.Body.Close()
	}
}
