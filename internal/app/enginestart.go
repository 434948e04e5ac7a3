package app

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/child"
	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/engine/local"
)

type runningEngine struct {
	engine engine.Engine
	files  []*os.File
}

func (r *runningEngine) close() (err error) {
	if r.engine != nil {
		err = r.engine.Close()
	}
	for _, f := range r.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// open opens the released files of an artifact, which stay open as long as the engine.
func (r *runningEngine) open(v *crossing.Served, a artifact.Artifact) (out []child.NamedFile, err error) {
	for _, f := range a.Files {
		b, err := v.OpenFile(f.Digest)
		if err != nil {
			return nil, err
		}
		r.files = append(r.files, b)
		out = append(out, child.NamedFile{Name: f.Path, File: b, Digest: f.Digest})
	}
	return out, nil
}

// start starts a child: the embedded engine, or an engine's own server.
func (e *engines) start(ctx context.Context, v *crossing.Served, p pair) (_ *runningEngine, err error) {
	r := &runningEngine{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	program, err := r.open(v, p.engine)
	if err != nil {
		return nil, err
	}
	model, err := r.open(v, p.model)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	record := func(text string) { e.said.add(p.name, text) }
	var got engine.Engine
	if p.at == nil {
		got, err = started(llamacpp.Start(ctx, llamacpp.Options{
			Name: p.name, Library: program, Model: model, Weights: string(p.model.Manifest), Size: p.model.Size(),
			Threads: e.opt.Threads, TempDir: e.opt.Temp, Strict: e.opt.Strict, Log: e.log, Record: record,
		}))
	} else {
		got, err = started(local.Start(ctx, local.Options{
			Name: p.name, Kind: p.at.Kind, Program: program, Model: model, Serves: p.models[0], Task: p.at.Task,
			Dir: engineDir(e.opt.Temp, p.name), Dial: func(ctx context.Context) (net.Conn, error) { return e.dial.Dial(ctx, p.name) },
			Parallel: p.at.Parallel, Threads: e.opt.Threads, MaxMemory: p.at.Memory,
			TempDir: e.opt.Temp, Strict: e.opt.Strict, Log: e.log, Record: record,
		}))
	}
	if err != nil {
		return nil, err
	}
	r.engine = got
	e.log.InfoContext(ctx, "engine started", "engine", p.name, "model", p.model.Ref.String(), "took", time.Since(began))
	return r, nil
}

// started makes an engine of what a package started, and nothing of nothing.
func started[E engine.Engine](e E, err error) (engine.Engine, error) {
	if err != nil {
		return nil, err
	}
	return e, nil
}

// engineDir is where an engine that serve starts makes its socket, in the temporary
// directory of what serves.
func engineDir(temp, name string) string { return filepath.Join(temp, name) }

// engineSocket is the address of that socket for the helper that connects.
func engineSocket(temp, name string) string {
	return "unix:" + filepath.Join(engineDir(temp, name), local.SocketName)
}
