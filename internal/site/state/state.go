// Package state is a site's database: what is mutable, and nothing else.
//
// Content lies in the store, signed statements lie there too; the state holds
// which of them count now: sequence numbers, shipments and their progress,
// approvals, releases and the channels that point at them. Every change is one
// transaction. The engine is SQLite in a file of the site.
package state

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite" // registers the database driver as well
	sqlite3 "modernc.org/sqlite/lib"

	"enisle/internal/fail"
)

// steps bring the schema from one version to the next. They are only ever
// appended to.
func steps() []string {
	return []string{`
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE effects (intent INTEGER PRIMARY KEY, result TEXT NOT NULL) STRICT;
CREATE TABLE packs (
	stream TEXT NOT NULL, sequence INTEGER NOT NULL, setid TEXT NOT NULL, plan TEXT NOT NULL,
	id TEXT NOT NULL DEFAULT '', content TEXT NOT NULL, envelope BLOB, done INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (stream, sequence)) STRICT;
CREATE TABLE shipments (
	id TEXT NOT NULL UNIQUE, header TEXT PRIMARY KEY, envelope BLOB NOT NULL, stream TEXT NOT NULL, sequence INTEGER NOT NULL,
	content TEXT NOT NULL, request TEXT NOT NULL, status TEXT NOT NULL, importer TEXT NOT NULL DEFAULT '',
	imported TEXT NOT NULL DEFAULT '', notes TEXT NOT NULL DEFAULT '', volume INTEGER NOT NULL DEFAULT 0, frame INTEGER NOT NULL DEFAULT 0,
	UNIQUE (stream, sequence)) STRICT;
CREATE TABLE reports (
	id INTEGER PRIMARY KEY, shipment TEXT NOT NULL, digest TEXT NOT NULL, made TEXT NOT NULL) STRICT;
CREATE TABLE approvals (
	shipment TEXT NOT NULL, key TEXT NOT NULL, name TEXT NOT NULL, channel TEXT NOT NULL, report TEXT NOT NULL,
	envelope BLOB NOT NULL, PRIMARY KEY (shipment, channel, report, key)) STRICT;
CREATE TABLE releases (
	number INTEGER PRIMARY KEY, digest TEXT NOT NULL, shipment TEXT NOT NULL, made TEXT NOT NULL) STRICT;
CREATE TABLE channels (name TEXT PRIMARY KEY, release INTEGER NOT NULL REFERENCES releases(number)) STRICT;
CREATE TABLE moves (
	id INTEGER PRIMARY KEY, channel TEXT NOT NULL, release INTEGER NOT NULL, at TEXT NOT NULL) STRICT;
`, `
ALTER TABLE shipments DROP COLUMN volume;
ALTER TABLE shipments DROP COLUMN frame;
ALTER TABLE shipments ADD COLUMN marks TEXT NOT NULL DEFAULT '{}';
`, `
CREATE TABLE waivers (digest TEXT PRIMARY KEY, shipment TEXT NOT NULL, envelope BLOB NOT NULL) STRICT;
`, `
CREATE TABLE recalls (
	id INTEGER PRIMARY KEY, ref TEXT NOT NULL, manifest TEXT NOT NULL, reason TEXT NOT NULL, by TEXT NOT NULL, at TEXT NOT NULL,
	UNIQUE (ref, manifest)) STRICT;
`, `
CREATE TABLE users (name TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
`, `
CREATE TABLE arrivals (
	kind TEXT NOT NULL, name TEXT NOT NULL COLLATE NOCASE, version TEXT NOT NULL, shipment TEXT NOT NULL,
	PRIMARY KEY (kind, name, version, shipment)) STRICT, WITHOUT ROWID;
CREATE INDEX arrivals_of ON arrivals (shipment);
`}
}

// DB is an open state. Its methods may be called concurrently; SQLite lets one
// writer through at a time.
type DB struct {
	db   *sql.DB
	file *os.File // the database

	mu   sync.RWMutex
	head []byte // its first page, as it is now; nil once it is closed; guarded by mu
}

// Create makes an empty state.
func Create(ctx context.Context, file string) (*DB, error) { return open(ctx, file, false) }

// Open opens the state in file, bringing its schema up to date; with readOnly
// nothing is changed. It never makes one: a state that is gone is a refusal.
func Open(ctx context.Context, file string, readOnly bool) (*DB, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, damaged(err)
	}
	return open(ctx, file, readOnly)
}

func damaged(err error) error {
	return fail.Refuse("restore the site from its backup and tell the security officer", fmt.Errorf("state: %w", err))
}

