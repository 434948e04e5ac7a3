package crossing_test

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/site/trust"
)

// halfApproved is an island with a shipment that alice alone approved, and a copy
// of what she signed.
func halfApproved(t *testing.T) (w *world, id string, envelope []byte) {
	t.Helper()
	w = newWorld(t)
	w.keygen("ian")
	w.must(w.enrol("high", "ian", trust.Importer))
	id = w.pack("media", 0)
	_, err := w.as("high", "ian").Import(t.Context(), w.path("media"))
	w.must(err)
	w.inspect(id)
	w.must(w.approve(id, "alice"))
	db, err := sql.Open("sqlite", w.path("high", "state/state.db"))
	w.must(err)
	w.must(db.QueryRowContext(t.Context(), "SELECT envelope FROM approvals").Scan(&envelope))
	w.must(db.Close())
	return w, id, envelope
}

// plant puts an approval into the state, as whoever may write the file can.
func (w *world) plant(id, name string, envelope []byte) {
	w.t.Helper()
	w.sql(fmt.Sprintf("INSERT OR REPLACE INTO approvals SELECT '%s', '%s-key', '%s', channel, report, X'%s' FROM approvals LIMIT 1", id, name, name, hex.EncodeToString(envelope)))
}

func (w *world) key(name string) *trust.Key {
	w.t.Helper()
	k, err := trust.LoadKey(w.path(name+".key"), nil)
	w.must(err)
	return k
}

// resigned is what somebody signed, changed and signed by another key.
func (w *world) resigned(envelope []byte, k *trust.Key, change func(*crossing.Approval)) []byte {
	w.t.Helper()
	e, err := trust.Parse(envelope)
	w.must(err)
	var a crossing.Approval
	w.must(json.Unmarshal(e.Payload, &a))
	change(&a)
	b, err := json.Marshal(a)
	w.must(err)
	env, err := trust.Sign(crossing.ApprovalType, b, k)
	w.must(err)
	return env
}

func (w *world) editEnvelope(envelope []byte, change func(*trust.Envelope)) []byte {
	w.t.Helper()
	e, err := trust.Parse(envelope)
	w.must(err)
	change(&e)
	b, err := json.Marshal(e)
	w.must(err)
	return b
}

