package resiliencegrpc_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience/resiliencegrpc"
)

// A wire is a server's end of one HTTP/2 connection.
type wire struct {
	net.Conn
	*http2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
	sent    fault // what the wire does when the client has sent its request, after a fault
}

// headers writes a HEADERS frame.
func (w *wire) headers(stream uint32, end bool, pairs ...string) {
	w.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		w.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: w.block.Bytes(), EndHeaders: true, EndStream: end})
}

// open writes the headers that begin a response.
func (w *wire) open(stream uint32) {
	w.headers(stream, false, ":status", "200", "content-type", "application/grpc")
}

// message writes an empty message.
func (w *wire) message(stream uint32) { w.WriteData(stream, false, make([]byte, 5)) }

// end writes the trailers.
func (w *wire) end(stream uint32, grpcStatus string) {
	w.headers(stream, true, "grpc-status", grpcStatus)
}

// A fault is what the wire does with a stream whose request has begun.
type fault func(w *wire, stream uint32)

// faultyServer is a server that has the fault on the first n streams and answers the others with one
// message. It returns its address and the number of streams.
func faultyServer(t *testing.T, config *tls.Config, n int32, f fault, settings ...http2.Setting) (address string, streams *atomic.Int32) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	streams = new(atomic.Int32)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if config != nil {
				conn = tls.Server(conn, config)
			}
			go serveWire(conn, streams, n, f, settings)
		}
	}()
	return listener.Addr().String(), streams
}

func serveWire(conn net.Conn, streams *atomic.Int32, n int32, f fault, settings []http2.Setting) {
	defer conn.Close()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	w := &wire{Conn: conn, Framer: http2.NewFramer(conn, conn)}
	w.encoder = hpack.NewEncoder(&w.block)
	w.WriteSettings(settings...)
	for {
		frame, err := w.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				w.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				w.WritePing(true, frame.Data)
			}
		case *http2.DataFrame:
			if frame.StreamEnded() && w.sent != nil {
				w.sent(w, frame.StreamID)
			}
		case *http2.HeadersFrame:
			if streams.Add(1) <= n {
				f(w, frame.StreamID)
				continue
			}
			w.open(frame.StreamID)
			w.message(frame.StreamID)
			w.end(frame.StreamID, "0")
		}
	}
}

// The faults. Each ends the stream so that a client sees Unavailable, except where said otherwise.
var (
	refuse   fault = func(w *wire, stream uint32) { w.WriteRSTStream(stream, http2.ErrCodeRefusedStream) }
	goAway   fault = func(w *wire, stream uint32) { w.WriteGoAway(0, http2.ErrCodeNo, nil) }
	cutEarly fault = func(w *wire, stream uint32) { w.Close() }
	cutIn    fault = func(w *wire, stream uint32) {
		w.Write([]byte{0, 0, 50, 1, 4, 0, 0, 0, byte(stream), 0x88}) // the beginning of a HEADERS frame
		w.Close()
	}
	cutAfter fault = func(w *wire, stream uint32) { w.open(stream); w.Close() }
	cutMid   fault = func(w *wire, stream uint32) {
		w.open(stream)
		w.WriteData(stream, false, []byte{0, 0, 0, 0, 100, 1, 2, 3})
		w.Close()
	}
	proxyDown fault = func(w *wire, stream uint32) {
		w.headers(stream, true, ":status", "503", "content-type", "text/html")
	}
)

// certificate returns the TLS configurations of a server and of its clients.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}}, &tls.Config{RootCAs: roots}
}

// transports runs the test over TCP and over TLS.
func transports(t *testing.T, test func(t *testing.T, server *tls.Config, creds grpc.DialOption)) {
	server, client := certificate(t)
	t.Run("TCP", func(t *testing.T) { test(t, nil, grpc.WithTransportCredentials(insecure.NewCredentials())) })
	t.Run("TLS", func(t *testing.T) { test(t, server, grpc.WithTransportCredentials(credentials.NewTLS(client))) })
}

