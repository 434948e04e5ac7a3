// Package tensorflow inspects graphs of TensorFlow: saved models, frozen graphs and
// models of TensorFlow Lite. It looks for operations that reach out of the model,
// in every graph, function and library, and executes none.
//
// Graphs are walked field by field, whatever their size; tensors are not read. What
// is beside a saved model, its variables, is numbers and is only named.
package tensorflow

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/keras"
	"enisle/internal/model/wire"
)

// Scanner inspects graphs; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "tensorflow".
func (Scanner) Name() string { return "tensorflow" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "2" }

func base(s inspect.Subject) string { return s.Path[strings.LastIndexAny(s.Path, "/!")+1:] }

// shard is the name of a file of variables.
var shard = regexp.MustCompile(`\.data-\d{5}-of-\d{5}$`)

// tableMagic ends a table of names of variables (LevelDB, table_format.md).
const tableMagic = 0xdb4775248b80fb57

func isLite(s inspect.Subject) bool {
	return strings.EqualFold(path.Ext(s.Path), ".tflite") || len(s.Head) > 8 && string(s.Head[4:8]) == "TFL3"
}

// Wants takes graphs by name, models of TensorFlow Lite by bytes as well, and the
// variables of models.
func (Scanner) Wants(s inspect.Subject) bool {
	ext := strings.ToLower(path.Ext(s.Path))
	if s.Packaged() {
		return ext == ".tflite" || base(s) == "saved_model.pb"
	}
	return isLite(s) || slices.Contains([]string{".pb", ".pbtxt", ".meta"}, ext) || shard.MatchString(s.Path) || ext == ".index" && isTable(s)
}

func isTable(s inspect.Subject) bool {
	var b [8]byte
	if s.Size < 48 {
		return false
	}
	n, _ := s.ReadAt(b[:], s.Size-8)
	return n == 8 && binary.LittleEndian.Uint64(b[:]) == tableMagic
}

// Scan judges the operations.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	ext := strings.ToLower(path.Ext(s.Path))
	switch {
	case isLite(s):
		run.Note(inspect.Format, "tflite")
		return scanLite(s, run)
	case shard.MatchString(s.Path), ext == ".index":
		run.Note(inspect.Format, "variables of TensorFlow")
		return nil
	case ext == ".pbtxt":
		return scanText(s, run)
	}
	run.Note(inspect.Format, "tensorflow")
	roots := []kind{graphDef, savedModel, metaGraph}
	switch base(s) {
	case "saved_model.pb":
		roots = []kind{savedModel}
	case "keras_metadata.pb":
		roots = []kind{kerasMetadata}
	case "fingerprint.pb":
		roots = []kind{fingerprint}
	}
	return scanGraph(ctx, s, roots, run)
}

// graphWords are fields that graphs have as text, and lists of labels have not.
var graphWords = regexp.MustCompile(`\b(op|node|node_def|graph_def|meta_graphs|library)\b`)

// scanText refuses graphs that are kept as text. Lists of labels are, too, and pass.
func scanText(s inspect.Subject, run inspect.Run) error {
	graph := s.Size > maxConfig
	if !graph {
		b := make([]byte, s.Size)
		if _, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size), b); err != nil {
			return err
		}
		graph = graphWords.Match(b) || bytes.IndexByte(b, 0) >= 0
	}
	if graph {
		run.Report("text", s.Data(), "a graph as text, which is not read: save it in its binary form")
		return nil
	}
	run.Note(inspect.Format, "labels of TensorFlow")
	return nil
}

// scanGraph judges a file as each of the messages that it may be: of a frozen graph
// the name does not tell. It is refused if it is none.
func scanGraph(ctx context.Context, s inspect.Subject, roots []kind, run inspect.Run) error {
	var failed error
	read := false
	for _, root := range roots {
		w := walker{ctx: ctx, ops: map[string]int{}, frozen: root == graphDef}
		err := w.message(wire.Open(s, s.Size, maxFields), root, 0)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("as %s: %w", names[root], err))
			if w.nodes == 0 || len(roots) > 1 {
				continue
			}
		}
		read = read || err == nil && (w.nodes > 0 || root == kerasMetadata || root == fingerprint)
		w.report(s, run)
	}
	if !read {
		if failed == nil {
			failed = errors.New("it has no operation")
		}
		run.Report("broken", s.Data(), "no graph that can be read: "+strings.ReplaceAll(failed.Error(), "\n", "; "))
	}
	return nil
}

// report says what the operations are.
func (w *walker) report(s inspect.Subject, run inspect.Run) {
	var out, strange []string
	for _, op := range slices.Sorted(maps.Keys(w.ops)) {
		switch {
		case vocabulary(op):
			run.Report("vocabulary", inspect.Warn, op+" reads a file of words, from a path that a tensor holds")
		case reaches(op), w.frozen && saves(op):
			out = append(out, op)
		case !computes(op) && !w.functions[op]:
			strange = append(strange, op)
		}
	}
	if len(out) > 0 {
		run.Report("operation", s.Data(), fmt.Sprintf("it has operations that reach out of the model: %.200v", out))
	}
	if len(strange) > 0 {
		run.Report("custom-operation", inspect.Warn, fmt.Sprintf("it has operations that are not known, or that no model for inference needs: %.200v", strange))
	}
	for _, text := range w.configs {
		keras.Judge(run, s.Data(), text)
	}
	run.Note(inspect.Model, fmt.Sprintf("%d nodes of %d operations", w.nodes, len(w.ops)))
}