// Ways around the second person that go through the files of a site: each ends in a
// refusal to release, and nothing is served.
func TestOneApprovalIsNotTwo(t *testing.T) {
	same := func(*crossing.Approval) {}
	for name, do := range map[string]func(w *world, id string, env []byte){
		"a copy under another name": func(w *world, id string, env []byte) { w.plant(id, "bob", env) },
		"the signature twice in one": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.editEnvelope(env, func(e *trust.Envelope) { e.Signatures = append(e.Signatures, e.Signatures[0]) }))
		},
		"the signature under another's id": func(w *world, id string, env []byte) {
			bob := w.key("bob").Public.ID()
			w.plant(id, "bob", w.editEnvelope(env, func(e *trust.Envelope) { e.Signatures[0].KeyID = bob }))
		},
		"signed by a key that nobody enrolled": func(w *world, id string, env []byte) {
			w.keygen("mallory")
			w.plant(id, "mallory", w.resigned(env, w.key("mallory"), same))
		},
		"signed by an admin":        func(w *world, id string, env []byte) { w.plant(id, "adam", w.resigned(env, w.key("adam"), same)) },
		"signed by who imported it": func(w *world, id string, env []byte) { w.plant(id, "ian", w.resigned(env, w.key("ian"), same)) },
		"signed by the site itself": func(w *world, id string, env []byte) {
			w.must(copyFile(w.path("high/keys/site.key"), w.path("site.key")))
			w.plant(id, "site", w.resigned(env, w.key("site"), same))
		},
		"signed by the low site": func(w *world, id string, env []byte) {
			w.must(copyFile(w.path("low/keys/site.key"), w.path("low.key")))
			w.plant(id, "low", w.resigned(env, w.key("low"), same))
		},
		"for another content": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Subject.Content = a.Subject.Report }))
		},
		"for another header": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Subject.Header = a.Subject.Report }))
		},
		"for another report": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Subject.Report = a.Subject.Content }))
		},
		"for another policy": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Subject.Policy = a.Subject.Content }))
		},
		"for another root": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Subject.RootVersion++ }))
		},
		"for another channel": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Subject.Channel = "candidate" }))
		},
		"for another site": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Subject.Site.Name = "elsewhere" }))
		},
		"with a waiver that is none": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Subject.Waivers = []string{"sha256:00"} }))
		},
		"a rejection": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Decision = crossing.Reject }))
		},
		"one that has ended": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Expires = time.Now().Add(-time.Hour) }))
		},
		"one of tomorrow": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Made = time.Now().Add(24 * time.Hour) }))
		},
		"under a ledger that is none": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.resigned(env, w.key("bob"), func(a *crossing.Approval) { a.Checkpoint = "" }))
		},
		"an envelope of another kind": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.editEnvelope(env, func(e *trust.Envelope) { e.PayloadType = crossing.WaiverType }))
		},
		"a payload that was changed": func(w *world, id string, env []byte) {
			w.plant(id, "bob", w.editEnvelope(env, func(e *trust.Envelope) { e.Payload[20] ^= 1 }))
		},
		"the state says that it was released": func(w *world, _ string, _ []byte) { w.sql("UPDATE shipments SET status = 'released'") },
		"the state names nobody who imported": func(w *world, _ string, _ []byte) { w.sql("UPDATE shipments SET importer = ''") },
		"the root that a threshold was taken out of": func(w *world, _ string, _ []byte) {
			w.rewrite("high/trust/root-0001.json", `"approvers":2`, `"approvers":1`)
		},
		"the policy file says one": func(w *world, _ string, _ []byte) { w.rewriteAll("high/policies/*.yaml", "default: 2", "default: 1") },
		"a draft of a root beside the sealed one": func(w *world, _ string, _ []byte) {
			w.must(copyFile(w.path("high/trust/root-0001.json"), w.path("high/trust/draft.json")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, id, env := halfApproved(t)
			do(w, id, slices.Clone(env))
			_, err := w.release(id)
			if err == nil || fail.ExitCode(err) != 3 {
				t.Errorf("exit %d: %v", fail.ExitCode(err), err)
			}
			if _, err := w.app("high").Served(t.Context(), "stable"); err == nil {
				t.Error("something is served")
			}
		})
	}
	// With the second person it is released: the refusals were not for another reason.
	w, id, _ := halfApproved(t)
	w.must(w.approve(id, "bob"))
	_, err := w.release(id)
	w.must(err)
}