// Rule 3 against real connections. gRPC repeats a stream that the server didn't process once, within
// the attempt. Everything else is repeated by the policies, and only if the method may run twice.
func TestFaultsAreRepeatedOnlyIfAllowed(t *testing.T) {
	transports(t, func(t *testing.T, server *tls.Config, creds grpc.DialOption) {
		for _, c := range []struct {
			name          string
			fault         fault
			faults        int32
			once, allowed int32 // streams that the server sees if the method may run once, or twice
			fails         bool  // the call fails if the method may run once
		}{
			{"refused once", refuse, 1, 2, 2, false},
			{"refused twice", refuse, 2, 2, 3, true},
			{"go away", goAway, 1, 2, 2, false},
			{"cut before headers", cutEarly, 1, 1, 2, true},
			{"cut in headers", cutIn, 1, 1, 2, true},
			{"cut after headers", cutAfter, 1, 1, 2, true},
			{"cut in message", cutMid, 1, 1, 2, true},
			{"a proxy's 503", proxyDown, 1, 1, 2, true},
		} {
			repeated := c.name == "go away" || strings.HasPrefix(c.name, "refused") // by gRPC
			for _, allowed := range []bool{false, true} {
				for _, kind := range []string{"unary", "stream"} {
					var w watcher
					var streams *atomic.Int32
					var messages int
					var err error
					for range 10 {
						w = watcher{}
						var address string
						address, streams = faultyServer(t, server, c.faults, c.fault)
						client := testpb.NewTestServiceClient(dial(t, address, every(retries(), &w), creds))
						messages, err = callOnce(t.Context(), client, kind, resiliencegrpc.AllowRepeat(allowed))
						// gRPC 1.84 itself ends about one in a thousand of the calls that it repeats with io.EOF,
						// and streams without their message and their status: also on a plain connection, if that
						// has a stats handler.
						if lost := errors.Is(err, io.EOF) || err == nil && messages == 0; !repeated || !lost {
							break
						}
					}
					want := c.once
					if allowed {
						want = c.allowed
					}
					fails := c.fails && !allowed
					if got := streams.Load(); got != want || fails != (err != nil) || fails && status.Code(err) != codes.Unavailable {
						t.Errorf("%s, %s, allowed %t: got %v after %d streams, want failure %t after %d", c.name, kind, allowed, err, got, fails, want)
					}
					if err == nil && messages != 1 {
						t.Errorf("%s, %s, allowed %t: got %d messages, want 1", c.name, kind, allowed, messages)
					}
					for _, err := range w.errs {
						if got := marks(err); got != "" {
							t.Errorf("%s, %s: got %v marked %q, want no mark", c.name, kind, err, got)
						}
					}
				}
			}
		}
	})
}

// callOnce makes a unary call or a server stream, and returns how many messages it received, and the
// error, nil for io.EOF at the end of the stream.
func callOnce(ctx context.Context, client testpb.TestServiceClient, kind string, option grpc.CallOption) (messages int, err error) {
	if kind == "unary" {
		if _, err := client.EmptyCall(ctx, &testpb.Empty{}, option); err != nil {
			return 0, err
		}
		return 1, nil
	}
	stream, err := client.StreamingOutputCall(ctx, &outputRequest{}, option)
	if err != nil {
		return 0, err
	}
	bodies, err := receiveAll(stream)
	return len(bodies), err
}

// A stream that breaks after its first message isn't opened again, even if it may be.
func TestFaultAfterFirstMessageIsTheCallers(t *testing.T) {
	transports(t, func(t *testing.T, server *tls.Config, creds grpc.DialOption) {
		for name, f := range map[string]fault{
			"cut": func(w *wire, stream uint32) {
				w.open(stream)
				w.message(stream)
				w.message(stream)
				cutMidBody(w, stream)
			},
			"reset": func(w *wire, stream uint32) {
				w.open(stream)
				w.message(stream)
				w.message(stream)
				resetBody(w, stream)
			},
		} {
			address, streams := faultyServer(t, server, 1, f)
			client := testpb.NewTestServiceClient(dial(t, address, everyRepeatable(retries()), creds))
			stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if bodies, err := receiveAll(stream); len(bodies) != 2 || err == nil || streams.Load() != 1 {
				t.Errorf("%s: got %d messages, %v after %d streams, want 2, an error, and 1 stream", name, len(bodies), err, streams.Load())
			}
		}
	})
}

func cutMidBody(w *wire, stream uint32) {
	w.WriteData(stream, false, []byte{0, 0, 0, 0, 100, 1, 2, 3})
	w.Close()
}

func resetBody(w *wire, stream uint32) {
	w.WriteData(stream, false, []byte{0, 0, 0, 0, 100, 1, 2, 3})
	w.WriteRSTStream(stream, http2.ErrCodeInternal)
}

