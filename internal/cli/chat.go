package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/cli/client"
	"enisle/internal/fail"
	"enisle/internal/plain"
)

func (e *env) chat() *cobra.Command {
	var base, model string
	c := &cobra.Command{
		Use: "chat QUESTION", Short: "Ask a released model from the terminal", Args: cobra.MinimumNArgs(1),
		Example: "  enisle chat --model smollm2-135m 'What is an island?'",
		RunE: func(c *cobra.Command, args []string) error {
			cl := client.New(base)
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
	return c
}
