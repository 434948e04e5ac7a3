//go:build !noengine

package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ebitengine/purego"
	"github.com/hybridgroup/yzma/pkg/llama"
	"github.com/hybridgroup/yzma/pkg/utils"

	"enisle/internal/fail"
	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/openai"
)

// promptBatch is how many tokens of a prompt are decoded before looking
// whether the client is still there: about a second on one slow processor.
const promptBatch = 256

// model is a loaded model with one context. It is used by one request at a time.
type model struct {
	model    llama.Model
	ctx      llama.Context
	vocab    llama.Vocab
	template string
	context  int                             // tokens
	longest  int                             // of them, in bytes
	asking   atomic.Pointer[context.Context] // of the request under way
}

// loadLibraries loads llama.cpp and the variant of ggml that is fastest here.
func loadLibraries(dir string) error {
	if err := llama.Load(dir); err != nil {
		return fmt.Errorf("load llama.cpp: %w", err)
	}
	llama.LogSet(purego.NewCallback(say))
	llama.BackendInit()
	if err := llama.GGMLBackendLoadAllFromPath(dir); err != nil {
		return fmt.Errorf("load ggml: %w", err)
	}
	if llama.GGMLBackendDeviceCount() == 0 {
		return errors.New("load ggml: no variant fits this processor")
	}
	return nil
}

// Levels of what llama.cpp says; ggml.h, enum ggml_log_level.
const (
	logInfo  = 2
	logError = 4
)

// say prints what llama.cpp says, from information upwards: below that it
// names every tensor.
func say(level int32, text *byte, _ uintptr) uintptr {
	if level >= logInfo && level <= logError {
		_, _ = os.Stderr.WriteString(utils.BytePtrToString(text)) // the parent may have gone
	}
	return 0
}

