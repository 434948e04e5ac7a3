package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"enisle/internal/crossing"
	"enisle/internal/ecosystem"
	"enisle/internal/face/server"
	"enisle/internal/fail"
	"enisle/internal/infer/engine/dialer"
	"enisle/internal/infer/gateway"
	"enisle/internal/infer/guard"
	"enisle/internal/sandbox"
	"enisle/internal/site"
	"enisle/internal/site/trust"
	"enisle/internal/socket"
)

// ServeVerb is the hidden verb under which the isolated half of serve runs.
const ServeVerb = "serve-inside"

// GatewayOptions say how models are asked.
type GatewayOptions struct {
	Shape gateway.Shape `json:"shape"` // of what is streamed
	Sync  bool          `json:"sync"`  // calls go on when the disk has their record, not within 50 ms
	Seal  string        `json:"seal"`  // recipient of age that content is sealed to; empty: it is hashed only
	Guard GuardOptions  `json:"guard"`
}

// ServeOptions say where a site is served.
type ServeOptions struct {
	Listen          string // host:port; "" means 127.0.0.1:8440
	TLSCert, TLSKey string // files; needed on anything but loopback
	ClientCA        string // file; users may show a certificate of these authorities, with their name as its common name
	Threads         int    // of each engine; 0 lets the engine choose
	Strict          bool   // refuse to run less isolated than described
	Verbose         bool
	Gateway         GatewayOptions
	// Started is told the address once the socket is open; may be nil.
	Started func(url string, level sandbox.Level)
	// Stdout and Stderr are those of the isolated half; nil means this process's.
	Stdout, Stderr io.Writer
}

// Serve opens the listening socket and hands it to a copy of this program that
// has no network: it can accept, it cannot dial. Serve returns when ctx ends or
// the copy does.
func (a *App) Serve(ctx context.Context, opt ServeOptions) error {
	if opt.Listen == "" {
		opt.Listen = "127.0.0.1:8440"
	}
	if (opt.TLSCert == "") != (opt.TLSKey == "") {
		return fail.As(fail.Usage, "give both --tls-cert and --tls-key", errors.New("serve: a certificate needs its key"))
	}
	if opt.ClientCA != "" && opt.TLSCert == "" {
		return fail.As(fail.Usage, "give --tls-cert and --tls-key as well", errors.New("serve: certificates of clients need TLS"))
	}
	level := sandbox.ProbeNet()
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close() // the copy has its own
		}
	}()
	l, err := listen(ctx, opt)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	socket, err := l.File()
	if err != nil {
		return err
	}
	files = append(files, socket)
	scheme := "http"
	if opt.TLSCert != "" {
		scheme = "https"
	}
	url := scheme + "://" + l.Addr().String()
	err = a.change(ctx, "serve", func(s *site.Site, by site.Actor) error {
		if err := s.Require(trust.High); err != nil {
			return err
		}
		if err := somebody(ctx, s, l.Addr()); err != nil {
			return err
		}
		so, err := callsSoFar(s.Dir)
		if err != nil {
			return err
		}
		return s.Act(ctx, "serve", by, map[string]string{"address": l.Addr().String(), "isolation": string(level), "calls": so}, nothing)
	})
	if err != nil {
		return err
	}
	for _, open := range []func(string) (*os.File, error){openPulls, openMisses, openCalls, openQuota, openEngineLog} {
		log, err := open(a.Dir)
		if err != nil {
			return err
		}
		files = append(files, log)
	}
	tmp, err := os.MkdirTemp("", "enisle-serve-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // a directory of links and sockets
	way, err := a.dialer(ctx, opt, tmp)
	if err != nil {
		return err
	}
	files = append(files, way)
	for _, name := range []string{opt.TLSCert, opt.TLSKey, opt.ClientCA} {
		if name == "" {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return fail.As(fail.Usage, "name a readable PEM file", fmt.Errorf("serve: %w", err))
		}
		files = append(files, f)
	}
	cmd, err := a.inside(ctx, opt, tmp, files)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	if opt.Started != nil {
		opt.Started(url, level)
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		err = fmt.Errorf("serve: the isolated half ended: %w", err)
	}
	return err
}

// dialVerb is the hidden verb of the helper that connects to engines elsewhere.
const dialVerb = "serve-dial"

