package fetch

import (
	"context"
	"fmt"
	"io"
	"time"
)

// watched is a body that ends with an error when nothing comes for a while.
type watched struct {
	ctx    context.Context // of the request: nothing else lives as long as the body
	cancel context.CancelCauseFunc
	body   io.ReadCloser
	idle   time.Duration
	timer  *time.Timer // runs only during a Read
}

func watch(ctx context.Context, cancel context.CancelCauseFunc, body io.ReadCloser, idle time.Duration) *watched {
	t := time.AfterFunc(idle, func() {
		cancel(fmt.Errorf("the origin fell silent for %s", idle))
	})
	t.Stop()
	return &watched{ctx, cancel, body, idle, t}
}

func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(w.idle)
	n, err := w.body.Read(p)
	w.timer.Stop()
	if err != nil && err != io.EOF {
		if cause := context.Cause(w.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	err := w.body.Close()
	w.cancel(nil)
	return err
}
