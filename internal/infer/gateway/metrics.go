package gateway

import (
	"log/slog"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count calls by model; models that do not exist are not counted, so
// that clients can not make series.
type metrics struct {
	calls    *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	underWay *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer, log *slog.Logger) metrics {
	m := metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enisle_chat_calls_total",
			Help: "Chat calls that ended, by model, status and outcome.",
		}, []string{"model", "status", "outcome"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enisle_chat_tokens_total",
			Help: "Tokens read (prompt) and written (completion), by model.",
		}, []string{"model", "kind"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "enisle_chat_seconds",
			Help: "Duration of chat calls in seconds, by model.", Buckets: prometheus.ExponentialBuckets(0.05, 2.5, 10),
		}, []string{"model"}),
		underWay: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "enisle_chat_under_way",
			Help: "Chat calls under way, by model.",
		}, []string{"model"}),
	}
	if reg == nil {
		return m
	}
	for _, c := range []prometheus.Collector{m.calls, m.tokens, m.seconds, m.underWay} {
		if err := reg.Register(c); err != nil {
			log.Warn("metrics not registered", "error", err)
		}
	}
	return m
}

func (m metrics) observe(c Call) {
	m.calls.WithLabelValues(c.Model, strconv.Itoa(c.Status), string(c.Outcome)).Inc()
	m.tokens.WithLabelValues(c.Model, "prompt").Add(float64(c.Usage.Prompt))
	m.tokens.WithLabelValues(c.Model, "completion").Add(float64(c.Usage.Completion))
	m.seconds.WithLabelValues(c.Model).Observe(c.Duration.Seconds())
}
