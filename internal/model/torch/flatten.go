package torch

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// walk gives everything in a graph its name.
type walk struct {
	c     *Checkpoint
	names map[string]bool
	open  []any // containers being walked: none may hold itself
	nodes int
	bytes int64 // of all tensors
	limit int64 // of them
}

// flatten turns the graph into tensors and other values.
func (c *Checkpoint) flatten(root any, stored int64) error {
	w := &walk{c: c, names: map[string]bool{}, limit: maxFree}
	if stored > (1<<62)/maxGrowth {
		return errors.New("its storages are too large")
	}
	w.limit += stored * maxGrowth
	return w.value("", root)
}

func join(name, key string) string {
	if name == "" {
		return key
	}
	return name + "." + key
}

func (w *walk) value(name string, v any) error {
	if w.nodes++; w.nodes > maxNodes {
		return errors.New("it holds too many values, or the same ones too often")
	}
	switch v := v.(type) {
	case *view:
		return w.tensor(name, v)
	case *array:
		if v.view == nil {
			return refuse("%.80q is an array of numpy without content", name)
		}
		return w.tensor(name, v.view)
	case *dict:
		keys := make([]string, len(v.keys))
		for i, k := range v.keys {
			keys[i] = fmt.Sprint(k)
		}
		return w.items(name, v, keys, v.values)
	case *list:
		return w.items(name, v, nil, v.items)
	case *tuple:
		return w.items(name, v, nil, v.items)
	case *storage:
		return refuse("%.80q is a storage without a tensor, which is not understood", name)
	}
	return w.leaf(name, v)
}

// items names what a container holds; without keys, by number.
func (w *walk) items(name string, self any, keys []string, values []any) error {
	if len(w.open) == maxDepth {
		return refuse("containers stand inside each other deeper than %d", maxDepth)
	}
	if slices.Contains(w.open, self) {
		return refuse("%.80q holds itself", name)
	}
	w.open = append(w.open, self)
	for i, v := range values {
		key := strconv.Itoa(i)
		if keys != nil {
			key = keys[i]
		}
		if err := w.value(join(name, key), v); err != nil {
			return err
		}
	}
	w.open = w.open[:len(w.open)-1]
	return nil
}

func (w *walk) tensor(name string, v *view) error {
	if name == "" {
		name = "tensor" // the file is one tensor
	}
	switch {
	case len(name) > maxName || !utf8.ValidString(name) || strings.ContainsRune(name, 0) || name == "__metadata__":
		return refuse("%.80q is no name for a tensor: it is too long, no UTF-8, or reserved", name)
	case w.names[name]:
		return refuse("two tensors come to the name %.80q", name)
	case len(w.c.Tensors) == maxTensors:
		return refuse("it holds more than %d tensors", maxTensors)
	}
	w.names[name] = true
	n, err := product(v.numel, v.kind.size)
	if err != nil || n > w.limit-w.bytes {
		return refuse("with %.80q the tensors come to more than %d times what is stored", name, maxGrowth)
	}
	w.bytes += n
	t := Tensor{Name: name, Type: v.kind.safe, Shares: v.storage.data.first, view: v}
	for _, d := range v.shape {
		t.Shape = append(t.Shape, uint64(d))
	}
	if v.storage.data.first == "" {
		v.storage.data.first = name
	}
	w.c.Tensors = append(w.c.Tensors, t)
	return nil
}

func (w *walk) leaf(name string, v any) error {
	l := Leaf{Name: name}
	switch v := v.(type) {
	case none:
		l.Kind = "None"
	case bool:
		l.Kind, l.Text = "bool", strconv.FormatBool(v)
	case int64:
		l.Kind, l.Text = "int", strconv.FormatInt(v, 10)
	case large:
		l.Kind, l.Text = "int", string(v)
	case float64:
		l.Kind, l.Text = "float", strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		l.Kind, l.Text = "str", v
	case []byte:
		l.Kind, l.Text, l.Cut = "bytes", fmt.Sprintf("%d bytes", len(v)), true
	case plain:
		l.Kind, l.Text = v.kind, v.text
	case global:
		l.Kind, l.Text = "name", v.String()
	case *arrayType:
		l.Kind, l.Text = "numpy dtype", v.name
	default:
		return refuse("%.80q is %s", name, describe(v))
	}
	if len(w.c.Leaves) == maxLeaves {
		return refuse("it holds more than %d values that are no tensors", maxLeaves)
	}
	if len(l.Text) > leafText {
		l.Text, l.Cut = strings.ToValidUTF8(l.Text[:leafText], ""), true
	}
	if len(l.Name) > maxName {
		l.Name, l.Cut = strings.ToValidUTF8(l.Name[:maxName], "")+"…", true
	}
	w.c.Leaves = append(w.c.Leaves, l)
	return nil
}

// Under keeps only what stands below a key, such as state_dict, and takes the key
// off the names. It returns how many tensors stood elsewhere, and refuses a key
// below which there are none.
func (c *Checkpoint) Under(key string) (elsewhere int, err error) {
	prefix := key + "."
	tops := map[string]bool{}
	first := map[*data]string{}
	var tensors []Tensor
	for _, t := range c.Tensors {
		top, _, _ := strings.Cut(t.Name, ".")
		tops[top] = true
		name, ok := strings.CutPrefix(t.Name, prefix)
		if !ok || name == "" {
			elsewhere++
			continue
		}
		d := t.view.storage.data
		if t.Name, t.Shares = name, first[d]; t.Shares == "" {
			first[d] = name
		}
		tensors = append(tensors, t)
	}
	if len(tensors) == 0 {
		names := slices.Sorted(maps.Keys(tops))
		return elsewhere, &Refusal{fmt.Sprintf("no tensor stands below the key %.80q", key), fmt.Sprintf("the tensors stand below: %.300s", strings.Join(names[:min(len(names), 10)], ", "))}
	}
	var leaves []Leaf
	for _, l := range c.Leaves {
		if name, ok := strings.CutPrefix(l.Name, prefix); ok {
			l.Name = name
			leaves = append(leaves, l)
		}
	}
	c.Tensors, c.Leaves = tensors, leaves
	return elsewhere, nil
}