// kind is the type of a message.
type kind byte

const (
	skip kind = iota // never read
	text             // kept
	savedModel
	metaGraph
	graphDef
	nodeDef
	library
	functionDef
	signature
	attrEntry
	attrValue
	attrList
	nameAttrs
	objectGraph
	object
	userObject
	kerasMetadata
	kerasObject
	fingerprint
	kinds
)

// names of the messages that files are; constant.
var names = map[kind]string{savedModel: "a saved model", metaGraph: "a meta graph", graphDef: "a graph", kerasMetadata: "metadata of Keras", fingerprint: "a fingerprint"}

// schema are the fields on the way to every operation: tensorflow/core/protobuf
// saved_model.proto, meta_graph.proto, saved_object_graph.proto and
// tensorflow/core/framework graph.proto, node_def.proto, function.proto,
// attr_value.proto (TensorFlow 2.20). Fields that are not in it are refused. Constant.
var schema = [kinds]map[int]kind{
	savedModel:    {1: skip, 2: metaGraph},
	metaGraph:     {1: skip, 2: graphDef, 3: skip, 4: skip, 5: skip, 6: skip, 7: objectGraph},
	graphDef:      {1: nodeDef, 2: library, 3: skip, 4: skip, 5: skip},
	nodeDef:       {1: skip, 2: text, 3: skip, 4: skip, 5: attrEntry, 6: skip, 7: skip},
	library:       {1: functionDef, 2: skip, 3: skip},
	functionDef:   {1: signature, 3: nodeDef, 4: skip, 5: attrEntry, 6: skip, 7: skip, 8: skip},
	signature:     {1: text, 2: skip, 3: skip, 4: skip, 5: skip, 6: skip, 8: skip, 16: skip, 17: skip, 18: skip, 19: skip, 20: skip, 21: skip},
	attrEntry:     {1: skip, 2: attrValue},
	attrValue:     {1: attrList, 2: skip, 3: skip, 4: skip, 5: skip, 6: skip, 7: skip, 8: skip, 9: skip, 10: nameAttrs},
	attrList:      {2: skip, 3: skip, 4: skip, 5: skip, 6: skip, 7: skip, 8: skip, 9: nameAttrs},
	nameAttrs:     {1: text, 2: attrEntry},
	objectGraph:   {1: object, 2: skip},
	object:        {1: skip, 2: skip, 3: skip, 4: userObject, 5: skip, 6: skip, 7: skip, 8: skip, 9: skip, 10: skip, 11: skip, 12: skip, 13: skip, 14: skip, 15: skip, 16: skip},
	userObject:    {1: skip, 2: skip, 3: text, 4: skip},
	kerasMetadata: {1: kerasObject},
	kerasObject:   {2: skip, 3: skip, 4: skip, 5: text, 6: skip},
	fingerprint:   {1: skip, 2: skip, 3: skip, 4: skip, 5: skip, 6: skip, 7: skip},
}

const (
	maxDepth  = 64
	maxFields = 50_000_000
	maxText   = 4 << 10 // bytes of a name
	maxConfig = 16 << 20
	maxOps    = 10_000 // different ones
)

// walker reads one file.
type walker struct {
	ctx       context.Context
	ops       map[string]int
	functions map[string]bool // of its own
	configs   []string        // of layers of Keras
	size      int             // of configs
	nodes     int
	frozen    bool // it is a graph alone, which has nothing to save
}

// message reads one message to its end.
func (w *walker) message(m wire.Message, k kind, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("messages nest deeper than %d", maxDepth)
	}
	for n := 0; ; n++ {
		if n%4096 == 4095 && w.ctx.Err() != nil {
			return w.ctx.Err()
		}
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("byte %d: %w", m.At(), err)
		}
		of, ok := schema[k][f.Number]
		switch {
		case !ok || of != skip && f.Type != wire.Bytes:
			return fmt.Errorf("byte %d: there is no field %d of this type here", m.At(), f.Number)
		case of == text:
			err = w.text(f.Body, k)
		case of != skip:
			if of == nodeDef {
				w.nodes++
			}
			err = w.message(f.Body, of, depth+1)
		}
		if err != nil {
			return err
		}
	}
}

// text keeps a name: of an operation, of a function or of a layer.
func (w *walker) text(m wire.Message, k kind) error {
	limit := maxText
	if k == userObject || k == kerasObject {
		limit = maxConfig
	}
	v, err := m.Text(limit)
	if err != nil {
		return err
	}
	switch k {
	case nodeDef:
		w.ops[v]++
	case signature:
		if w.functions == nil {
			w.functions = map[string]bool{}
		}
		w.functions[v] = true
	case nameAttrs:
		if reaches(v) {
			w.ops[v]++ // an operation that is called by the name of a function
		}
	case userObject, kerasObject:
		if w.size += len(v); w.size > maxConfig*4 {
			return errors.New("its layers have too much text")
		}
		if len(bytes.TrimSpace([]byte(v))) > 0 {
			w.configs = append(w.configs, v)
		}
	}
	if len(w.ops) > maxOps || len(w.functions) > maxOps*10 {
		return errors.New("it has too many operations")
	}
	return nil
}