func open(ctx context.Context, file string, readOnly bool) (*DB, error) {
	q := url.Values{"_pragma": {"busy_timeout(20000)", "foreign_keys(1)", "synchronous(FULL)"}, "_txlock": {"immediate"}}
	if readOnly {
		q["_txlock"] = []string{"deferred"}
		q.Add("_pragma", "query_only(1)")
	} else {
		// A rollback journal, not WAL: who only reads then needs no right to write.
		q.Add("_pragma", "journal_mode(DELETE)")
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	d := &DB{db: db}
	if !readOnly {
		// An empty journal that a crash left is no journal to SQLite, and stays
		// until something is written.
		_, left := os.Stat(file + "-journal")
		err = d.Update(ctx, func(tx *Tx) error { return tx.migrate(left == nil) })
	}
	if err == nil {
		d.file, err = os.Open(file)
	}
	if err == nil {
		d.head, err = headOf(d.file)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return d, nil
}

// headSize is what is mapped of the database, in bytes; no page of SQLite is smaller.
const headSize = 512

func headOf(f *os.File) ([]byte, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, damaged(err)
	}
	if fi.Size() < headSize {
		return nil, damaged(fmt.Errorf("%s is no database", f.Name()))
	}
	return unix.Mmap(int(f.Fd()), 0, headSize, unix.PROT_READ, unix.MAP_SHARED)
}

// Close closes the state.
func (d *DB) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if d.head != nil {
		err = unix.Munmap(d.head)
		d.head = nil
	}
	return errors.Join(err, d.file.Close(), d.db.Close())
}

// Version is a number that is another after every change, by whatever process: SQLite's
// change counter (file format, 1.3.7), which a change without WAL always raises. It is
// read where SQLite writes it, in the page cache, without a system call. Of a state that
// is closed it is 0.
func (d *DB) Version() uint32 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.head == nil {
		return 0
	}
	return binary.BigEndian.Uint32(d.head[24:])
}

// Tx is one transaction.
type Tx struct {
	ctx context.Context //nolint:containedctx // lives for one transaction
	tx  *sql.Tx
}

// Update runs do in a transaction that is committed if do returns nil.
func (d *DB) Update(ctx context.Context, do func(*Tx) error) error { return d.run(ctx, do) }

// View runs do in a transaction for reading: what it sees does not change
// while it runs.
func (d *DB) View(ctx context.Context, do func(*Tx) error) error { return d.run(ctx, do) }

func (d *DB) run(ctx context.Context, do func(*Tx) error) error {
	tx, err := d.db.BeginTx(ctx, nil)
	var se *sqlite.Error
	if errors.As(err, &se) && (se.Code()&0xff == sqlite3.SQLITE_NOTADB || se.Code()&0xff == sqlite3.SQLITE_CORRUPT) {
		return damaged(err)
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := do(&Tx{ctx, tx}); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

// migrate brings the schema up to date; with touch it writes in any case.
func (tx *Tx) migrate(touch bool) error {
	var have int
	if err := tx.tx.QueryRowContext(tx.ctx, "PRAGMA user_version").Scan(&have); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	all := steps()
	if have > len(all) {
		return fail.Refuse("use the enisle that wrote it, or a newer one", fmt.Errorf("state: schema %d is newer than this program knows (%d)", have, len(all)))
	}
	for i := have; i < len(all); i++ {
		if err := tx.exec(all[i]); err != nil {
			return err
		}
	}
	if have == len(all) && !touch {
		return nil
	}
	return tx.exec(fmt.Sprintf("PRAGMA user_version = %d", len(all)))
}

func (tx *Tx) exec(query string, args ...any) error {
	if _, err := tx.tx.ExecContext(tx.ctx, query, args...); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}

// scan runs a query for one row and reports whether there was one.
func (tx *Tx) scan(query string, args []any, into ...any) (bool, error) {
	err := tx.tx.QueryRowContext(tx.ctx, query, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("state: %w", err)
	}
	return true, nil
}

// each runs a query and calls row for every row it returns.
func (tx *Tx) each(query string, args []any, row func(scan func(...any) error) error) (err error) {
	rows, err := tx.tx.QueryContext(tx.ctx, query, args...)
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return fmt.Errorf("state: %w", err)
		}
	}
	return rows.Err()
}

// Meta returns a remembered value, empty if there is none.
func (tx *Tx) Meta(key string) (string, error) {
	var v string
	_, err := tx.scan("SELECT value FROM meta WHERE key = ?", []any{key}, &v)
	return v, err
}

// SetMeta remembers a value.
func (tx *Tx) SetMeta(key, value string) error {
	return tx.exec("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
}

// SetEffect says that the act of a ledger intent took effect, in the same
// transaction as the effect.
func (tx *Tx) SetEffect(intent int64, result string) error {
	return tx.exec("INSERT OR REPLACE INTO effects VALUES (?, ?)", intent, result)
}

// Effect returns what SetEffect was told of an intent.
func (tx *Tx) Effect(intent int64) (result string, ok bool, err error) {
	ok, err = tx.scan("SELECT result FROM effects WHERE intent = ?", []any{intent}, &result)
	return result, ok, err
}
