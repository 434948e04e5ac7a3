package access

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestKeys(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	first, a := NewKey(now, time.Time{})
	second, b := NewKey(now, now.Add(time.Hour))
	if strings.Contains(first.Hash, a) || first.ID == second.ID {
		t.Fatal("a key is kept as it is, or two are the same")
	}
	table := NewTable([]User{
		{Name: "ada", Roles: []string{Mirror}, Channels: []string{Default}, Keys: []Key{first, second}},
		{Name: "gone", Roles: []string{Mirror}, Expires: now.Add(-time.Second)},
	})
	for name, c := range map[string]struct {
		text string
		at   time.Time
		good bool
	}{
		"good":                       {a, now, true},
		"good for a while":           {b, now.Add(59 * time.Minute), true},
		"over":                       {b, now.Add(time.Hour), false},
		"empty":                      {"", now, false},
		"one letter more":            {a + "A", now, false},
		"one letter less":            {a[:len(a)-1], now, false},
		"another secret":             {a[:len(a)-43] + b[len(b)-43:], now, false},
		"another id":                 {"enisle_" + second.ID + a[len("enisle_")+12:], now, false},
		"an id that nobody has":      {"enisle_000000000000" + a[len("enisle_")+12:], now, false},
		"only the hash":              {first.Hash, now, false},
		"no id, for the zero record": {"enisle__" + a[len(a)-43:], now, false},
	} {
		u, err := table.ByKey(c.text, c.at)
		if c.good != (err == nil) || c.good && u.Name != "ada" || !c.good && !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v, %v", name, u.Name, err)
		}
	}
	if _, err := table.Named("gone", now); err == nil {
		t.Error("a user whose time is over is let in")
	}
	if !(Table{}).Empty() || table.Empty() {
		t.Error("empty")
	}
}

func TestMay(t *testing.T) {
	u := User{Name: "ada", Roles: []string{Mirror}, Channels: []string{"stable"}}
	if !u.May(Mirror, "stable") || u.May(Mirror, "canary") || u.May(Inference, "") || u.May(Monitor, "") {
		t.Error("a role or channel counts that was not given")
	}
	if !u.MayAsk("any") || (User{Models: []string{"a"}}).MayAsk("b") {
		t.Error("models")
	}
	for name, bad := range map[string]User{
		"no name":        {Roles: []string{Mirror}},
		"line in a name": {Name: "a\nb", Roles: []string{Mirror}},
		"no role":        {Name: "a"},
		"unknown role":   {Name: "a", Roles: []string{"root"}},
		"bad channel":    {Name: "a", Roles: []string{Mirror}, Channels: []string{"../x"}},
		"bad weight":     {Name: "a", Roles: []string{Mirror}, Weight: 1001},
	} {
		if bad.Check() == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := u.Check(); err != nil {
		t.Error(err)
	}
}
