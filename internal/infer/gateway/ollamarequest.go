package gateway

import (
	"encoding/json"
	"errors"
	"strings"
)

// ollamaRequest is what its clients send.
type ollamaRequest struct {
	Model    string            `json:"model"`
	Messages []json.RawMessage `json:"messages"`
	Prompt   string            `json:"prompt"`
	System   string            `json:"system"`
	Images   []string          `json:"images"` // of generate
	Stream   *bool             `json:"stream"` // absent: it streams
	Format   json.RawMessage   `json:"format"` // "json", or a schema
	Tools    json.RawMessage   `json:"tools"`
	Input    json.RawMessage   `json:"input"` // of embed
	Raw      bool              `json:"raw"`   // the prompt is continued as it is
	Keep     any               `json:"keep_alive"`
	Think    json.RawMessage   `json:"think"` // true, false, or how much
	Logprobs bool              `json:"logprobs"`
	Top      int               `json:"top_logprobs"`
	Sizes    *int              `json:"dimensions"` // of embed
	Suffix   string            `json:"suffix"`     // this and the next two are refused
	Template string            `json:"template"`
	Context  json.RawMessage   `json:"context"`
	Options  ollamaOptions     `json:"options"`
}

// ollamaMessage is a turn of a conversation, with pictures in base64.
type ollamaMessage struct {
	Role    string          `json:"role"`
	Content string          `json:"content"`
	Thought string          `json:"thinking,omitempty"`
	Images  []string        `json:"images,omitempty"`
	Calls   json.RawMessage `json:"tool_calls,omitempty"`
	Tool    string          `json:"tool_name,omitempty"`
}

// ollamaOptions say how tokens are chosen. Those that say how a server of one's own is
// to run (num_ctx, num_gpu, num_thread and their like) mean nothing here.
type ollamaOptions struct {
	Temperature   *float64        `json:"temperature"`
	TopK          *int            `json:"top_k"`
	TopP          *float64        `json:"top_p"`
	MinP          *float64        `json:"min_p"`
	TypicalP      *float64        `json:"typical_p"`
	RepeatLastN   *int            `json:"repeat_last_n"`
	RepeatPenalty *float64        `json:"repeat_penalty"`
	Presence      *float64        `json:"presence_penalty"`
	Frequency     *float64        `json:"frequency_penalty"`
	Seed          *int64          `json:"seed"`
	Predict       *int            `json:"num_predict"`
	Stop          json.RawMessage `json:"stop"`
}

// put adds the options to a request in the shape of the OpenAI API. What that API has no
// name for goes by the names that llama.cpp's server and vLLM know.
func (o *ollamaOptions) put(out map[string]any) {
	number(out, "temperature", o.Temperature)
	number(out, "top_k", o.TopK)
	number(out, "top_p", o.TopP)
	number(out, "min_p", o.MinP)
	number(out, "typical_p", o.TypicalP)
	number(out, "repeat_last_n", o.RepeatLastN)
	number(out, "repeat_penalty", o.RepeatPenalty)     // of llama.cpp
	number(out, "repetition_penalty", o.RepeatPenalty) // of vLLM
	number(out, "presence_penalty", o.Presence)
	number(out, "frequency_penalty", o.Frequency)
	number(out, "seed", o.Seed)
	if o.Predict != nil && *o.Predict > 0 { // else it has no bound of its own
		out["max_tokens"] = *o.Predict
	}
	if said(o.Stop) {
		out["stop"] = o.Stop
	}
}

func number[N int | int64 | float64](out map[string]any, name string, v *N) {
	if v != nil {
		out[name] = *v
	}
}

// said reports whether a field is there and not null.
func said(v json.RawMessage) bool { return len(v) > 0 && string(v) != "null" }

