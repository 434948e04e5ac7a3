package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"enisle/internal/crossing"
	"enisle/internal/ecosystem/record"
	"enisle/internal/sandbox"
)

// recording runs a program behind a proxy that keeps what it fetches.
type recording struct{}

// Run runs argv in dir; see crossing.Recording.
func (recording) Run(ctx context.Context, work, dir string, hidden, argv []string) (all []crossing.Recorded, others []string, err error) {
	r, err := record.New(work)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close(ctx)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(l) }()
	// Its caches are its own, and empty: what lay in them would not be fetched, nor brought.
	cache := filepath.Join(work, "caches")
	env := r.Env(l.Addr().String())
	for name, below := range map[string]string{"XDG_CACHE_HOME": "", "npm_config_cache": "npm", "GOMODCACHE": "gomod", "GOCACHE": "gobuild", "UV_CACHE_DIR": "uv", "PIP_CACHE_DIR": "pip"} {
		env = append(env, name+"="+filepath.Join(cache, below))
	}
	run := sandbox.Exec{Cache: []string{cache}, Env: env}
	_, stderr, err := run.Run(ctx, dir, hidden, argv)
	err = errors.Join(err, l.Close(), <-ended)
	if err != nil {
		if n := len(stderr); n > 2000 {
			stderr = stderr[n-2000:]
		}
		return nil, nil, fmt.Errorf("%w: %s", err, stderr)
	}
	found, others := r.Recorded()
	for _, e := range found {
		all = append(all, crossing.Recorded{URL: e.URL, File: e.File, Size: e.Size, Type: e.Type})
	}
	return all, others, nil
}