// loadModel loads the weights. A chat template that llama.cpp does not know is an error; a
// model without one only continues texts.
func loadModel(o llamacpp.Order) (m *model, err error) {
	paths := make([]string, len(o.Models))
	for i, name := range o.Models {
		paths[i] = filepath.Join(o.Dir, name)
	}
	m = &model{}
	params := llama.ModelDefaultParams()
	if len(paths) == 1 {
		m.model, err = llama.ModelLoadFromFile(paths[0], params)
	} else {
		m.model, err = llama.ModelLoadFromSplits(paths, params)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	m.vocab = llama.ModelGetVocab(m.model)
	m.longest = longestToken(m.vocab)
	m.context = min(o.Context, int(llama.ModelNCtxTrain(m.model)))
	m.template = llama.ModelChatTemplate(m.model, "")
	cp := llama.ContextDefaultParams()
	cp.NCtx, cp.NBatch, cp.NUbatch, cp.NSeqMax = uint32(m.context), promptBatch, promptBatch, 1
	cp.NThreads, cp.NThreadsBatch = int32(o.Threads), int32(o.Threads)
	if m.ctx, err = llama.InitFromModel(m.model, cp); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	m.context = min(m.context, int(llama.NCtx(m.ctx)))
	llama.SetAbortCallback(m.ctx, func() bool { // between two steps of a batch, which may take seconds
		asking := m.asking.Load()
		return asking != nil && (*asking).Err() != nil
	})
	if _, err := m.prompt([]openai.Message{{Role: "user", Content: "?"}}); m.template != "" && err != nil {
		return nil, fail.Refuse("choose another model, or another engine for it", fmt.Errorf("%s: %w", o.Name, err))
	}
	return m, nil
}

func (m *model) close() {
	_ = llama.Free(m.ctx)
	_ = llama.ModelFree(m.model) // both only say that there was nothing to free
}

// prompt writes the conversation the way the model was trained to read it. The
// template is applied to place-holders, and what people wrote is turned into
// tokens by itself: no text of a message can become a control token.
func (m *model) prompt(messages []openai.Message) ([]llama.Token, error) {
	if m.template == "" {
		return nil, openai.Errorf(http.StatusNotFound, "not_supported", "the model has no chat template: it continues texts, at /v1/completions").On("messages")
	}
	size := 0
	for _, msg := range messages {
		size += len(msg.Content) + 1
	}
	if err := m.fits(size, "messages"); err != nil {
		return nil, err
	}
	mark := "\x02" + rand.Text()
	chat := make([]llama.ChatMessage, len(messages))
	size = len(m.template) + 1024
	for i, msg := range messages {
		chat[i] = llama.NewChatMessage(msg.Role, fmt.Sprintf("%s-%d\x03", mark, i))
		size += 256
	}
	buf := make([]byte, size)
	n := llama.ChatApplyTemplate(m.template, chat, true, buf)
	runtime.KeepAlive(chat)
	if n <= 0 || int(n) > len(buf) {
		return nil, errors.New("the model's chat template is not one that llama.cpp knows")
	}
	var tokens []llama.Token
	add := func(text string, control bool) {
		if text != "" {
			tokens = append(tokens, llama.Tokenize(m.vocab, text, len(tokens) == 0 && control, control)...)
		}
	}
	rest := string(buf[:n])
	for i, msg := range messages {
		before, after, found := strings.Cut(rest, fmt.Sprintf("%s-%d\x03", mark, i))
		if !found {
			return nil, openai.Errorf(http.StatusBadRequest, "invalid_value",
				"the model's chat template has no place for message %d with the role %s", i, msg.Role).On("messages")
		}
		add(before, true)
		add(string(msg.Content), false)
		rest = after
	}
	add(rest, true)
	return tokens, nil
}

// fits refuses what cannot fit into the context: to find out by how much, a long text
// would take the model from all others for half a minute.
func (m *model) fits(size int, param string) error {
	if size/m.longest < m.context {
		return nil
	}
	return openai.Errorf(http.StatusBadRequest, "context_length_exceeded",
		"the prompt has %d tokens or more and the model takes %d, prompt and answer together", size/m.longest, m.context).On(param)
}

// longestToken returns how many bytes the longest token of a vocabulary stands for: any
// number, where one stands for what is unknown or left out.
func longestToken(v llama.Vocab) int {
	if k := llama.GetVocabType(v); k != llama.VocabTypeBPE && k != llama.VocabTypeSPM {
		return math.MaxInt
	}
	longest, buf := 1, make([]byte, 1<<10)
	for t := range llama.VocabNTokens(v) {
		n := int(llama.TokenToPiece(v, llama.Token(t), buf, 0, true))
		longest = max(longest, n, -n) // negative: it needs as many
	}
	return longest
}

// tokens returns those of a text, none of them a control token but those that begin every
// text of the model, if it has some and whole is true.
func (m *model) tokens(text string, whole bool) []llama.Token {
	return llama.Tokenize(m.vocab, text, whole, false)
}

// generate decodes the prompt and then up to limit tokens, and gives the bytes
// of each to take, whose errStopped ends it. It returns the number of tokens
// and whether the model or take ended the answer. Nothing of an earlier
// request is kept: who shares a model learns nothing of the others by timing.
func (m *model) generate(ctx context.Context, prompt []llama.Token, limit int, s sampling, take func([]byte) error) (n int, ended bool, err error) {
	m.asking.Store(&ctx)
	defer m.asking.Store(nil)
	mem, err := llama.GetMemory(m.ctx)
	if err != nil {
		return 0, false, fmt.Errorf("memory: %w", err)
	}
	if err := llama.MemoryClear(mem, true); err != nil {
		return 0, false, fmt.Errorf("memory: %w", err)
	}
	for batch := range slices.Chunk(prompt, promptBatch) {
		if err := m.decode(ctx, batch); err != nil {
			return 0, false, err
		}
	}
	chosen, err := newChooser(m, s, prompt)
	if err != nil {
		return 0, false, err
	}
	defer chosen.close()
	buf := make([]byte, 256)
	for n < limit {
		token, err := chosen.next()
		if err != nil {
			return n, false, err
		}
		if llama.VocabIsEOG(m.vocab, token) {
			return n, true, nil
		}
		n++
		size := llama.TokenToPiece(m.vocab, token, buf, 0, false)
		if size < 0 { // it needs as many bytes
			buf = make([]byte, -size)
			size = llama.TokenToPiece(m.vocab, token, buf, 0, false)
		}
		if err := take(buf[:max(size, 0)]); errors.Is(err, errStopped) {
			return n, true, nil
		} else if err != nil {
			return n, false, err
		}
		if n == limit {
			break
		}
		if err := m.decode(ctx, []llama.Token{token}); err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

func (m *model) decode(ctx context.Context, tokens []llama.Token) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	code, err := llama.Decode(m.ctx, llama.BatchGetOne(tokens))
	runtime.KeepAlive(tokens)
	if err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	if code != 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		return fmt.Errorf("decode: llama.cpp answers %d", code)
	}
	return nil
}