// dialer starts the helper, which lives as long as ctx, and returns the end of what
// serves, whose temporary directory is tmp. Without allowed engines there is none, and
// nothing to connect to.
func (a *App) dialer(ctx context.Context, opt ServeOptions, tmp string) (inside *os.File, err error) {
	addresses := map[string]string{}
	err = a.read(ctx, func(s *site.Site) error {
		for _, e := range s.Roots.Root().Engines {
			if addresses[e.Name] = e.Address; e.Started() {
				addresses[e.Name] = engineSocket(tmp, e.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	inside, outside, err := dialer.Pair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = outside.Close() }() // the helper has its own
	if len(addresses) == 0 {
		return inside, nil
	}
	list, err := json.Marshal(addresses)
	if err != nil {
		return nil, errors.Join(err, inside.Close())
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, errors.Join(err, inside.Close())
	}
	spec := sandbox.Spec{NoBind: true, NoExec: true, Strict: opt.Strict, MaxFiles: 4096, Read: append(sandbox.SystemLibraries(), exe)}
	for _, name := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/sys/kernel/mm/transparent_hugepage"} {
		if _, err := os.Stat(name); err == nil {
			spec.Read = append(spec.Read, name)
		}
	}
	cmd, err := sandbox.Reexec(ctx, spec, []*os.File{outside}, dialVerb, string(list))
	if err == nil {
		cmd.Stdin, cmd.Stdout, cmd.Env = nil, nil, []string{}
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("serve: %w", err), inside.Close())
	}
	go func() { _ = cmd.Wait() }() // it ends with what serves
	return inside, nil
}

// dialOutside is the helper.
func dialOutside(ctx context.Context, args []string) error {
	var addresses map[string]string
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &addresses) != nil {
		return errors.New("no list of addresses")
	}
	return dialer.Run(ctx, 3, addresses)
}

// somebody refuses to serve others where nobody could be let in.
func somebody(ctx context.Context, s *site.Site, addr net.Addr) error {
	if isLoopback(addr) {
		return nil
	}
	all, err := crossing.Users(ctx, s)
	if err == nil && len(all) == 0 {
		err = fail.Refuse("'enisle user add NAME' enrols one; 'enisle user add anonymous --role mirror' lets everybody pull", fmt.Errorf("%s is not loopback, and nobody is enrolled who might use it", addr))
	}
	return err
}

func nothing(context.Context, int64) (map[string]string, error) { return nil, nil }

func listen(ctx context.Context, opt ServeOptions) (*net.TCPListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // the inherited socket must be one that Landlock and seccomp know
	l, err := lc.Listen(ctx, "tcp", opt.Listen)
	if err != nil {
		return nil, fail.As(fail.Failed, "choose another address with --listen", fmt.Errorf("serve: %w", err))
	}
	if err := server.CheckListener(l.Addr(), opt.TLSCert != "" && opt.TLSKey != ""); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l.(*net.TCPListener), nil //nolint:forcetypeassert // "tcp" always gives one
}

// inside builds the command of the isolated half: it reads what is released and
// the site's public parts, writes one temporary directory and nothing of the
// site, and sees no key and nothing of the quarantine.
func (a *App) inside(ctx context.Context, opt ServeOptions, tmp string, files []*os.File) (commander, error) {
	dir, err := filepath.Abs(a.Dir)
	if err != nil {
		return nil, err
	}
	spec := sandbox.Spec{Net: sandbox.NetNone, NoConnect: true, Strict: opt.Strict, Write: []string{tmp}}
	spec.Read = append(spec.Read, sandbox.SystemLibraries()...)
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	spec.Read = append(spec.Read, exe, "/proc", "/sys/devices/system/cpu")
	for _, name := range []string{"site.json", "policies", "blobs", "trust", "ledger", "state"} {
		spec.Read = append(spec.Read, filepath.Join(dir, name))
	}
	args := []string{ServeVerb, "-C", dir, "--threads", strconv.Itoa(opt.Threads), "--temp", tmp}
	if opt.TLSCert != "" {
		args = append(args, "--tls")
	}
	if opt.ClientCA != "" {
		args = append(args, "--client-ca")
	}
	settings, err := json.Marshal(opt.Gateway)
	if err != nil {
		return nil, err
	}
	args = append(args, "--gateway", string(settings))
	if opt.Verbose {
		args = append(args, "--verbose")
	}
	if opt.Strict {
		args = append(args, "--strict")
	}
	c, err := sandbox.Reexec(ctx, spec, files, args...)
	if err != nil {
		return nil, err
	}
	c.Stdin = nil
	if opt.Stdout != nil {
		c.Stdout = opt.Stdout
	}
	if opt.Stderr != nil {
		c.Stderr = opt.Stderr
	}
	return c, nil
}

// commander is the part of exec.Cmd that Serve needs.
type commander interface {
	Start() error
	Wait() error
}

// InsideOptions say how the isolated half serves.
type InsideOptions struct {
	TLS      bool   // certificate and key are descriptors 10 and 11
	ClientCA bool   // and those of clients' authorities 12
	Gateway  string // GatewayOptions, in JSON
	Threads  int
	Temp     string
	Strict   bool
}

// ServeInside is the isolated half: descriptor 3 is the listening socket, 4 to 6 are
// the records of what is pulled, missed and asked of models, 7 counts quotas, 8 is the record of the children, 9 leads to the helper that connects to engines. It
// refuses to run where anything outside can be reached.
func (a *App) ServeInside(ctx context.Context, opt InsideOptions) (err error) {
	level, err := sandbox.Unreachable()
	if err != nil {
		return err
	}
	paceGarbage()
	l, err := inherited(opt)
	if err != nil {
		return err
	}
	how := a.options(true)
	how.Released = true
	s, err := site.Open(ctx, a.Dir, how)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ecosystems := a.ecosystems(nil, nil)
	m := newMetrics(ecosystems)
	record, missed := inheritedAccess()
	engines := newEngines(s, opt, record, dialer.NewClient(os.NewFile(9, "dialer")), &engineLog{to: os.NewFile(8, "engines")}, a.log())
	defer func() { err = errors.Join(err, engines.close()) }()
	go engines.follow(ctx)
	var settings GatewayOptions
	if err := json.Unmarshal([]byte(opt.Gateway), &settings); err != nil {
		return fail.As(fail.Usage, "", fmt.Errorf("settings of the gateway: %w", err))
	}
	asked, err := newCalls(os.NewFile(6, "calls"), settings.Sync, settings.Seal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, asked.close()) }()
	go asked.keep(ctx)
	counted, err := newQuota(os.NewFile(7, "quota"))
	if err != nil {
		return err
	}
	var guards guard.Guard
	if settings.Guard.Mode != guard.Off {
		g, err := newGuarding(ctx, s, settings.Guard, a.log())
		if err != nil {
			return err
		}
		go g.follow(ctx)
		guards = g
	}
	mirrors := newMirrors(s, ecosystems, record, missed)
	models := gateway.New(gateway.Options{
		Engines: engines.list, Coming: engines.coming, Who: caller, Quota: counted, Recorder: asked, Keep: settings.Seal != "", Guard: guards, Shape: settings.Shape,
		Metrics: m.registry, Log: a.log(),
	})
	defer models.Close()
	h := server.New(server.Options{
		Mirrors: mirrors, Access: &admission{site: s, loopback: isLoopback(l.Addr())}, Metrics: m.handler(), Count: m.count, Ready: engines.ready, Log: a.log(),
		Gateway: models, Beside: gateway.Paths(),
		About: func() map[string]string {
			return map[string]string{"site": s.Identity.Name, "isolation": string(level), "release": engines.release()}
		},
	})
	a.log().InfoContext(ctx, "serving", "address", l.Addr().String(), "isolation", string(level))
	return server.Serve(ctx, l, h, a.log())
}

