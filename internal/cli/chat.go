package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/cli/client"
	"enisle/internal/fail"
	"enisle/internal/plain"
)

func (e *env) chat() *cobra.Command {
	var base, model, keyFile string
	c := &cobra.Command{
		Use: "chat QUESTION", Short: "Ask a released model from the terminal", Args: cobra.MinimumNArgs(1),
		Example: "  enisle chat --model smollm2-135m 'What is an island?'\n" +
			"  enisle chat --api-key-file ~/.enisle-key 'What is an island?'   # where users are enrolled; or ENISLE_API_KEY=KEY",
		RunE: func(c *cobra.Command, args []string) error {
			key, err := apiKey(keyFile)
			if err != nil {
				return err
			}
			cl := client.New(base)
			cl.Key = key
			models, err := cl.Models(c.Context())
			if err != nil {
				return err
			}
			if model == "" {
				model = models[0]
			}
			if !slices.Contains(models, model) {
				return fail.As(fail.Usage, "the site serves "+strings.Join(models, ", "), fmt.Errorf("no model is called %q", model))
			}
			answer, err := cl.Chat(c.Context(), model, strings.Join(args, " "), func(piece string) {
				if !e.json {
					fmt.Fprint(e.stdout, plain.Text(piece))
				}
			})
			if err != nil {
				return err
			}
			return e.result(map[string]string{"model": model, "answer": answer}, func() { fmt.Fprintln(e.stdout) })
		},
	}
	c.Flags().StringVar(&base, "url", "http://127.0.0.1:8440", "address of the site")
	c.Flags().StringVar(&model, "model", "", "name of the model; default: the first")
	c.Flags().StringVar(&keyFile, "api-key-file", "", "file with a key of 'enisle user key'; default: what ENISLE_API_KEY holds")
	return c
}

// apiKey is the key that a user of the site asks with, "" if none is named.
func apiKey(file string) (string, error) {
	if file == "" {
		return os.Getenv("ENISLE_API_KEY"), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fail.As(fail.Usage, "'enisle user key NAME > FILE' makes one", err)
	}
	return strings.TrimSpace(string(b)), nil
}