// Rule 2: what the server answers before it has the message isn't the caller's fault. The message is
// larger than the flow-control window, so it can't have been sent.
func TestFaultBeforeMessageIsTheServers(t *testing.T) {
	for name, c := range map[string]struct {
		fault fault
		code  codes.Code
		mark  string
	}{
		"reset":    {func(w *wire, stream uint32) { w.WriteRSTStream(stream, http2.ErrCodeInternal) }, codes.Internal, "Permanent"},
		"canceled": {func(w *wire, stream uint32) { w.WriteRSTStream(stream, http2.ErrCodeCancel) }, codes.Canceled, "NotFailure"},
		"answered": {func(w *wire, stream uint32) {
			w.headers(stream, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "16")
			w.WriteRSTStream(stream, http2.ErrCodeNo)
		}, codes.Unauthenticated, "NotFailure"},
		"HTTP": {func(w *wire, stream uint32) {
			w.headers(stream, true, ":status", "400", "content-type", "text/html")
		}, codes.Internal, "Permanent"},
	} {
		var w watcher
		address, _ := faultyServer(t, nil, 1, c.fault)
		client := testpb.NewTestServiceClient(dial(t, address, every(&w)))
		in := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 1<<20)}}
		client.UnaryCall(t.Context(), in)
		if got := marks(w.errs[0]); status.Code(w.errs[0]) != c.code || got != c.mark {
			t.Errorf("%s: got %v marked %q, want %v marked %q", name, w.errs[0], got, c.code, c.mark)
		}
	}
}

// Rule 3: a failed TLS handshake was no attempt at the call.
func TestFaultInHandshakeIsNotMade(t *testing.T) {
	server, _ := certificate(t)
	_, other := certificate(t)
	address, streams := faultyServer(t, server, 0, nil)
	var w watcher
	client := testpb.NewTestServiceClient(dial(t, address, every(retries(), &w), grpc.WithTransportCredentials(credentials.NewTLS(other))))
	_, err := client.EmptyCall(t.Context(), &testpb.Empty{})
	if status.Code(err) != codes.Unavailable || streams.Load() != 0 || len(w.errs) != 3 || marks(w.errs[0]) != "NotMade" {
		t.Errorf("got %v after attempts %v, want Unavailable after 3 marked NotMade", err, w.errs)
	}
}

// A call that waits for one of MAX_CONCURRENT_STREAMS has sent nothing when its limit passes.
func TestFaultInStreamQuotaIsNotMade(t *testing.T) {
	var w watcher
	address, streams := faultyServer(t, nil, 100, func(*wire, uint32) {}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	conn := dial(t, address, every(&w))
	client := testpb.NewTestServiceClient(conn)
	holding, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := client.FullDuplexCall(holding); err != nil {
		t.Fatal(err)
	}
	ctx, cancelCall := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelCall()
	_, err := client.EmptyCall(ctx, &testpb.Empty{})
	if status.Code(err) != codes.DeadlineExceeded || marks(w.errs[1]) != "NotMade" || streams.Load() > 1 {
		t.Errorf("got %v marked %q after %d streams, want DeadlineExceeded marked NotMade after 1", err, marks(w.errs[1]), streams.Load())
	}
}

// A connection that is dead without having been closed fails by keepalive, and the call is repeated on
// another one.
func TestFaultKeepaliveDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var streams, connections atomic.Int32
		dialer := func(context.Context, string) (net.Conn, error) {
			client, server := net.Pipe()
			if connections.Add(1) == 1 {
				go func() {
					defer server.Close()
					go http2.NewFramer(server, nil).WriteSettings()
					io.Copy(io.Discard, server) // answers nothing
				}()
			} else {
				go serveWire(server, &streams, 0, nil, nil)
			}
			return client, nil
		}
		conn, err := grpc.NewClient("passthrough:///dead", append(resiliencegrpc.DialOptions(everyRepeatable(retries())),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dialer),
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: time.Second}))...)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		begun := time.Now()
		_, err = testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
		if got := time.Since(begun); err != nil || connections.Load() != 2 || got < time.Minute || got > 2*time.Minute {
			t.Errorf("got %v on %d connections after %v, want success on the second when the first is dead", err, connections.Load(), got)
		}
	})
}
