package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/gateway"
)

// observed is what somebody sees of a stream who cannot read it: when each record comes
// and how long it is.
type observed struct {
	sizes []int
	times []time.Duration
}

// talk is what an engine says on two topics: words of one are longer, and come slower.
func talk(topic int, r *rand.Rand) (words []string, pause func() time.Duration) {
	n := 12 + r.IntN(8)
	for range n {
		size := 3 + r.IntN(5)
		if topic == 1 {
			size = 6 + r.IntN(9)
		}
		words = append(words, strings.Repeat("w", size))
	}
	return words, func() time.Duration {
		return time.Duration(200+r.IntN(400)+topic*150) * time.Microsecond
	}
}

// watchedConn notes every read that brings something, as a sniffer notes packets.
type watchedConn struct {
	net.Conn
	began time.Time
	seen  *observed
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.seen.sizes = append(c.seen.sizes, n)
		c.seen.times = append(c.seen.times, time.Since(c.began))
	}
	return n, err
}

func watch(t *testing.T, s *httptest.Server, topic int, seed uint64) observed {
	t.Helper()
	var seen observed
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return &watchedConn{c, time.Now(), &seen}, err
	}}
	resp, err := (&http.Client{Transport: tr}).Post(s.URL+"/v1/chat/completions", "application/json",
		strings.NewReader(fmt.Sprintf(`{"model":"m","stream":true,"topic":%d,"seed":%d,"messages":[{"role":"user","content":"hello"}]}`, topic, seed)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, bufio.NewReader(resp.Body)); err != nil {
		t.Fatal(err)
	}
	return seen
}

// features of a stream: how many records, how long each of the first is, how much there
// is in all, and how far apart they come.
func features(o observed) []float64 {
	f := make([]float64, 0, 64)
	sum := 0
	for i := range 30 {
		v := 0.0
		if i < len(o.sizes) {
			v = float64(o.sizes[i])
		}
		f = append(f, v)
	}
	for _, s := range o.sizes {
		sum += s
	}
	f = append(f, float64(len(o.sizes)), float64(sum), float64(sum)/float64(max(len(o.sizes), 1)))
	sorted := append([]int{0}, o.sizes...)
	slices.Sort(sorted)
	f = append(f, float64(sorted[len(sorted)/4]), float64(sorted[len(sorted)/2]), float64(sorted[3*len(sorted)/4]))
	var gaps []float64
	for i := 1; i < len(o.times); i++ {
		gaps = append(gaps, float64((o.times[i] - o.times[i-1]).Microseconds()))
	}
	slices.Sort(gaps)
	for _, q := range []float64{0.25, 0.5, 0.75} {
		v := 0.0
		if len(gaps) > 0 {
			v = gaps[int(q*float64(len(gaps)-1))]
		}
		f = append(f, v)
	}
	last := 0.0
	if len(o.times) > 0 {
		last = float64(o.times[len(o.times)-1].Microseconds())
	}
	return append(f, last)
}

// auc trains a logistic regression on half of the samples and returns, of the other half,
// how often one of topic 1 is ranked above one of topic 0.
func auc(x [][]float64, y []int) float64 {
	n, d := len(x), len(x[0])
	mean, dev := make([]float64, d), make([]float64, d)
	for j := range d {
		for i := range n / 2 {
			mean[j] += x[i][j]
		}
		mean[j] /= float64(n / 2)
		for i := range n / 2 {
			dev[j] += (x[i][j] - mean[j]) * (x[i][j] - mean[j])
		}
		dev[j] = math.Sqrt(dev[j]/float64(n/2)) + 1e-9
	}
	z := func(i, j int) float64 { return max(-4, min(4, (x[i][j]-mean[j])/dev[j])) }
	w, bias := make([]float64, d), 0.0
	score := func(i int) float64 {
		s := bias
		for j := range d {
			s += w[j] * z(i, j)
		}
		return s
	}
	for range 300 {
		for i := range n / 2 {
			p := 1/(1+math.Exp(-score(i))) - float64(y[i])
			bias -= 0.01 * p
			for j := range d {
				w[j] -= 0.01 * (p*z(i, j) + 0.001*w[j])
			}
		}
	}
	wins, pairs := 0.0, 0.0
	for i := n / 2; i < n; i++ {
		for k := n / 2; k < n; k++ {
			if y[i] == 1 && y[k] == 0 {
				pairs++
				switch a, b := score(i), score(k); {
				case a > b:
					wins++
				case a == b:
					wins += 0.5
				}
			}
		}
	}
	return wins / pairs
}

// Who sees sizes and times of what is streamed tells two topics apart, and cannot where
// the form is constant.
func TestWhoWatchesTheWires(t *testing.T) {
	if testing.Short() {
		t.Skip("short: a thousand streams are left out")
	}
	e := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var topic int
		var seed uint64
		_, tail, _ := strings.Cut(string(b), `"topic":`)
		if _, err := fmt.Sscanf(tail, `%d,"seed":%d`, &topic, &seed); err != nil {
			t.Error(err)
		}
		words, pause := talk(topic, rand.New(rand.NewPCG(seed, uint64(topic))))
		w.Header().Set("Content-Type", "text/event-stream")
		for _, word := range words {
			fmt.Fprintf(w, `data: {"choices":[{"index":0,"delta":{"content":%q}}]}`+"\n\n", word)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(pause())
		}
		fmt.Fprint(w, last+"\n\n")
	}, "m")
	e.traits.Parallel = 1000
	// 1,000 streams are enough to see an AUC of 0.55 apart from chance: the error of one
	// half is about 0.026.
	const samples = 1000
	got := map[gateway.Mode]float64{}
	for _, m := range []struct {
		shape gateway.Shape
		at    int // streams at once
	}{{gateway.Shape{}, 4}, {gateway.Shape{Mode: gateway.Pad, Size: 256}, 4}, {gateway.Shape{Mode: gateway.Constant, Size: 1024, Every: 10 * time.Millisecond}, 16}} {
		s := serve(t, gateway.Options{Shape: m.shape, MaxWaiting: 10_000}, engine.Engine(e))
		x, y := make([][]float64, samples), make([]int, samples)
		slots := make(chan struct{}, m.at)
		var wg sync.WaitGroup
		for i := range samples {
			slots <- struct{}{}
			wg.Go(func() {
				defer func() { <-slots }()
				y[i] = int(uint64(i*2654435761)>>7) & 1
				x[i] = features(watch(t, s, y[i], uint64(i)))
			})
		}
		wg.Wait()
		got[m.shape.Mode] = auc(x, y)
	}
	t.Logf("AUC: as they come %.3f, made up to 256 bytes %.3f, constant %.3f", got[gateway.Off], got[gateway.Pad], got[gateway.Constant])
	if got[gateway.Off] < 0.9 || got[gateway.Constant] > 0.57 || got[gateway.Constant] < 0.43 {
		t.Errorf("AUC: as they come %.3f, constant %.3f", got[gateway.Off], got[gateway.Constant])
	}
}
