package shipment

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// slot is a place for one item on its way; its item's buffers are reused.
type slot[T any] struct {
	item T
	done chan struct{} // closed when the work on the item is done
}

// inOrder passes items through workers in parallel and hands them on in the
// order in which they were produced. produce calls next for an item to fill and
// then put with whether work is needed; work runs on several items at a time;
// take gets one after the other. There are never more items than workers and
// two, so memory is bounded by their buffers. The first error ends all.
func inOrder[T any](ctx context.Context, produce func(next func() (*T, error), put func(work bool)) error,
	work func(*T), take func(*T) error,
) error {
	workers := max(2, runtime.GOMAXPROCS(0))
	free := make(chan *slot[T], workers+2)
	for range cap(free) {
		free <- &slot[T]{}
	}
	// As many places as items: sending to these never blocks.
	todo, order := make(chan *slot[T], cap(free)), make(chan *slot[T], cap(free))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(todo)
		defer close(order)
		var s *slot[T]
		next := func() (*T, error) {
			select {
			case s = <-free:
				s.done = make(chan struct{})
				return &s.item, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return produce(next, func(work bool) {
			if work {
				todo <- s
			} else {
				close(s.done)
			}
			order <- s
		})
	})
	for range workers {
		g.Go(func() error {
			for s := range todo {
				work(&s.item)
				close(s.done)
			}
			return nil
		})
	}
	g.Go(func() error {
		for s := range order {
			<-s.done
			if err := take(&s.item); err != nil {
				return err
			}
			free <- s
		}
		return nil
	})
	return g.Wait()
}
