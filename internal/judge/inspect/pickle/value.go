package pickle

import (
	"slices"
	"strings"
)

// What a value on the stack is, as far as it matters.
type kind uint8

const (
	unknown kind = iota // a value that holds no name: a number, a long text
	mark                // MARK
	raw                 // bytes: num is where they stand, size how many
	none                // None
	integer             // an int, the largest of 63 bits if it does not fit
	text                // a string that may become a name
	tuple               // items
	list                // items
	dict                // items: key, value, key, value …
	set                 // of anything
	callee              // an imported name
	product             // what calling an allowed name made
	storage             // what a persistent id stands for: num numbers of torch
)

// data is what is known of a value besides its kind. Containers share it, so that
// what is added later is seen by all who hold it.
type data struct {
	text  string  // of text
	g     global  // of callee, and of a product: what made it
	items []value // of containers: at most maxItems; of a product: its arguments
	size  int64   // of raw, of a text that is too long to be a name and of what is encoded, in bytes
	n     int64   // items of a container, also those that are not followed
	lost  bool    // more items came than are followed
	inner bool    // a key of a dict is a special name, such as __class__
	runs  bool    // a key of a dict has a library run its value
	odd   bool    // a key of a dict is made by a call, and may be any text
	whole float64 // of containers: values in it, those that are shared as often as they are reached
}

// value is what one place of the stack holds. Most hold no data.
type value struct {
	kind kind
	num  int64
	*data
}

// maxItems is how many items of one container are followed; the rest is judged
// when it is made, and then forgotten.
const (
	maxItems    = 64
	maxFollowed = 8_000_000 // items of all containers of a stream
	maxWhole    = 1e12      // values of one container, when all that is shared is written out
)

func textOf(s string) value { return value{kind: text, data: &data{text: s}} }

func (m *machine) container(k kind, items []value) value {
	v := value{kind: k, data: &data{whole: 1}}
	m.add(v, items)
	return v
}

// add puts items into a container, as far as they are followed.
func (m *machine) add(v value, items []value) {
	v.n += int64(len(items))
	for _, i := range items {
		if i.kind == callee && slices.Contains(tools, i.g) {
			m.refuse("it hands %s.%s on, to be called later", i.g.module, i.g.name)
		}
		if v.whole++; i.data != nil && i.data != v.data {
			v.whole += i.whole
		}
	}
	if v.whole > maxWhole && !m.bomb {
		m.bomb = true
		m.refuse("it holds the same values in themselves again and again: a bomb")
	}
	for i := 0; v.kind == dict && i < len(items); i += 2 {
		switch k := items[i]; k.kind {
		case text:
			v.inner = v.inner || special(k.text)
			v.runs = v.runs || i+1 < len(items) && runs(k, items[i+1])
		case product:
			v.odd = true
		}
	}
	room := min(maxItems-len(v.items), maxFollowed-m.followed)
	if len(items) > room {
		items, v.lost = items[:max(0, room)], true
	}
	v.items = append(v.items, items...)
	m.followed += len(items)
}

// get returns the value of a key of a dict.
func (v value) get(key string) (value, bool) {
	if v.kind != dict || v.data == nil {
		return value{}, false
	}
	for i := 0; i+1 < len(v.items); i += 2 {
		if k := v.items[i]; k.kind == text && k.text == key {
			return v.items[i+1], true
		}
	}
	return value{}, false
}

// made reports whether a value was made by calling one of the names.
func (v value) made(by ...global) bool {
	if v.kind != product {
		return false
	}
	for _, g := range by {
		if v.g == g {
			return true
		}
	}
	return false
}

// special reports whether a name has a meaning of its own in Python. What a thing is
// called and explained as does no harm.
func special(name string) bool {
	return strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__") && name != "__doc__" && name != "__name__"
}

// name returns a text, and of what is none what nothing is called.
func (v value) name() string {
	if v.kind != text {
		return "\x00"
	}
	return v.text
}

// listed returns the items of a container.
func (v value) listed() []value {
	if v.data == nil {
		return nil
	}
	return v.items
}
