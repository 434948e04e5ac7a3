package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"enisle/internal/crossing"
	"enisle/internal/fail"
)

// attacks tampers in three ways and shows the refusals.
func (d *demo) attacks(ctx context.Context) (err error) {
	older, newer := d.path("attacks/older"), d.path("attacks/newer")
	defer func() { err = errors.Join(err, os.RemoveAll(d.path("attacks"))) }()
	for _, to := range []string{older, newer} {
		if _, err := d.low.Pack(ctx, crossing.PackOptions{To: to}); err != nil {
			return err
		}
	}
	if err := d.flippedBit(ctx, newer); err != nil {
		return err
	}
	if err := d.replay(ctx, older); err != nil {
		return err
	}
	return d.onePerson(ctx)
}

// refused proves that err is a refusal and shows it.
func (d *demo) refused(err error) error {
	if !fail.IsRefused(err) {
		return errors.Join(errors.New("demo: the attack was not refused"), err)
	}
	d.tell("refused (exit 3): %s", err)
	d.tell("hint: %s", fail.HintOf(err))
	return nil
}

func (d *demo) flippedBit(ctx context.Context, dir string) error {
	d.title("Attack: one bit is flipped on the medium")
	file := filepath.Join(dir, "volume-0001.enisle")
	if err := flip(file); err != nil {
		return err
	}
	_, err := d.high.Import(ctx, dir)
	if err := d.refused(err); err != nil {
		return err
	}
	if err := flip(file); err != nil {
		return err
	}
	out, err := d.high.Import(ctx, dir)
	if err != nil {
		return err
	}
	d.tell("with the bit put right it is imported: %s", out.ID)
	return nil
}

// flip turns one bit in the middle of a file.
func flip(name string) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, st.Size()/2); err != nil {
		return err
	}
	b[0] ^= 4
	_, err = f.WriteAt(b, st.Size()/2)
	return err
}

func (d *demo) replay(ctx context.Context, dir string) error {
	d.title("Attack: an older shipment is brought in after a newer one")
	_, err := d.high.Import(ctx, dir)
	return d.refused(err)
}

func (d *demo) onePerson(ctx context.Context) error {
	d.title("Attack: one person approves twice")
	id, err := d.shipment(ctx, 3)
	if err != nil {
		return err
	}
	if _, err := d.high.Inspect(ctx, id); err != nil {
		return err
	}
	opt := crossing.ApproveOptions{Channel: "stable"}
	if _, err := d.as("alice").Decide(ctx, id, crossing.Approve, opt); err != nil {
		return err
	}
	_, err = d.as("alice").Decide(ctx, id, crossing.Approve, opt)
	if err := d.refused(err); err != nil {
		return err
	}
	_, err = d.high.Release(ctx, id, "stable")
	return d.refused(err)
}

// record proves the ledgers of both sites.
func (d *demo) record(ctx context.Context) error {
	d.title("The record: every act, in a Merkle log")
	n, held, err := d.high.VerifyLedger(ctx)
	if err != nil {
		return err
	}
	m, _, err := d.low.VerifyLedger(ctx)
	if err != nil {
		return err
	}
	d.tell("island: %d records, consistent with %d checkpoints that people signed; outside: %d", n, held, m)
	if n == 0 || m == 0 || held == 0 {
		return fmt.Errorf("demo: the ledgers hold %d and %d records, %d checkpoints", n, m, held)
	}
	return nil
}