// What two people signed counts for exactly that, and only while they may sign.
func TestTwoApprovalsCountOnlyForWhatTheySaid(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(w *world, id string)
		want string
	}{
		"one of the two was revoked since": {func(w *world, _ string) {
			_, err := w.as("high", "adam").Revoke(t.Context(), "bob")
			w.must(err)
			_, err = w.as("high", "eve").SignRoot(t.Context(), "")
			w.must(err)
		}, "signature 1 of 2"},
		"the people changed since": {func(w *world, _ string) {
			w.keygen("carol")
			_, err := w.as("high", "adam").AddPerson(t.Context(), "carol", []string{trust.Approver}, w.path("carol.key.pub"))
			w.must(err)
			_, err = w.as("high", "eve").SignRoot(t.Context(), "")
			w.must(err)
		}, "signature 1 of 2"},
		"the policy changed since": {func(w *world, _ string) {
			text := string(w.read("../../internal/judge/policy/standard.yaml"))
			w.must(os.WriteFile(w.path("other.yaml"), []byte(strings.Replace(text, "report: 30", "report: 29", 1)), 0o600))
			_, err := w.as("high", "adam").SetPolicy(t.Context(), w.path("other.yaml"))
			w.must(err)
			_, err = w.as("high", "eve").SignRoot(t.Context(), "")
			w.must(err)
		}, "signature 1 of 2"},
		"it was inspected again since": {func(w *world, id string) {
			w.now = time.Now().Add(time.Hour)
			w.inspect(id)
		}, "signature 1 of 2"},
		"the report in the store is another": {func(w *world, _ string) {
			names, err := filepath.Glob(w.path("high/blobs/sha256/*"))
			w.must(err)
			n := 0
			for _, name := range names {
				if b := w.read(name); bytes.Contains(b, []byte("report.v1+json")) {
					w.must(os.Chmod(name, 0o600))
					w.must(os.WriteFile(name, bytes.Replace(b, []byte("payload"), []byte("paylOad"), 1), 0o600))
					n++
				}
			}
			if n == 0 {
				t.Fatal("there is no report")
			}
		}, "report"},
		"the content in quarantine is another": {func(w *world, _ string) {
			names, err := filepath.Glob(w.path("high/quarantine/sha256/*"))
			w.must(err)
			for _, name := range names {
				if st, err := os.Stat(name); err == nil && st.Size() == 300_000 {
					w.must(os.Chmod(name, 0o600))
					w.must(os.WriteFile(name, make([]byte, 300_000), 0o600))
				}
			}
		}, "damaged"},
		"the clock stands behind what is signed": {func(w *world, _ string) { w.now = time.Now().Add(-24 * time.Hour) }, "signature 1 of 2"},
		"the approvals have ended":               {func(w *world, _ string) { w.now = time.Now().Add(31 * 24 * time.Hour) }, "signature 1 of 2"},
		"it was rejected since": {func(w *world, id string) {
			_, err := w.as("high", "bob").Decide(t.Context(), id, crossing.Reject, crossing.ApproveOptions{Channel: "stable", Reason: "no longer"})
			w.must(err)
		}, "was rejected"},
		"the newest report was taken out of the state": {func(w *world, id string) {
			w.now = time.Now().Add(time.Hour)
			w.inspect(id)
			w.sql("DELETE FROM reports WHERE id = (SELECT max(id) FROM reports)")
		}, "not the newest on record"},
		"a recall was taken out of the state": {func(w *world, _ string) {
			_, err := w.as("high", "bob").Recall(t.Context(), "files/note.txt", "no longer")
			w.must(err)
			w.sql("DELETE FROM recalls")
		}, "is on record, and is gone"},
		"it was recalled since": {func(w *world, _ string) {
			_, err := w.as("high", "bob").Recall(t.Context(), "files/note.txt", "no longer")
			w.must(err)
		}, "was recalled"},
	} {
		t.Run(name, func(t *testing.T) {
			w, id, _ := halfApproved(t)
			w.must(w.approve(id, "bob"))
			_, err := w.app("high").Release(t.Context(), id, "candidate")
			refused(t, err, "signature 1 of 2") // they signed for stable
			tc.do(w, id)
			_, err = w.release(id)
			if err == nil || fail.ExitCode(err) != 3 || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("exit %d: %v, want %q", fail.ExitCode(err), err, tc.want)
			}
		})
	}
}

func (w *world) read(name string) []byte {
	w.t.Helper()
	b, err := os.ReadFile(name)
	w.must(err)
	return b
}

// rewrite changes what a file of a site says, wherever it is said.
func (w *world) rewrite(name, from, to string) {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	w.must(err)
	if e, err := trust.Parse(b); err == nil {
		e.Payload = replaced(w.t, e.Payload, from, to)
		b, err = json.Marshal(e)
		w.must(err)
	} else {
		b = replaced(w.t, b, from, to)
	}
	w.must(os.WriteFile(w.path(name), b, 0o600))
}

func (w *world) rewriteAll(pattern, from, to string) {
	w.t.Helper()
	files, err := filepath.Glob(w.path(pattern))
	if err != nil || len(files) == 0 {
		w.t.Fatal(errors.Join(err, errors.New("no file: "+pattern)))
	}
	for _, f := range files {
		rel, err := filepath.Rel(w.dir, f)
		w.must(err)
		w.rewrite(rel, from, to)
	}
}

func replaced(t *testing.T, b []byte, from, to string) []byte {
	t.Helper()
	if !bytes.Contains(b, []byte(from)) {
		t.Fatalf("%q is not there", from)
	}
	return bytes.Replace(b, []byte(from), []byte(to), 1)
}