// translated is the request in the shape of the OpenAI API.
func (q *ollamaRequest) translated(path string) ([]byte, error) {
	if path == "/api/embed" {
		out := map[string]any{"model": q.Model, "input": q.Input}
		number(out, "dimensions", q.Sizes)
		return json.Marshal(out)
	}
	if path == "/api/embeddings" {
		return json.Marshal(map[string]any{"model": q.Model, "input": q.Prompt})
	}
	stream := q.Stream == nil || *q.Stream
	out := map[string]any{"model": q.Model, "stream": stream}
	if stream {
		out["stream_options"] = map[string]bool{"include_usage": true}
	}
	var turns []any
	if path == "/api/generate" {
		if q.System != "" {
			turns = append(turns, map[string]string{"role": "system", "content": q.System})
		}
		turns = append(turns, map[string]any{"role": "user", "content": withImages(q.Prompt, q.Images)})
	}
	for _, raw := range q.Messages {
		var m ollamaMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, err
		}
		turn := map[string]any{"role": m.Role, "content": withImages(m.Content, m.Images)}
		if m.Thought != "" {
			turn["reasoning_content"] = m.Thought
		}
		if m.Role == "tool" {
			turn["tool_call_id"] = m.Tool
		}
		if len(m.Calls) > 0 {
			calls, err := openaiCalls(m.Calls)
			if err != nil {
				return nil, err
			}
			turn["tool_calls"] = calls
		}
		turns = append(turns, turn)
	}
	if q.Raw && path == "/api/generate" {
		out["prompt"] = q.Prompt
		out["max_tokens"] = nil // else engines write little here
	} else {
		out["messages"] = turns
	}
	q.Options.put(out)
	q.putThink(out)
	if q.Logprobs {
		out["logprobs"], out["top_logprobs"] = true, q.Top
	}
	if len(q.Tools) > 2 {
		out["tools"] = q.Tools
	}
	switch f := string(q.Format); {
	case f == `"json"`:
		out["response_format"] = map[string]string{"type": "json_object"}
	case strings.HasPrefix(f, "{"):
		out["response_format"] = map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "answer", "schema": q.Format}}
	}
	return json.Marshal(out)
}

// withImages is the content of a turn: a text, or parts where there are pictures.
func withImages(text string, images []string) any {
	if len(images) == 0 {
		return text
	}
	parts := []any{map[string]string{"type": "text", "text": text}}
	for _, i := range images {
		parts = append(parts, map[string]any{"type": "image_url", "image_url": map[string]string{"url": "data:image/png;base64," + i}})
	}
	return parts
}

// openaiCalls turns calls whose arguments are objects into ones whose arguments are text.
func openaiCalls(raw json.RawMessage) (out []any, err error) {
	var calls []struct {
		Function struct {
			Name      string          `json:"name"`
			Arguments json.RawMessage `json:"arguments"`
		} `json:"function"`
	}
	err = json.Unmarshal(raw, &calls)
	for _, c := range calls {
		out = append(out, map[string]any{"type": "function", "id": c.Function.Name, "function": map[string]string{"name": c.Function.Name, "arguments": string(c.Function.Arguments)}})
	}
	return out, err
}

// refused is why a request to generate text is not answered, which would be answered in
// another way than its client means; or nil.
func (q *ollamaRequest) refused(path string) error {
	raw := q.Raw && path == "/api/generate"
	switch {
	case q.Suffix != "":
		return errors.New("suffix is not supported: send a prompt with the model's own tokens for the middle of a text, and raw")
	case q.Template != "":
		return errors.New("template is not supported: the model's own is used; to do without, send the whole prompt and raw")
	case said(q.Context) && string(q.Context) != "[]":
		return errors.New("context is not supported: send the turns before to /api/chat")
	case raw && q.Logprobs:
		return errors.New("logprobs of raw prompts are not supported: ask /v1/completions")
	case raw && said(q.Think):
		return errors.New("think is not supported for raw prompts: the prompt says whether the model thinks")
	}
	switch t := string(q.Think); {
	case !said(q.Think), t == "true", t == "false", t == `"low"`, t == `"medium"`, t == `"high"`:
		return nil
	}
	return errors.New(`think is true, false, "low", "medium" or "high"`)
}

// putThink adds whether the model is to think before it answers, and how much.
func (q *ollamaRequest) putThink(out map[string]any) {
	if !said(q.Think) {
		return
	}
	out["chat_template_kwargs"] = map[string]bool{"enable_thinking": string(q.Think) != "false"}
	if level := string(q.Think); strings.HasPrefix(level, `"`) {
		out["reasoning_effort"] = q.Think
	}
}
