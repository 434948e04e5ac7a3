package gateway

import (
	"cmp"
	"log/slog"
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count calls by model; models that do not exist are not counted, so
// that clients can not make series.
type metrics struct {
	calls   *prometheus.CounterVec
	tokens  *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	first   *prometheus.HistogramVec
	queued  *prometheus.HistogramVec
	guarded prometheus.Histogram
	found   *prometheus.CounterVec
	judged  *prometheus.CounterVec
	asked   *prometheus.CounterVec
	models  *sync.Map // of *ofModel, by model
}

func newMetrics(reg prometheus.Registerer, g *gateway, log *slog.Logger) metrics {
	histogram := func(name, help string, start float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(start, 2.5, 10)}, []string{"model"})
	}
	m := metrics{
		models: &sync.Map{},
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enisle_chat_calls_total", Help: "Calls that ended, by model, status and outcome.",
		}, []string{"model", "status", "outcome"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enisle_chat_tokens_total", Help: "Tokens read (prompt) and written (completion), by model.",
		}, []string{"model", "kind"}),
		seconds: histogram("enisle_chat_seconds", "Duration of calls in seconds, by model.", 0.05),
		first:   histogram("enisle_chat_first_byte_seconds", "Seconds until the engine answered, by model.", 0.01),
		queued:  histogram("enisle_chat_queued_seconds", "Seconds until it was a call's turn, by model.", 0.001),
		guarded: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "enisle_guard_seconds", Help: "Seconds that the guard took for a prompt.", Buckets: prometheus.ExponentialBuckets(0.00001, 4, 10),
		}),
		found: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enisle_guard_findings_total", Help: "What the guard found, by rule.",
		}, []string{"rule"}),
		judged: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enisle_guard_judgements_total", Help: "What became of judgements, by the model that judges, verdict and reason.",
		}, []string{"judge", "verdict", "why"}),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enisle_guard_judge_tokens_total", Help: "Tokens that judgements took, by the model that judges.",
		}, []string{"judge"}),
	}
	if reg == nil {
		return m
	}
	for _, c := range []prometheus.Collector{m.calls, m.tokens, m.seconds, m.first, m.queued, m.guarded, m.found, m.judged, m.asked, saturation{g}} {
		if err := reg.Register(c); err != nil {
			log.Warn("metrics not registered", "err", err)
		}
	}
	return m
}

// ofModel are the metrics of one model, looked up once.
type ofModel struct {
	prompt, completion     prometheus.Counter
	seconds, first, queued prometheus.Observer
	answered               prometheus.Counter
}

func (m *metrics) of(model string) *ofModel {
	if o, ok := m.models.Load(model); ok {
		return o.(*ofModel) //nolint:forcetypeassert // the map holds nothing else
	}
	o := &ofModel{
		m.tokens.WithLabelValues(model, "prompt"), m.tokens.WithLabelValues(model, "completion"),
		m.seconds.WithLabelValues(model), m.first.WithLabelValues(model), m.queued.WithLabelValues(model),
		m.calls.WithLabelValues(model, "200", string(Answered)),
	}
	m.models.Store(model, o)
	return o
}

func (m *metrics) observe(c *call) {
	o := m.of(c.model.ID)
	if c.end.Outcome == Answered && c.end.Status == http.StatusOK {
		o.answered.Inc()
	} else {
		m.calls.WithLabelValues(c.model.ID, strconv.Itoa(c.end.Status), string(c.end.Outcome)).Inc()
	}
	o.prompt.Add(float64(c.end.Usage.Prompt))
	o.completion.Add(float64(c.end.Usage.Completion))
	o.seconds.Observe(c.end.Duration.Seconds())
	o.queued.Observe(c.end.Queued.Seconds())
	if c.end.First > 0 {
		o.first.Observe(c.end.First.Seconds())
	}
	for _, f := range c.ruling.Findings {
		m.found.WithLabelValues(f.Rule).Inc()
	}
	for _, f := range c.end.Findings {
		m.found.WithLabelValues(f.Rule).Inc()
	}
}

// judgedOne counts a judgement.
func (m *metrics) judgedOne(j *Judgement) {
	m.judged.WithLabelValues(j.Judge, string(j.Verdict), j.Why).Inc()
	m.asked.WithLabelValues(j.Judge).Add(float64(j.Usage.Total))
}

// saturation tells how much engines and queues have to do, when it is asked.
type saturation struct{ g *gateway }

// descriptions of what saturation tells; constant.
var (
	engineCalls   = prometheus.NewDesc("enisle_engine_calls", "Calls that an engine works on.", []string{"model", "kind", "engine"}, nil)
	engineTokens  = prometheus.NewDesc("enisle_engine_outstanding_tokens", "Tokens of the calls that an engine works on, as they were estimated.", []string{"model", "kind", "engine"}, nil)
	engineResting = prometheus.NewDesc("enisle_engine_resting", "1 while an engine that failed is not asked.", []string{"model", "kind", "engine"}, nil)
	queueWaiting  = prometheus.NewDesc("enisle_chat_waiting", "Calls that wait for their turn.", []string{"model"}, nil)
	queueRunning  = prometheus.NewDesc("enisle_chat_under_way", "Calls under way.", []string{"model"}, nil)
	judgeWaiting  = prometheus.NewDesc("enisle_guard_judgements_waiting", "Judgements that wait.", nil, nil)
	judgeRunning  = prometheus.NewDesc("enisle_guard_judgements_under_way", "Judgements under way.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s saturation) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{engineCalls, engineTokens, engineResting, queueWaiting, queueRunning, judgeWaiting, judgeRunning} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s saturation) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for i, e := range s.g.opt.Engines() {
		for _, m := range e.Models() {
			calls, tokens, resting := s.g.chooser.load(e)
			t := e.Traits()
			labels := []string{m.ID, t.Kind, cmp.Or(t.Name, strconv.Itoa(i))}
			gauge(engineCalls, float64(calls), labels...)
			gauge(engineTokens, float64(tokens), labels...)
			rest := 0.0
			if resting {
				rest = 1
			}
			gauge(engineResting, rest, labels...)
		}
	}
	waiting, running := s.g.judging.state() // before mu, as everywhere
	gauge(judgeWaiting, float64(waiting))
	gauge(judgeRunning, float64(running))
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	for model, l := range s.g.lines {
		waiting, running := l.state()
		gauge(queueWaiting, float64(waiting), model)
		gauge(queueRunning, float64(running), model)
	}
}