// caller is who asks a model.
func caller(r *http.Request) gateway.User {
	u := userOf(r.Context())
	return gateway.User{Name: u.Name, Project: u.Project, Weight: u.Weight, Tokens: u.Tokens, Models: u.Models}
}

func (a *App) log() *slog.Logger {
	if a.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return a.Log
}

// inherited returns the listener of descriptor 3.
func inherited(opt InsideOptions) (net.Listener, error) {
	f := os.NewFile(3, "listener")
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherited socket: %w", err)
	}
	l = socket.Listener{Listener: l}
	if err := f.Close(); err != nil || !opt.TLS {
		return l, err
	}
	chain, err := inheritedFile(10)
	if err != nil {
		return nil, err
	}
	key, err := inheritedFile(11)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if opt.ClientCA {
		roots, err := inheritedFile(12)
		if err != nil {
			return nil, err
		}
		conf.ClientAuth, conf.ClientCAs = tls.VerifyClientCertIfGiven, x509.NewCertPool()
		if !conf.ClientCAs.AppendCertsFromPEM(roots) {
			return nil, fail.As(fail.Usage, "give the authorities' certificates in PEM", errors.New("serve: --client-ca holds no certificate"))
		}
	}
	return tls.NewListener(l, conf), nil
}

func inheritedFile(fd uintptr) ([]byte, error) {
	f := os.NewFile(fd, "tls")
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return b, nil
}

// MirrorClients lists the clients that MirrorConfig knows.
func MirrorClients() []string {
	all := []string{"openai"}
	for _, e := range (&App{}).ecosystems(nil, nil) {
		if c, ok := e.(ecosystem.Configured); ok {
			all = append(all, c.Clients()...)
		}
	}
	slices.Sort(all)
	return all
}

// MirrorConfig returns the settings that make a client use this mirror alone.
func MirrorConfig(client, base string) (string, error) {
	base = strings.TrimRight(base, "/")
	if client == "openai" {
		return "OPENAI_BASE_URL=" + base + "/v1\nOPENAI_API_KEY=none\n", nil
	}
	for _, e := range (&App{}).ecosystems(nil, nil) {
		if c, ok := e.(ecosystem.Configured); ok && slices.Contains(c.Clients(), client) {
			return c.Config(client, base), nil
		}
	}
	return "", fail.As(fail.Usage, "clients are "+strings.Join(MirrorClients(), ", "), fmt.Errorf("no settings for %q", client))
}
