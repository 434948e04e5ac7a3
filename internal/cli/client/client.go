// Package client speaks to a running site over HTTP: it is what the terminal
// uses to ask a question and the demo to wait and to check.
//
// It dials only the address it is given.
package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"enisle/internal/fail"
)

// maxBody is the largest answer that is read whole, in bytes.
const maxBody = 16 << 20

// Client talks to one site.
type Client struct {
	Key string // of a user of the site; "": none is shown

	base string
	http *http.Client
}

// New returns a client of the site at base, such as http://127.0.0.1:8440. It
// uses no proxy.
func New(base string) *Client {
	return &Client{base: strings.TrimRight(base, "/"), http: &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}}
}

// Get returns the body of a path; any status but 200 is an error.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return b, errors.Join(err, resp.Body.Close())
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fail.As(fail.Usage, "give an address such as http://127.0.0.1:8440 with --url", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.Key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			return nil, fail.As(fail.Failed, "name the file with the authority of its certificate: SSL_CERT_FILE=ca.pem", err)
		}
		return nil, fail.As(fail.Failed, "start the site with 'enisle serve', or name another with --url", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return nil, errors.Join(refusal(resp.Status, b), err, resp.Body.Close())
}

// refusal says what a site said: in its own form, or in that of the OpenAI API.
func refusal(status string, body []byte) error {
	var said struct {
		Error json.RawMessage `json:"error"`
		Hint  string          `json:"hint"`
	}
	var openAI struct {
		Message string `json:"message"`
	}
	text := strings.TrimSpace(string(body))
	if err := json.Unmarshal(body, &said); err == nil {
		if json.Unmarshal(said.Error, &openAI) == nil && openAI.Message != "" {
			text = openAI.Message
		} else if plain := ""; json.Unmarshal(said.Error, &plain) == nil {
			text = plain
		}
	}
	if strings.HasPrefix(status, "401 ") && said.Hint == "" {
		said.Hint = "give a key of 'enisle user key NAME': --api-key-file FILE, or ENISLE_API_KEY"
	}
	return fail.As(fail.Failed, said.Hint, fmt.Errorf("the site answers %s: %s", status, text))
}

// Ready waits until the site serves all that it should, or ctx ends.
func (c *Client) Ready(ctx context.Context) error {
	for {
		_, err := c.Get(ctx, "/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Models returns the names of the models served, of which there is at least one.
func (c *Client) Models(ctx context.Context) ([]string, error) {
	b, err := c.Get(ctx, "/v1/models")
	if err != nil {
		return nil, err
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	if len(list.Data) == 0 {
		return nil, fail.As(fail.Failed, "wait while one is loaded (/readyz says so), or release a model and an engine", errors.New("no model is served"))
	}
	names := make([]string, 0, len(list.Data))
	for _, m := range list.Data {
		names = append(names, m.ID)
	}
	return names, nil
}

// Chat asks one question, calls piece for each part of the answer as it comes,
// and returns the whole.
func (c *Client) Chat(ctx context.Context, model, question string, piece func(string)) (string, error) {
	body, err := json.Marshal(map[string]any{
		"model": model, "stream": true, "max_tokens": 200, "temperature": 0,
		"messages": []map[string]string{{"role": "user", "content": question}},
	})
	if err != nil {
		return "", err
	}
	resp, err := c.do(ctx, http.MethodPost, "/v1/chat/completions", body)
	if err != nil {
		return "", err
	}
	answer, err := events(resp.Body, piece)
	return answer, errors.Join(err, resp.Body.Close())
}

// events reads a stream of server-sent chunks.
func events(r io.Reader, piece func(string)) (string, error) {
	var all strings.Builder
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		data, ok := strings.CutPrefix(s.Text(), "data: ")
		if !ok {
			continue
		}
		if data == "[DONE]" {
			return all.String(), nil
		}
		var chunk struct {
			Choices []struct {
				Delta struct {
					Content string `json:"content"`
				} `json:"delta"`
			} `json:"choices"`
			Error *struct {
				Message string `json:"message"`
			} `json:"error"`
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return all.String(), fmt.Errorf("chat: %w", err)
		}
		if chunk.Error != nil {
			return all.String(), fmt.Errorf("chat: %s", chunk.Error.Message)
		}
		for _, ch := range chunk.Choices {
			all.WriteString(ch.Delta.Content)
			piece(ch.Delta.Content)
		}
	}
	return all.String(), errors.Join(errors.New("chat: the answer ended early"), s.Err())
}
